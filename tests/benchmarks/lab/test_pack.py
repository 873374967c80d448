"""A packed model has one entry a source in its record, and the same weights."""

import hashlib
import json

import pytest

from benchmarks.lab.builtin.pack import join_topics, main
from embedder.models.names import join_sha256
from retrieval.errors import SourceNotFoundError


def row(path, pairs=10, **more):
    return {"path": path, "sha256": {path: f"hash of {path}"}, "pairs": pairs, **more}


RECORD = {
    "steps": 7,
    "data": [
        row("/home/me/a-000.jsonl", 3, negatives=1, weight=0.5),
        row("/home/me/a-001.jsonl", 4, negatives=2, weight=0.5),
        row("b.jsonl", 5, negatives=0, weight=2.0),
    ],
    "config": {
        "data": [{"path": "/home/me/a-000.jsonl"}, {"path": "/home/me/a-001.jsonl"}],
        "evaluate": {"sts": "/home/me/dev.tsv"},
    },
    "start": {
        "trained_sha256": "ab",
        "record": {"data": [row("c-000.jsonl", negatives=0, weight=1)]},
    },
}


def test_topics_of_a_source_are_one_entry_in_every_part_of_the_record():
    joined = join_topics(RECORD)
    first, second = joined["data"]
    hashes = "hash of /home/me/a-000.jsonlhash of /home/me/a-001.jsonl"
    assert first == {
        "path": "a.jsonl, 2 topics",
        "sha256": {"sha256 of the topics' sha256": hashlib.sha256(hashes.encode()).hexdigest()},
        "pairs": 7,
        "negatives": 3,
        "weight": 0.5,
    }
    assert second == RECORD["data"][2]
    assert [entry["path"] for entry in joined["config"]["data"]] == ["a.jsonl, 2 topics"]
    assert joined["start"]["record"]["data"][0]["path"] == "c.jsonl, 1 topics"
    assert joined["steps"] == 7


def write_model(folder):
    (folder / "adapter").mkdir(parents=True)
    (folder / "pooling.safetensors").write_bytes(b"weights")
    (folder / "metrics.jsonl").write_text("{}")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    spec = {"base": "smollm2-135m", "pooling": "mean", "attention": "causal"}
    base = {"name": "smollm2-135m", "revision": None, "identity": "x", "width": 576}
    files = {"pooling.safetensors": sha256}
    manifest = {"format_version": 1, "spec": spec, "base": base, "files": files, "record": RECORD}
    (folder / "millpond.json").write_text(json.dumps(manifest))
    return files


def test_a_packed_model_keeps_its_weights_and_loses_logs_and_paths(tmp_path):
    files = write_model(tmp_path / "model")
    main([str(tmp_path / "model"), "--out", str(tmp_path / "packed")])
    names = {path.name for path in (tmp_path / "packed").rglob("*") if path.is_file()}
    assert names == {"millpond.json", "README.md", "pooling.safetensors"}
    text = (tmp_path / "packed" / "millpond.json").read_text()
    assert json.loads(text)["files"] == files
    assert join_sha256(files) == join_sha256(json.loads(text)["files"])
    assert "/home/me" not in text
    assert json.loads(text)["record"]["config"]["evaluate"]["sts"] == "dev.tsv"
    assert "docs/builtin-model.md" in (tmp_path / "packed" / "README.md").read_text()


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(SourceNotFoundError):
        main([str(tmp_path), "--out", str(tmp_path / "packed")])
    assert not (tmp_path / "packed").exists()
