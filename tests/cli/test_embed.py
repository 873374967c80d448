import json
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest


def test_writes_ids_and_fixed_size_vectors_with_the_fingerprint(millpond, corpus, tmp_path):
    out = tmp_path / "vectors.parquet"
    result = millpond("embed", corpus, "--out", out, "--as", "query")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Embedded 3 texts as query" in result.stderr
    table = pq.read_table(out)
    assert table.column("id").to_pylist() == ["a", "b", "c"]
    kind = table.schema.field("embedding").type
    assert (kind.list_size, kind.value_type) == (32, pa.float32())
    vectors = np.stack(table.column("embedding").to_numpy(zero_copy_only=False))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1], abs=1e-6)
    metadata = table.schema.metadata
    assert json.loads(metadata[b"millpond.fingerprint"])["model"] == "fake"
    assert metadata[b"millpond.role"] == b"query"


def test_every_row_tells_its_text_by_a_hash(millpond, tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("one\ntwo\none\n")
    out = tmp_path / "vectors.parquet"
    assert millpond("embed", path, "--out", out).exit_code == 0
    first, second, third = pq.read_table(out).column("text_hash").to_pylist()
    assert first == third == blake2b(b"one", digest_size=16).digest()
    assert second == blake2b(b"two", digest_size=16).digest()


def test_a_txt_file_is_one_text_a_line_with_empty_ones_kept(millpond, tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(b"first\r\n\nthird")
    out = tmp_path / "vectors.parquet"
    assert millpond("embed", path, "--out", out).exit_code == 0
    assert pq.read_table(out).column("id").to_pylist() == ["1", "2", "3"]


def test_reads_stdin(millpond, corpus, tmp_path):
    out = tmp_path / "vectors.parquet"
    assert millpond("embed", "-", "--out", out, stdin=corpus.read_bytes()).exit_code == 0
    assert pq.read_metadata(out).num_rows == 3


def test_more_texts_than_are_held_at_a_time(millpond, tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(f"text {n}" for n in range(1100)))
    out = tmp_path / "vectors.parquet"
    assert millpond("embed", path, "--out", out).exit_code == 0
    assert pq.read_table(out).column("id").to_pylist() == [str(n) for n in range(1, 1101)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no text"),
        (b"good\nb\xffd\n", "lines.txt:2: not UTF-8"),
        (b"good\nb\0d\n", "lines.txt:2: a NUL byte"),
    ],
)
def test_a_bad_txt_file_stops_with_its_line_and_writes_nothing(content, words, millpond, tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(content)
    result = millpond("embed", path, "--out", tmp_path / "vectors.parquet")
    assert result.exit_code == 2
    assert words in result.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["lines.txt"]


def test_skip_bad_counts_bad_lines(millpond, tmp_path):
    path = tmp_path / "lines.txt"
    path.write_bytes(b"good\nb\xffd\n")
    out = tmp_path / "vectors.parquet"
    result = millpond("embed", path, "--out", out, "--skip-bad")
    assert result.exit_code == 0
    assert "1 bad records were skipped" in result.stderr
    assert pq.read_table(out).column("id").to_pylist() == ["1"]


def test_out_is_checked_before_a_model_is_loaded(millpond, corpus, tmp_path, loaded):
    assert millpond("embed", corpus, "--out", tmp_path).exit_code == 2
    result = millpond("embed", corpus, "--out", tmp_path / "no" / "v.parquet")
    assert result.exit_code == 2
    assert "mkdir -p" in result.stderr
    assert loaded == []


@pytest.mark.parametrize("how", ["itself", "symbolic", "hard"])
def test_the_input_is_never_replaced_by_its_vectors(millpond, write_jsonl, tmp_path, how):
    corpus = write_jsonl("c.jsonl", {"_id": "a", "text": "water"})
    out, before = tmp_path / "out", corpus.read_bytes()
    if how == "itself":
        out = tmp_path / "." / "c.jsonl"
    elif how == "symbolic":
        out.symlink_to(corpus)
    else:
        out.hardlink_to(corpus)
    result = millpond("embed", corpus, "--out", out)
    assert result.exit_code == 2
    assert f"{out}: this is the input. Name another file with --out." in result.stderr
    assert corpus.read_bytes() == before


def test_vectors_are_no_file_of_the_folder_that_is_read(millpond, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("water")
    result = millpond("embed", tmp_path / "notes", "--out", tmp_path / "notes" / "a.md")
    assert result.exit_code == 2
    assert "this is the input" in result.stderr
    assert (tmp_path / "notes" / "a.md").read_text() == "water"
    for _ in range(2):  # a second time as well
        out = tmp_path / "notes" / "vectors.parquet"
        assert millpond("embed", tmp_path / "notes", "--out", out).exit_code == 0
