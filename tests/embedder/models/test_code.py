"""Code that comes with a model is never run, whoever answers what transformers would ask."""

import json
import os
import shutil
import sys

import pytest

from cli.app import app
from embedder import Embedder
from retrieval.errors import ModelError
from tests.embedder import stand_ins

CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast
Path({marker!r}).write_text("run")
class Config(LlamaConfig): model_type = "own"
class Model(LlamaModel): config_class = Config
class Tokenizer(PreTrainedTokenizerFast): pass
"""
NAMED = {
    "config.json": {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Config", "AutoModel": "own.Model"},
    },
    "tokenizer_config.json": {
        "tokenizer_class": "Tokenizer",
        "auto_map": {"AutoTokenizer": ["own.Tokenizer", "own.Tokenizer"]},
    },
}
"""A model and a tokenizer that transformers has no class for, so that it asks."""


@pytest.fixture
def marker(tmp_path):
    """What the model's code would write."""
    return tmp_path / "marker"


@pytest.fixture(scope="module")
def plain_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    stand_ins.write_model_folder(folder)
    return folder


@pytest.fixture(params=NAMED)
def hostile(request, plain_folder, tmp_path, marker):
    """Return a model folder, and which of its files names code."""
    folder = tmp_path / "model"
    shutil.copytree(plain_folder, folder)
    add_code(folder, request.param, marker)
    return folder, request.param


def add_code(folder, name, marker):
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    path = folder / name
    data = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**data, **NAMED[name]}))


def test_a_folder_with_code_is_refused_by_the_file_that_names_it(hostile, marker, monkeypatch):
    folder, name = hostile
    monkeypatch.setattr("builtins.input", lambda *asked: "y")
    with pytest.raises(ModelError, match=f"code of its own, which {name} names as auto_map"):
        Embedder.load(f"{folder}:mean+causal", device="cpu")
    assert not marker.exists()


@pytest.mark.parametrize("name", NAMED)
def test_code_beside_a_gguf_is_refused(tmp_path, marker, monkeypatch, name):
    stand_ins.write_gguf(tmp_path / "tiny.gguf")
    add_code(tmp_path, name, marker)
    monkeypatch.setattr("builtins.input", lambda *asked: "y")
    with pytest.raises(ModelError, match=f"code of its own, which {name} names as auto_map"):
        Embedder.load(f"{tmp_path / 'tiny.gguf'}:mean+causal", device="cpu")
    assert not marker.exists()


@pytest.mark.parametrize("how", ["pipe", "terminal", "corpus"])
def test_a_yes_on_stdin_changes_nothing(hostile, marker, tmp_path, monkeypatch, capsys, how):
    """``index -`` reads its corpus from there, so the first line would be the answer."""
    folder, name = hostile
    model = ["--model", f"{folder}:mean+causal"]
    (tmp_path / "texts.txt").write_text("the mill\n")
    embed = ["embed", str(tmp_path / "texts.txt"), "--out", str(tmp_path / "v.parquet"), *model]
    index = ["index", "-", "--out", str(tmp_path / "index"), *model]
    ours, theirs = os.openpty() if how == "terminal" else os.pipe()[::-1]
    os.write(ours, b"y\ny\n")
    with os.fdopen(ours, "wb"), os.fdopen(theirs) as typed:
        monkeypatch.setattr(sys, "stdin", typed)
        with pytest.raises(SystemExit) as ended:
            app(index if how == "corpus" else embed, prog_name="millpond")
    assert ended.value.code not in (0, None)
    assert f"{name} names as auto_map" in " ".join(capsys.readouterr().err.split())
    assert not marker.exists()
