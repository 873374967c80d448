"""``millpond export``: what is written is said, and what cannot be is refused in one line."""

import json

import pytest

from benchmarks.lab.layouts import encoders
from tests.embedder import stand_ins


def test_a_model_becomes_a_gguf_file(millpond, real_models, tmp_path):
    stand_ins.write_model_folder(tmp_path / "tiny")
    name = f"{tmp_path / 'tiny'}:eos+bidirectional,max_tokens=48"
    done = millpond("export", name, "--format", "gguf", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert f"Wrote {tmp_path / 'out'}; docs/export.md shows how" in done.stderr
    assert json.loads((tmp_path / "out" / "embedding.json").read_text())["max_tokens"] == 48


def test_an_encoder_is_left_to_its_library(millpond, real_models, tmp_path):
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is optional")
    encoders.write_layout("bge-small", tmp_path / "bge")
    done = millpond("export", tmp_path / "bge", "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "is computed by sentence-transformers, which exports it itself" in done.stderr


def test_a_full_folder_is_seen_before_the_model_loads(millpond, real_models, tmp_path):
    (tmp_path / "kept").write_text("")
    done = millpond("export", "no-such-model", "--out", tmp_path)
    assert done.exit_code == 2
    assert "the folder is not empty" in done.stderr
