"""Documents that are longer than the model reads: told, or embedded as passages."""

import json

import pytest

from indexes import Index, read_manifest

LONG = " ".join(f"w{number}" for number in range(24))
"""The fake model reads 15 words and EOS; of these 24, 9 are not read."""


@pytest.fixture
def write_mixed(write_jsonl):
    def write(name, long, short):
        rows = [{"_id": f"l{number}", "text": LONG} for number in range(long)]
        rows += [{"_id": f"s{number}", "text": "a b c"} for number in range(short)]
        return write_jsonl(name, *rows)

    return write


def warning(result):
    return [line for line in result.stderr.splitlines() if "longer than the model reads" in line]


def test_what_is_cut_is_told_and_kept(millpond, write_mixed, tmp_path):
    corpus = write_mixed("c.jsonl", 1, 10)
    result = millpond("index", corpus, "--out", tmp_path / "i")
    # 24 + 10 * 3 = 54 words, of which 9 were not read: 17%.
    assert warning(result) == [
        "Warning: 1 of 11 documents is longer than the model reads, and 17% of all tokens were "
        "not read: --passages 15 embeds all of each."
    ]
    manifest = read_manifest(tmp_path / "i")
    assert manifest.cut == {"texts": 11, "cut": 1, "tokens": 54, "unread": 9}
    assert manifest.passages == {}


@pytest.mark.parametrize("source", ["file", "stdin"])
def test_passages_are_the_default_where_more_than_a_tenth_would_be_cut(
    source, millpond, write_mixed, tmp_path
):
    corpus = write_mixed("c.jsonl", 2, 17)
    typed = ("index", corpus if source == "file" else "-", "--out", tmp_path / "i")
    result = millpond(*typed, stdin=corpus.read_bytes())
    assert result.exit_code == 0, result.stderr
    assert "Passages of at most 15 tokens are embedded, since 2 of the 19 documents" in (
        result.stderr
    )
    assert "--whole" in result.stderr
    manifest = read_manifest(tmp_path / "i")
    assert (manifest.passages, manifest.cut) == ({"tokens": 15, "overlap": 1}, None)
    assert manifest.documents == 2 * 2 + 17


def test_what_is_added_is_cut_as_the_rest_was(millpond, write_mixed, tmp_path):
    millpond("index", write_mixed("c.jsonl", 2, 17), "--out", tmp_path / "i")
    more = write_mixed("more.jsonl", 3, 0)
    assert millpond("add", tmp_path / "i", more).exit_code == 0
    assert len(Index.open(tmp_path / "i")) == 3 * 2 + 17


def test_whole_documents_can_be_asked_for(millpond, write_mixed, tmp_path):
    corpus = write_mixed("c.jsonl", 2, 17)
    result = millpond("index", corpus, "--out", tmp_path / "i", "--whole")
    assert read_manifest(tmp_path / "i").passages == {}
    assert warning(result)[0].startswith("Warning: 2 of 19 documents are longer")
    both = millpond("index", corpus, "--out", tmp_path / "j", "--whole", "--passages", 4)
    assert both.exit_code == 2
    assert "exclude each other" in both.stderr


def test_add_and_embed_tell_it_too(millpond, write_mixed, tmp_path):
    millpond("index", write_mixed("c.jsonl", 0, 3), "--out", tmp_path / "i")
    more = write_mixed("more.jsonl", 1, 0)
    assert "1 of 1 document is longer" in warning(millpond("add", tmp_path / "i", more))[0]
    result = millpond("embed", more, "--out", tmp_path / "v.parquet")
    assert "1 of 1 text is longer" in warning(result)[0]
    assert "cut those into shorter ones" in warning(result)[0]


class TestFields:
    def test_a_guess_is_told_kept_and_repeated(self, millpond, write_jsonl, tmp_path):
        first = write_jsonl("a.jsonl", {"url": "u", "headline": "Mills", "body": "grind corn"})
        result = millpond("index", first, "--out", tmp_path / "i")
        assert "took the id from 'url' and the title from 'headline'." in result.stderr
        layout = read_manifest(tmp_path / "i").layout
        assert layout == {"id": "url", "title": "headline", "folders": "[]"}
        more = {"key": "k", "url": "v", "headline": "Ponds", "body": "hold water"}
        assert millpond("add", tmp_path / "i", write_jsonl("b.jsonl", more)).exit_code == 0
        lines = millpond("search", tmp_path / "i", "Ponds", "--json").stdout.splitlines()
        hits = {hit["doc_id"]: hit["title"] for hit in map(json.loads, lines)}
        assert hits == {"u": "Mills", "v": "Ponds"}

    def test_fields_can_be_named(self, millpond, write_jsonl, tmp_path):
        path = write_jsonl("a.jsonl", {"pk": 1, "head": "Mills", "words": "grind", "n": 1})
        named = ("--id", "pk", "--text-template", "{head}: {words}")
        result = millpond("index", path, "--out", tmp_path / "i", *named)
        assert result.exit_code == 0, result.stderr
        (line,) = millpond("search", tmp_path / "i", "Mills", "--json").stdout.splitlines()
        assert json.loads(line)["text"] == "Mills: grind"

    def test_a_value_of_another_type_is_told_when_it_is_added(self, millpond, write, tmp_path):
        first = write("a.csv", "id,text,year,code\n1,x,2020,a1\n2,y,2021,7\n")
        result = millpond("index", first, "--out", tmp_path / "i")
        assert "types found in its columns: year int." in result.stderr
        alike = millpond("add", tmp_path / "i", write("b.csv", "id,text,year,code\n3,z,2022,7\n"))
        assert "Warning: The field" not in alike.stderr
        other = millpond("add", tmp_path / "i", write("c.csv", "id,text,year\n4,z,soon\n"))
        assert "Warning: The field 'year' was int in" in other.stderr
        assert "it can no longer be filtered" in other.stderr


@pytest.fixture
def write(tmp_path):
    def write_text(name, content):
        (tmp_path / name).write_text(content)
        return tmp_path / name

    return write_text


def test_what_add_and_update_cut_is_counted_too_and_what_stays_is_not(
    millpond, write_mixed, write_jsonl, tmp_path
):
    millpond("index", write_mixed("c.jsonl", 1, 10), "--out", tmp_path / "i")
    assert warning(millpond("update", tmp_path / "i", write_mixed("c.jsonl", 1, 10))) == []
    more = write_jsonl("more.jsonl", {"_id": "n", "text": LONG}, {"_id": "l0", "text": LONG})
    told = warning(millpond("add", tmp_path / "i", more))
    assert told[0].startswith("Warning: 1 of 1 document is longer")
    # 54 words, 9 of them not read, and 24 and 9 more.
    assert read_manifest(tmp_path / "i").cut == {"texts": 12, "cut": 2, "tokens": 78, "unread": 18}
