import csv
import errno
import io
import json
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.output import confirm_replacing
from retrieval.errors import UsageError
from tests.cli.conftest import WordEncoder


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
    assert "1 bad record was skipped" in result.stderr
    assert pq.read_table(out).column("id").to_pylist() == ["1"]


def read_vectors(out):
    """Return the ids and the matrix of a file in any of the formats."""
    if out.suffix == ".npy":
        return out.with_suffix(".ids.txt").read_text().splitlines(), np.load(out)
    if out.suffix == ".csv":
        header, *rows = csv.reader(io.StringIO(out.read_text(encoding="utf-8")))
        assert header == ["id", *(f"v{place}" for place in range(32))]
        return [row[0] for row in rows], np.array([row[1:] for row in rows], dtype=np.float32)
    if out.suffix == ".jsonl":
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
        vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
        return [row["id"] for row in rows], vectors
    table = pq.read_table(out)
    vectors = np.stack(table.column("embedding").to_numpy(zero_copy_only=False))
    return table.column("id").to_pylist(), vectors


@pytest.mark.parametrize("ending", [".parquet", ".npy", ".csv", ".jsonl", ".NPY"])
def test_the_ending_says_the_format(millpond, write_jsonl, tmp_path, ending):
    texts = {f'ü "{number}", x': f"water mill {number}" for number in range(600)}
    corpus = write_jsonl("c.jsonl", *({"_id": key, "text": text} for key, text in texts.items()))
    out = tmp_path / f"v{ending}"
    result = millpond("embed", corpus, "--out", out)
    assert result.exit_code == 0, result.stderr
    if ending == ".NPY":
        out = out.rename(tmp_path / "v.npy")
    ids, vectors = read_vectors(out)
    assert ids == list(texts)
    expected = WordEncoder("fake").encode_documents(list(texts.values()))
    assert (vectors.dtype, vectors.tolist()) == (np.float32, expected.tolist())


@pytest.mark.parametrize("name", ["v", "v.txt", "v.npz", "v.csv.gz", "v.parq"])
def test_another_ending_is_refused_before_a_model_is_loaded(
    millpond, corpus, tmp_path, name, loaded
):
    result = millpond("embed", corpus, "--out", tmp_path / name)
    assert result.exit_code == 2
    assert "; expected .parquet, .npy, .csv or .jsonl." in result.stderr
    assert loaded == []


@pytest.mark.parametrize(("name", "held"), [("v.csv", "v.csv"), ("v.npy", "v.ids.txt")])
def test_what_is_there_is_replaced_only_when_told_to(millpond, corpus, tmp_path, name, held):
    (tmp_path / held).write_text("mine")
    result = millpond("embed", corpus, "--out", tmp_path / name)
    assert result.exit_code == 2
    assert f"{tmp_path / held}: the file exists. Add --overwrite" in result.stderr
    assert (tmp_path / held).read_text() == "mine"
    assert millpond("embed", corpus, "--out", tmp_path / name, "--overwrite").exit_code == 0
    assert read_vectors(tmp_path / name)[0] == ["a", "b", "c"]


@pytest.mark.parametrize("answer", ["y", "n"])
def test_on_a_terminal_one_is_asked(monkeypatch, tmp_path, answer):
    (tmp_path / "v.csv").write_text("mine")
    monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
    monkeypatch.setattr("sys.stderr", Terminal())
    if answer == "y":
        confirm_replacing(tmp_path / "v.csv", overwrite=False)
    else:
        with pytest.raises(UsageError, match="it was left as it is"):
            confirm_replacing(tmp_path / "v.csv", overwrite=False)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


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
        made = millpond("embed", tmp_path / "notes", "--out", out, "--overwrite")
        assert made.exit_code == 0


def test_an_embedding_that_was_ended_goes_on_from_its_parts(millpond, tmp_path, monkeypatch):
    path, out = tmp_path / "lines.txt", tmp_path / "vectors.parquet"
    path.write_text("\n".join(f"text {n}" for n in range(1100)))  # three parts of 512 at most
    full = OSError(errno.ENOSPC, "No space left on device")
    parts = []

    def write(part, data):
        if len(parts) == 2:
            raise full
        parts.append(part)
        part.write_bytes(data)

    with monkeypatch.context() as disk:
        disk.setattr("retrieval.disk.replace_file", write)
        result = millpond("embed", path, "--out", out, "--resume")
    assert result.exit_code != 0
    assert "No space left on device" in result.stderr
    assert "run the command again with --resume" in result.stderr
    kept = sorted((tmp_path / "vectors.parquet.parts").iterdir())
    assert kept == sorted(parts)
    kept[0].write_bytes(b"cut short")  # is embedded again
    assert millpond("embed", path, "--out", out, "--resume").exit_code == 0
    assert not (tmp_path / "vectors.parquet.parts").exists()
    whole = tmp_path / "whole.parquet"
    assert millpond("embed", path, "--out", whole).exit_code == 0
    assert pq.read_table(out).equals(pq.read_table(whole))


def test_parts_of_other_texts_are_not_taken_for_these(millpond, tmp_path, monkeypatch):
    path, out = tmp_path / "lines.txt", tmp_path / "vectors.npy"
    monkeypatch.setattr(
        "shutil.rmtree", lambda *_, **__: None
    )  # as after a kill at the last moment
    for text in ("one", "two"):
        path.write_text(text)
        assert millpond("embed", path, "--out", out, "--resume", "--overwrite").exit_code == 0
    assert len(list((tmp_path / "vectors.npy.parts").iterdir())) == 2
