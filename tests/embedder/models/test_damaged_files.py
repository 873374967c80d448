"""The JSON files of a saved model in every state of damage: loaded, or refused in one line."""

import json
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedder import Embedder
from embedder.models.manifest import read_manifest
from embedder.models.saving import save_model
from retrieval.errors import MillpondError, ModelError
from tests.stored_files import bad_files, damages, survive


@pytest.fixture
def folder(trained, tmp_path):
    path = tmp_path / "model"
    save_model(trained("mean", "causal"), path, record={"seed": 1})
    return path


def load(folder):
    return Embedder.load_folder(folder, device="cpu").encode_queries(["a mill"])


def test_the_manifest_is_read_or_refused(folder):
    path = folder / "millpond.json"
    assert survive(path, lambda: read_manifest(folder), MillpondError) == []


@pytest.mark.parametrize("name", ["millpond.json", "adapter/adapter_config.json"])
def test_a_saved_model_is_loaded_or_refused(folder, name):
    assert _sample(folder / name, lambda: load(folder), 25) == []


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "config.json"])
def test_a_base_is_loaded_or_refused(base_folder, tmp_path, name):
    base = tmp_path / "base"
    shutil.copytree(base_folder["llama"], base)

    def read():
        model = Embedder.load(f"{base}:mean+causal", device="cpu")
        return model.encode_queries(["a mill"])

    assert _sample(base / name, read, 25) == []


def change_json(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def add_eos(base):
    """Let texts end with a token for which nobody made the embeddings longer."""
    token = {"id": 259, "content": "<new>", "special": True}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    change_json(base / "tokenizer.json", lambda data: data["added_tokens"].append(token | flags))
    change_json(base / "tokenizer_config.json", lambda data: data.update(eos_token="<new>"))


def widen(base):
    change_json(base / "config.json", lambda data: data.update(intermediate_size=64))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (add_eos, r"puts '<new>' \(token 259\) around every text, and its weights have 259"),
        (widen, "its weights have other shapes than its config.json says"),
        (lambda base: (base / "tokenizer.json").unlink(), "it has no fast tokenizer"),
    ],
)
def test_files_of_a_base_that_do_not_fit_each_other_are_told(base_folder, tmp_path, spoil, message):
    base = shutil.copytree(base_folder["llama"], tmp_path / "base")
    spoil(base)
    with pytest.raises(ModelError, match=message):
        Embedder.load(f"{base}:mean+causal", device="cpu")


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3"])
def test_weights_that_are_missing_are_not_drawn_at_random(base_folder, tmp_path, architecture):
    base = shutil.copytree(base_folder[architecture], tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    lost = max(weights)
    del weights[lost]
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=f"lacks weights .*such as {lost}"):
        Embedder.load(f"{base}:mean+causal", device="cpu")


def test_pickled_weights_are_not_read(base_folder, tmp_path):
    base = shutil.copytree(base_folder["llama"], tmp_path / "base")
    torch.save(load_file(base / "model.safetensors"), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no safetensors weights; those alone are read"):
        Embedder.load(f"{base}:mean+causal", device="cpu")


def _sample(path, read, count):
    """Read a file in all its damages and in some of the states where a value is wrong."""
    text = path.read_text()
    every = list(bad_files(text))
    whole = len(list(damages(text)))
    chosen = every[:whole] + random.Random(0).sample(every[whole:], min(count, len(every) - whole))
    found = []
    for what, data in chosen:
        path.write_bytes(data)
        try:
            read()
        except MillpondError:
            pass
        except Exception as error:
            found.append(f"{what}: {type(error).__name__}: {error}"[:200])
    path.write_text(text)
    read()
    return found
