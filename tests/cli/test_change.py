"""``millpond add``, ``update`` and ``delete``: what is embedded, what is said, what is refused."""

import re
from functools import partial

import numpy as np
import pytest

from cli.commands import change as _change
from indexes import Index, IndexConfig, read_manifest
from indexes.transaction import begin
from retrieval.errors import StorageError

A = {"_id": "a", "title": "Rivers", "text": "water flows down hill"}
B = {"_id": "b", "text": "mills grind corn", "year": 1851}
C = {"_id": "c", "text": "a pond holds still water"}
D = {"_id": "d", "text": "frogs sing"}


def found_ids(folder):
    index = Index.open(folder)
    hits = index.search(np.ones((1, index.dimension), dtype=np.float32), 1000)[0]
    return sorted(hit.doc_id for hit in hits)


def summary(result):
    """The line that says what was done, without how long it took."""
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    return re.sub(r" in [0-9.]+ s:.* holds", "; holds", result.stderr.splitlines()[0])


def assert_refused(result, code, *words):
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


@pytest.fixture
def whole(index_folder):
    """The index, and a check that it was not changed."""
    before = (index_folder / "manifest.json").read_bytes()
    yield index_folder
    assert (index_folder / "manifest.json").read_bytes() == before
    assert found_ids(index_folder) == ["a", "b", "c"]


def test_add_embeds_what_is_new_and_leaves_the_rest(millpond, index_folder, write_jsonl, embedded):
    embedded.clear()
    result = millpond("add", index_folder, write_jsonl("more.jsonl", A, D))
    assert summary(result) == "Added 1, kept 1; holds 4 documents."
    assert embedded == ["frogs sing"]
    assert found_ids(index_folder) == ["a", "b", "c", "d"]


def test_add_reads_stdin_and_takes_the_model_of_the_index(
    millpond, index_folder, loaded, write_jsonl
):
    loaded.clear()
    lines = write_jsonl("more.jsonl", D).read_bytes()
    assert summary(millpond("add", index_folder, "-", stdin=lines)).startswith("Added 1;")
    assert loaded == ["fake"]


def test_update_replaces_what_differs_and_embeds_no_text_twice(
    millpond, index_folder, write_jsonl, embedded
):
    embedded.clear()
    path = write_jsonl("new.jsonl", A, B | {"year": 1852}, C | {"text": "a dry pond"}, D)
    result = millpond("update", index_folder, path, "--compact-at", 1)
    assert summary(result) == "Added 1, replaced 1, relabelled 1, kept 1; holds 4 documents."
    assert embedded == ["a dry pond", "frogs sing"]
    shown = millpond("info", index_folder).stdout
    assert re.search(r"^deleted +2 of 6 rows, 33%$", shown, re.MULTILINE)
    hits = millpond("search", index_folder, "corn", "--filter", "year == 1852").stdout
    assert hits.split()[2] == "b"


def test_an_update_can_delete_what_the_corpus_does_not_hold(millpond, index_folder, write_jsonl):
    path = write_jsonl("new.jsonl", A, D)
    result = millpond("update", index_folder, path, "--delete-missing")
    # 2 of 4 rows are deleted, more than a quarter.
    assert summary(result) == "Added 1, deleted 2, kept 1, compacted; holds 2 documents."
    assert found_ids(index_folder) == ["a", "d"]
    assert read_manifest(index_folder).rows == 2


def test_what_changes_nothing_says_so(millpond, index_folder, corpus):
    before = (index_folder / "manifest.json").read_bytes()
    assert summary(millpond("update", index_folder, corpus)) == "Kept 3; holds 3 documents."
    result = millpond("delete", index_folder, "nobody", "--ignore-missing")
    assert summary(result) == "Not found 1; holds 3 documents."
    assert (index_folder / "manifest.json").read_bytes() == before


def test_delete_takes_ids_and_loads_no_model(millpond, index_folder, loaded):
    loaded.clear()
    result = millpond("delete", index_folder, "a", "c", "--compact-at", 1)
    assert summary(result) == "Deleted 2; holds 1 document."
    assert (found_ids(index_folder), loaded) == (["b"], [])
    assert read_manifest(index_folder).rows == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ids.txt", "a\n\n  c  \r\n"),
        ("ids", "a\nc"),
        ("ids.jsonl", '{"doc_id": "b", "id": "a"}\n{"id": "c"}\n'),
        ("-", "a\nc\n"),
    ],
)
def test_ids_come_from_files_and_stdin(name, content, millpond, index_folder, tmp_path):
    if name != "-":
        (tmp_path / name).write_text(content, newline="")
        name = tmp_path / name
    result = millpond("delete", index_folder, "--ids", name, stdin=content)
    assert summary(result).startswith("Deleted 2, compacted;")
    assert found_ids(index_folder) == ["b"]


def test_ids_may_be_numbers_in_json_lines(millpond, write_jsonl, tmp_path):
    path = write_jsonl("n.jsonl", {"id": 1, "text": "x"}, {"id": 2, "text": "y"})
    millpond("index", path, "--out", tmp_path / "i")
    path = write_jsonl("gone.jsonl", {"_id": 1})
    assert summary(millpond("delete", tmp_path / "i", "--ids", path)).startswith("Deleted 1")
    assert found_ids(tmp_path / "i") == ["2"]


def test_an_index_of_passages_is_changed_with_passages_of_its_own_kind(
    millpond, write_jsonl, tmp_path, embedded
):
    long = {"_id": "l", "text": "one two three four five six"}
    folder = tmp_path / "i"
    millpond("index", write_jsonl("l.jsonl", long), "--out", folder, "--passages", 4)
    embedded.clear()
    new = {"_id": "n", "text": "seven eight nine ten eleven"}
    result = millpond("add", folder, write_jsonl("n.jsonl", long, new))
    assert summary(result) == "Added 1, kept 1; holds 4 passages."
    assert embedded == ["seven eight nine ten", " eleven"]
    assert summary(millpond("delete", folder, "l")).startswith("Deleted 1, compacted; holds 2 ")
    assert found_ids(folder) == ["n"]


def test_approximate_indexes_say_what_they_find_after_a_change(millpond, corpus, tmp_path):
    millpond("index", corpus, "--out", tmp_path / "i", "--factory", "HNSW8")
    result = millpond("delete", tmp_path / "i", "a")
    line = "recall@10 1.00 against exact search (2 stored vectors as queries)"
    assert line in result.stderr.splitlines()


def test_defaults_are_those_of_the_library():
    assert IndexConfig.compact_share == _change.COMPACT_SHARE


def test_a_changed_document_is_not_added(millpond, whole, write_jsonl):
    path = write_jsonl("new.jsonl", D, C | {"text": "else"})
    assert_refused(millpond("add", whole, path), 2, "'c' is in", f"millpond update {whole} CORPUS")


@pytest.mark.parametrize("command", ["add", "update"])
def test_another_model_is_refused_with_both_names(command, millpond, whole, corpus):
    result = millpond(command, whole, corpus, "--model", "other")
    assert_refused(result, 2, "'fake'", "'other'", "Leave --model out")


@pytest.mark.parametrize("command", ["add", "update"])
def test_bad_input_is_refused_before_a_model_is_loaded(
    command, millpond, whole, corpus, write_jsonl, tmp_path, loaded
):
    loaded.clear()
    assert_refused(millpond(command, tmp_path / "no", corpus), 2, "There is no index at")
    assert_refused(millpond(command, whole, tmp_path / "no.jsonl"), 2, "no such file")
    assert_refused(millpond(command, whole, write_jsonl("empty.jsonl")), 2, "holds no record")
    assert_refused(millpond(command, whole, write_jsonl("bad.jsonl", b"{")), 2, "bad.jsonl:1")
    assert_refused(millpond(command, whole, corpus, "--compact-at", 2), 2, "--compact-at")
    assert loaded == []


def test_skipping_bad_records_does_not_go_with_deleting_what_is_missing(millpond, whole, corpus):
    result = millpond("update", whole, corpus, "--delete-missing", "--skip-bad")
    assert_refused(result, 2, "--delete-missing", "--skip-bad")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((), 2, ["No ids were given", "--ids FILE"]),
        (("a", "x", "y"), 2, ["2 of the ids are not in", "'x', 'y'", "--ignore-missing"]),
        (("a", "b", "c"), 2, ["No document would be left"]),
        (("--ids", "nowhere.txt"), 2, ["nowhere.txt: there is no such file"]),
        (("--ids", "."), 2, ["this is a folder"]),
        (("--ids", "empty.txt"), 2, ["empty.txt: it holds no id"]),
        (("--ids", "bad.txt"), 2, ["bad.txt:2: not UTF-8"]),
        (("--ids", "bad.jsonl"), 2, ["bad.jsonl:1: no id among 'name'; expected one of _id"]),
        (("--ids", "worse.jsonl"), 2, ["worse.jsonl:1: 'id' is true or false"]),
        (("--ids", "worst.jsonl"), 2, ["worst.jsonl:1: not valid JSON"]),
    ],
)
def test_deletions_that_cannot_be(
    args, code, words, millpond, whole, write_jsonl, tmp_path, monkeypatch
):
    write_jsonl("empty.txt", b"", b" ")
    write_jsonl("bad.txt", b"a", b"\xff")
    write_jsonl("bad.jsonl", {"name": "a"})
    write_jsonl("worse.jsonl", {"id": True})
    write_jsonl("worst.jsonl", b"a")
    monkeypatch.chdir(tmp_path)
    assert_refused(millpond("delete", whole, *args), code, *words)


def test_nothing_is_changed_while_another_process_writes(millpond, whole, write_jsonl):
    path = write_jsonl("more.jsonl", D)
    with begin(whole):
        for args in (("add", whole, path), ("delete", whole, "a"), ("reindex", whole)):
            assert_refused(millpond(*args), 1, "Another process is writing the index")


def test_a_missing_index_is_not_made(millpond, tmp_path):
    for command in (("delete", tmp_path / "no", "a"), ("reindex", tmp_path / "no")):
        assert_refused(millpond(*command), 2, "There is no index at")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("restart", [False, True])
def test_a_broken_add_goes_on_and_restart_begins_anew(
    restart, millpond, index_folder, write_jsonl, embedded, monkeypatch
):
    monkeypatch.setattr("indexes.storage.staging.SHARD_SECONDS", 0)  # a shard for each document
    monkeypatch.setattr("indexes.IndexConfig", partial(IndexConfig, batch_documents=1))
    rows = [{"_id": f"n{number}", "text": f"new {number}"} for number in range(4)]
    command = ("add", index_folder, write_jsonl("more.jsonl", *rows))

    def stop(self, texts):
        if texts == ["new 2"]:
            raise KeyboardInterrupt
        return encode(self, texts)

    encode = _change.ReportingEncoder.encode_documents
    with monkeypatch.context() as patch:
        patch.setattr(_change.ReportingEncoder, "encode_documents", stop)
        assert millpond(*command).exit_code == 130
    assert found_ids(index_folder) == ["a", "b", "c"]
    embedded.clear()
    result = millpond(*command, *(["--restart"] if restart else []))
    going_on = "Continuing: 2 documents were stored before."
    assert summary(result) == ("Added 4; holds 7 documents." if restart else going_on)
    assert " ".join(result.stderr.split()).startswith(
        "Added 4" if restart else going_on + " Added 4"
    )
    assert embedded == [f"new {number}" for number in range(0 if restart else 2, 4)]


def test_a_deletion_whose_compaction_fails_is_done_and_says_so(millpond, index_folder, monkeypatch):
    def refuse(transaction):
        raise StorageError("The disk is full.")

    monkeypatch.setattr("indexes.index.compact", refuse)
    result = millpond("delete", index_folder, "a")
    assert summary(result) == "Deleted 1; holds 2 documents."
    assert result.stderr.splitlines()[1] == (
        "Warning: The deleted rows stay on disk for now, since compaction failed: The disk is full."
    )
    assert found_ids(index_folder) == ["b", "c"]


def test_a_filter_deletes_what_it_lets_through(millpond, write_jsonl, tmp_path):
    rows = [{"_id": str(year), "text": "x", "year": year} for year in (1999, 2000, 2001)]
    millpond("index", write_jsonl("years.jsonl", *rows), "--out", tmp_path / "i")
    result = millpond("delete", tmp_path / "i", "--filter", "year < 2001", "--compact-at", 1)
    assert summary(result).startswith("Deleted 2;")
    assert found_ids(tmp_path / "i") == ["2001"]
    nothing = millpond("delete", tmp_path / "i", "--filter", "year < 2001")
    assert (nothing.exit_code, summary(nothing)[:15]) == (0, "Changed nothing")
    wrong = millpond("delete", tmp_path / "i", "--filter", "yaer < 2001")
    assert "Did you mean 'year'?" in wrong.stderr


def test_records_are_deleted_by_the_field_that_holds_the_ids_of_the_index(
    millpond, write_jsonl, tmp_path
):
    red = {"id": "1", "sku": "2", "text": "red kettle"}
    blue = {"id": "2", "sku": "1", "text": "blue pot"}
    folder = tmp_path / "by-sku"
    made = millpond("index", write_jsonl("c.jsonl", red, blue), "--out", folder, "--id", "sku")
    assert made.exit_code == 0, made.stderr
    gone = millpond("delete", folder, "--ids", write_jsonl("gone.jsonl", red))
    assert gone.exit_code == 0, gone.stderr
    assert list(Index.open(folder).fetch(["1", "2"])) == ["1"]  # the blue pot stays
    none = millpond("delete", folder, "--ids", write_jsonl("no.jsonl", {"id": "1"}))
    assert none.exit_code == 2
    assert "there is no field 'sku', which holds the ids" in none.stderr


def test_records_cannot_be_deleted_by_ids_that_their_content_made(millpond, write_jsonl, tmp_path):
    corpus = write_jsonl("c.jsonl", {"text": "red kettle"}, {"text": "blue pot"})
    millpond("index", corpus, "--out", tmp_path / "i")
    refused = millpond("delete", tmp_path / "i", "--ids", corpus)
    assert refused.exit_code == 2
    assert "made from the content" in refused.stderr


def test_the_same_options_read_the_same_ids_again(millpond, write_jsonl, tmp_path):
    rows = [{"url": "u", "description": text} for text in ("one", "two", "three")]
    corpus = write_jsonl("c.jsonl", *rows)
    millpond("index", corpus, "--out", tmp_path / "i", "--text", "description")
    one = write_jsonl("one.jsonl", rows[0])
    again = millpond("update", tmp_path / "i", one, "--text", "description")
    assert again.exit_code == 0, again.stderr
    assert len(Index.open(tmp_path / "i")) == 3
