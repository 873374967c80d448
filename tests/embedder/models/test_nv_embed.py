"""NV-Embed's folder is read without running its code, and gives its code's vectors."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from benchmarks.lab.layouts.adapters import nv_embed_recipe, write_nv_embed
from embedder import Embedder, load_encoder
from embedder.models.names import write_value
from retrieval.errors import ModelError

TEXTS = ["a", "the quick brown fox", "mills grind slowly, ponds fill slower"]
INSTRUCTION = "Instruct: Given a question, retrieve passages\nQuery: "


@pytest.fixture
def published(tmp_path):
    """Write a tiny model in NV-Embed-v2's layout, its code leaving a file behind if it is run."""
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    return write_nv_embed(tmp_path / "NV-Embed-v2", code=code)


@pytest.mark.parametrize("prompt", ["", INSTRUCTION])
def test_vectors_are_those_of_its_code_which_is_not_run(published, tmp_path, prompt):
    name = f"{published},query_prompt={write_value(prompt)}" if prompt else str(published)
    model, theirs = load_encoder(name, device="cpu"), nv_embed_recipe(published, prompt)
    for ours, expected in (
        (model.encode_queries, theirs.encode_query),
        (model.encode_documents, theirs.encode_document),
    ):
        np.testing.assert_allclose(ours(TEXTS), expected(TEXTS), atol=1e-5)
    assert not (tmp_path / "ran").exists()
    assert model.name == name


def test_its_weights_may_lie_in_shards(published):
    folder = published
    expected = Embedder.load(str(folder), device="cpu").encode_documents(TEXTS)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {"a": "embedding_model.", "b": "latent_attention_model."}
    where = {
        name: f"{file}.safetensors" for file, of in parts.items() for name in tensors if of in name
    }
    for file in set(where.values()):
        part = {name: t for name, t in tensors.items() if where[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = Embedder.load(str(folder), device="cpu").encode_documents(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_its_decoder_serves_with_another_pooling_too(published):
    said = []
    model = load_encoder(f"{published}:mean+bidirectional", device="cpu", notify=said.append)
    theirs = nv_embed_recipe(published, "")
    with torch.inference_mode():
        states = theirs.states([*theirs.tokenizer("a")["input_ids"], 2])
    expected = F.normalize(states.mean(dim=0), dim=-1)
    np.testing.assert_allclose(model.encode_documents(["a"])[0], expected, atol=1e-5)
    assert any("Overriding what" in line for line in said)


def test_a_missing_tensor_is_named(published):
    folder = published
    tensors = load_file(folder / "model.safetensors")
    del tensors["latent_attention_model.cross_attend_blocks.0.norm.bias"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="it lacks 'cross_attend_blocks.0.norm.bias'"):
        load_encoder(str(folder), device="cpu")


def test_every_other_architecture_with_code_stays_refused(published, tmp_path):
    folder = published
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["NVEmbedModel2"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="comes with Python code of its own"):
        load_encoder(str(folder), device="cpu")
    assert not (tmp_path / "ran").exists()
