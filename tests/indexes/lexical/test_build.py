"""The lexical arm of an index: made with it, changed with it, shared, kept and made again."""

import os

import numpy as np
import pytest

from indexes import Index, IndexConfig, read_manifest
from indexes.lexical import build
from retrieval import Document
from retrieval.errors import UnknownNameError, UsageError
from tests.indexes import fakes


def documents_of(*texts, prefix="d"):
    return [Document(f"{prefix}{number}", text) for number, text in enumerate(texts)]


def lexical_scores(index, query):
    """Scores by document id."""
    snapshot = index.snapshot
    scores, rows = snapshot.lexical.search(query, 100, snapshot.rows.everything)
    ids = snapshot.documents.ids(rows)
    return {ids[row]: score for row, score in zip(rows.tolist(), scores.tolist(), strict=True)}


@pytest.fixture
def written(monkeypatch):
    """Which rows were analysed, one list for each time that an arm was written."""
    calls, write = [], build.write_rows

    def noting(folder, rows, analyser):
        pairs = list(rows)
        calls.append([row for row, _ in pairs])
        return write(folder, pairs, analyser)

    monkeypatch.setattr(build, "write_rows", noting)
    return calls


def test_an_index_has_both_arms_and_titles_are_words_too(tmp_path, encoder):
    documents = [Document("a", "the pond", "Mill"), Document("b", "the mills"), Document("c", "")]
    index = Index.create(tmp_path / "i", encoder, documents, IndexConfig(language="english"))
    assert index.manifest.arms == ("dense", "lexical")
    assert index.manifest.lexical == {"language": "english", "analyser": 1}
    assert lexical_scores(index, "milling").keys() == {"a", "b"}


@pytest.mark.parametrize("backend", ["faiss", "qdrant"])
def test_the_arm_finds_what_the_index_holds_after_any_change(tmp_path, encoder, backend):
    config = IndexConfig(backend=backend, compact_share=1.0, language="english")
    path, documents = tmp_path / "i", fakes.make_documents(10)
    index = Index.create(path, encoder, documents, config)
    index.add(fakes.make_documents(3, "new"), config)
    index.delete(["d1", "new0"], config)
    index.update([Document("d2", "another one")], config)
    left = {f"d{n}" for n in range(10)} - {"d1", "d2"} | {"new1", "new2"}
    for check in (Index.open(path), Index.open(path).reindex(factory="HNSW8")):
        assert fakes.ids_by_words(check) == sorted(left)
        assert lexical_scores(check, "another").keys() == {"d2"}
        check.check()
    index.compact()
    assert fakes.ids_by_words(index) == sorted(left)
    fresh = Index.create(tmp_path / "fresh", encoder, iterate(index), config)
    assert lexical_scores(index, "text 3 another") == lexical_scores(fresh, "text 3 another")


def iterate(index):
    return [document for batch in index.snapshot.documents.iterate() for document in batch]


def test_only_new_rows_are_analysed_and_old_files_are_shared(tmp_path, encoder, written):
    path, config = tmp_path / "i", IndexConfig(compact_share=1.0, language="none")
    Index.create(path, encoder, fakes.make_documents(6), config)
    before = {entry.name: entry for entry in read_manifest(path).lexical_files.values()}
    inodes = {(path / name).stat().st_ino for name in before}
    index = Index.open(path, encoder)
    index.add(fakes.make_documents(2, "new"), config)
    assert written == [[0, 1, 2, 3, 4, 5], [6, 7]]
    after = index.manifest.lexical_files
    shared = inodes & {(path / entry.name).stat().st_ino for entry in after.values()}
    assert len(shared) == len(before) - 2  # all but meta.json and .managed.json
    index.delete(["d0"], config)
    index.reindex(factory="HNSW8")
    assert index.manifest.lexical_files == after  # the very files
    other = index.reindex(out=tmp_path / "other")
    assert written == [[0, 1, 2, 3, 4, 5], [6, 7]]
    assert fakes.ids_by_words(other) == fakes.ids_by_words(index)
    index.compact()
    assert written[2:] == [[0, 1, 2, 3, 4, 5, 6]]


def test_a_file_system_without_links_has_copies(tmp_path, encoder, monkeypatch):
    def refused(*arguments, **options):
        raise OSError("no links here")

    index = Index.create(tmp_path / "i", encoder, fakes.make_documents(3))
    monkeypatch.setattr(os, "link", refused)
    index.add(fakes.make_documents(2, "new"))
    assert len(fakes.ids_by_words(index)) == 5
    assert Index.open(tmp_path / "i").check().documents == 5


def test_a_damaged_arm_leaves_dense_search_and_is_made_again_by_the_next_change(
    tmp_path, encoder, documents
):
    path = tmp_path / "i"
    Index.create(path, encoder, documents)
    [damaged] = (path / "lexical").glob("*.idx")
    damaged.write_bytes(b"short")
    index = Index.open(path, encoder)
    assert index.snapshot.lexical is None
    assert str(damaged) in index.snapshot.lexical_fault
    assert index.search(encoder.encode_queries([documents[3].content]), 1)[0][0].doc_id == "d3"
    index.add(fakes.make_documents(1, "new"))
    assert index.snapshot.lexical_fault == ""
    assert len(fakes.ids_by_words(index)) == 26
    index.check()


def test_an_index_without_the_arm_gets_it_and_loses_it_again(tmp_path, encoder, documents):
    path = tmp_path / "i"
    index = Index.create(path, encoder, documents, IndexConfig(arms=["dense"]))
    assert (index.manifest.arms, index.manifest.lexical) == (("dense",), {})
    assert (index.snapshot.lexical, index.snapshot.lexical_fault) == (None, "")
    index.delete(["d0"])
    calls = encoder.calls
    index.reindex(arms=["dense", "lexical"], language="english")
    assert fakes.ids_by_words(index) == sorted(f"d{n}" for n in range(1, 25))
    index.reindex(language="german")
    assert index.manifest.lexical["language"] == "german"
    index.reindex(arms=["dense"])
    assert not index.manifest.lexical_files
    assert not list(path.glob("lexical*"))
    assert encoder.calls == calls


def test_the_language_is_that_of_most_documents_and_is_kept(tmp_path, encoder):
    german = ["Die Mühlen stehen am Teich und mahlen das Korn für das Dorf."] * 5
    index = Index.create(tmp_path / "i", encoder, documents_of(*german))
    assert index.manifest.lexical["language"] == "german"
    index.add(documents_of("the mills stand by the pond and grind the corn" * 50, prefix="e"))
    assert index.manifest.lexical["language"] == "german"
    assert len(lexical_scores(index, "Mühle")) == 5


def test_passages_are_rows_of_the_arm(tmp_path, encoder):
    def split(text):
        return [text[start : start + 10] for start in range(0, len(text), 10)]

    config = IndexConfig(passages={"tokens": 10, "overlap": 0}, language="none")
    documents = documents_of("mill stone pond waterX", "river mud")
    index = Index.create(tmp_path / "i", encoder, documents, config, split=split)
    assert len(lexical_scores(index, "mill river")) == 2
    _, rows = index.snapshot.lexical.search("river", 5, index.snapshot.rows.everything)
    assert rows.tolist() == [index.manifest.rows - 1]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"arms": ["lexical"]}, UsageError, "every index has vectors"),
        ({"arms": []}, UsageError, "every index has vectors"),
        ({"arms": ["dense", "sparse"]}, UnknownNameError, "Accepted: dense, lexical"),
        ({"language": "englisch"}, UnknownNameError, "Did you mean 'english'"),
        ({"arms": ["dense"], "language": "english"}, UsageError, "leave the language out"),
    ],
)
def test_what_no_index_can_have_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        IndexConfig(**options)


def test_scores_do_not_depend_on_the_backend(tmp_path, encoder, documents):
    found = []
    for backend in ("faiss", "qdrant"):
        index = Index.create(tmp_path / backend, encoder, documents, IndexConfig(backend=backend))
        everything = index.snapshot.rows.everything
        found.append(index.snapshot.lexical.search("text 3 title 7", 10, everything))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
