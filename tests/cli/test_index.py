import pytest

from indexes import Index, read_manifest


def test_says_how_many_documents_and_what_to_type_next(millpond, corpus, tmp_path):
    result = millpond("index", corpus, "--out", tmp_path / "new index")
    assert result.exit_code == 0
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0].startswith("Indexed 3 documents in ")
    assert lines[1].startswith("Words are indexed as english")
    assert "is untrained" in lines[2]
    assert lines[3] == f"Next: millpond search '{tmp_path / 'new index'}' Rivers"


def test_options_reach_the_manifest(millpond, corpus, tmp_path, loaded):
    folder = tmp_path / "index"
    args = ("--model", "tiny:mean+causal", "--factory", "HNSW8", "--limit", 2)
    assert millpond("index", corpus, "--out", folder, *args).exit_code == 0
    manifest = read_manifest(folder)
    assert (manifest.factory, manifest.documents) == ("HNSW8", 2)
    assert manifest.fingerprint.model == "tiny:mean+causal"
    assert manifest.corpus_name == str(corpus)
    assert loaded == ["tiny:mean+causal"]


def test_reads_json_lines_from_stdin(millpond, corpus, tmp_path, monkeypatch):
    result = millpond("index", "-", "--out", tmp_path / "index", stdin=corpus.read_bytes())
    assert result.exit_code == 0, result.stderr
    assert len(Index.open(tmp_path / "index")) == 3


def test_skip_bad_counts_bad_records_and_names_the_first(millpond, write_jsonl, tmp_path):
    path = write_jsonl("bad.jsonl", {"_id": "a", "text": "x"}, b"{oops", {"_id": "a", "text": "y"})
    result = millpond("index", path, "--out", tmp_path / "index", "--skip-bad")
    assert result.exit_code == 0
    assert f"2 bad records were skipped. The first: {path}:2:" in result.stderr
    manifest = read_manifest(tmp_path / "index")
    assert (manifest.documents, manifest.skipped) == (1, 2)


def test_overwrite_replaces_an_index(millpond, write_jsonl, index_folder):
    other = write_jsonl("other.jsonl", {"_id": "z", "text": "new"})
    assert millpond("index", other, "--out", index_folder, "--overwrite").exit_code == 0
    assert read_manifest(index_folder).documents == 1


def test_a_document_of_one_megabyte_is_indexed_and_shown(millpond, write_jsonl, tmp_path):
    path = write_jsonl("big.jsonl", {"_id": "big", "text": "flour " * 200_000})
    assert millpond("index", path, "--out", tmp_path / "index").exit_code == 0
    result = millpond("search", tmp_path / "index", "flour")
    assert result.exit_code == 0
    assert [len(line) <= 164 for line in result.stdout.splitlines()] == [True, True]


@pytest.mark.parametrize("problem", ["corpus", "out", "backend"])
def test_what_is_cheap_to_check_is_checked_before_a_model_is_loaded(
    problem, millpond, corpus, index_folder, tmp_path, loaded
):
    loaded.clear()
    args = {
        "corpus": (tmp_path / "nowhere.jsonl", "--out", tmp_path / "new"),
        "out": (corpus, "--out", index_folder),
        "backend": (corpus, "--out", tmp_path / "new", "--backend", "fais"),
    }
    assert millpond("index", *args[problem]).exit_code == 2
    assert loaded == []
