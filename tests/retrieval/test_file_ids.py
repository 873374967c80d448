"""A file has one id, however and beside whatever it is named."""

import shutil
from itertools import permutations, product

import pytest

from retrieval import read_corpus
from retrieval.errors import UsageError

EXPECTED = {
    "da": {"da/README.md", "da/deep/x.md"},
    "db": {"db/README.md"},
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in ("da/README.md", "da/deep/x.md", "db/README.md", "rows.jsonl", "other/a/b.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"id": "r", "text": "x"}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(*sources, earlier=None):
    corpus = read_corpus(list(sources), earlier=earlier)
    return {document.doc_id for document in corpus}, corpus


SPELLINGS = ["{}", "./{}", "{}/", "{}/.", "../{here}/{}", "{root}/{}", "{root}/other/../{}/"]


@pytest.mark.parametrize(("one", "two"), list(product(SPELLINGS, SPELLINGS)))
def test_the_spelling_and_the_company_of_a_folder_change_no_id(place, one, two):
    first = one.format("da", here=place.name, root=place)
    second = two.format("db", here=place.name, root=place)
    assert read(first)[0] == EXPECTED["da"]
    assert read(second)[0] == EXPECTED["db"]
    for order in permutations([first, second, "rows.jsonl"]):
        assert read(*order)[0] == EXPECTED["da"] | EXPECTED["db"] | {"r"}


def test_the_working_directory_changes_no_id(place, monkeypatch):
    monkeypatch.chdir(place / "da")
    assert read(".")[0] == EXPECTED["da"]
    assert read(".", "../db")[0] == EXPECTED["da"] | EXPECTED["db"]
    monkeypatch.chdir(place / "da/deep")
    assert read("..")[0] == EXPECTED["da"]


@pytest.mark.parametrize(
    "later", ["da/README.md", "da/deep/x.md", "da/deep", "da/*.md", "da/deep/."]
)
@pytest.mark.parametrize("first", [["da"], ["da", "db"], ["db", "da"]])
def test_a_part_of_a_folder_that_an_index_holds_has_the_ids_of_the_folder(place, first, later):
    _, corpus = read(*first)
    assert read(later, earlier=corpus.layout)[0] <= EXPECTED["da"]


def test_a_folder_that_follows_a_part_of_it_keeps_the_ids_of_the_part(place):
    ids, corpus = read("da/deep")
    assert ids == {"deep/x.md"}
    ids, corpus = read("da", earlier=corpus.layout)
    assert ids == {"deep/x.md", "da/README.md"}
    assert read("da", "db", earlier=corpus.layout)[0] == ids | EXPECTED["db"]


def test_within_a_folder_that_is_named_a_part_of_it_has_no_ids_of_its_own(place):
    for order in permutations(["da", "da/deep", "da/README.md"]):
        assert read(*order)[0] == EXPECTED["da"]


class TestFoldersOfOneName:
    @pytest.fixture
    def twins(self, place):
        for name in ("a/docs", "b/docs"):
            shutil.copytree(place / "da", place / name)
        return place

    def test_they_are_told_apart_by_the_folders_above(self, twins):
        ids, corpus = read("a/docs", "b/docs")
        assert ids == {f"{one}/docs/{name}" for one in "ab" for name in ("README.md", "deep/x.md")}
        assert "a/docs: ids begin with a/docs, since another folder is called docs." in corpus.notes
        assert read("b/docs", earlier=corpus.layout)[0] == {i for i in ids if i.startswith("b/")}

    def test_the_first_in_an_index_keeps_its_name(self, twins):
        _, first = read("a/docs")
        ids, second = read("b/docs", earlier=first.layout)
        assert ids == {"b/docs/README.md", "b/docs/deep/x.md"}
        assert read("a/docs", earlier=second.layout)[0] == {"docs/README.md", "docs/deep/x.md"}
        assert read("b/docs/", earlier=second.layout)[0] == ids

    def test_one_that_has_moved_keeps_its_ids(self, twins):
        ids, first = read("a/docs")
        shutil.move(twins / "a/docs", twins / "moved/docs")
        later, corpus = read("moved/docs", earlier=first.layout)
        assert later == ids
        assert "taken for the folder that was" in corpus.notes[0]

    def test_a_longer_name_is_no_folder_in_another_one(self, place):
        shutil.copytree(place / "da", place / "x/da/deep")
        shutil.copytree(place / "da", place / "y/deep")
        _, corpus = read("da")
        _, corpus = read("y/deep", earlier=corpus.layout)
        ids, _ = read("x/da/deep", earlier=corpus.layout)
        assert ids == {"x/da/deep/README.md", "x/da/deep/deep/x.md"}


def test_a_link_is_called_as_it_is_and_known_by_what_it_leads_to(place):
    (place / "link").symlink_to("da")
    ids, corpus = read("link")
    assert ids == {"link/README.md", "link/deep/x.md"}
    assert read("da", earlier=corpus.layout)[0] == ids


def test_an_index_that_does_not_say_how_ids_were_made_gets_no_second_copies(place):
    assert read("rows.jsonl", earlier={"id": "id"})[0] == {"r"}
    with pytest.raises(UsageError, match=r"would get the id 'da/README\.md', but this index"):
        read("da", earlier={})


def test_links_that_leave_a_folder_are_passed_over_and_those_inside_it_are_read(place):
    (place / "da/out.md").symlink_to(place / "db/README.md")
    (place / "da/in.md").symlink_to("deep/x.md")
    (place / "da/loop").symlink_to(place / "da")
    ids, corpus = read("da")
    assert ids == EXPECTED["da"] | {"da/in.md"}
    assert corpus.notes == ("da: passed over 2 links to folders or files outside.",)
