"""A packed model has the same weights, and no path of the machine that made it."""

import hashlib
import json

import pytest

from benchmarks.lab.builtin.pack import main
from embedder.models.names import join_sha256
from retrieval.errors import SourceNotFoundError

RECORD = {
    "steps": 7,
    "config": {"data": [{"path": "/home/me/a.jsonl"}], "evaluate": {"sts": "/home/me/dev.tsv"}},
}


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
