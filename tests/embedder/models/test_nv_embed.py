"""NV-Embed's folder is read without running its code, and gives its code's vectors."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer, MistralConfig

from embedder import Embedder, load_encoder
from embedder.models.names import write_value
from retrieval.errors import ModelError
from tests.embedder.models.test_checkpoints import HEAD_WIDTH, HEADS, LATENTS, WIDTH, Resampler
from tests.embedder.tiny_decoders import byte_tokenizer

TEXTS = ["a", "the quick brown fox", "mills grind slowly, ponds fill slower"]
INSTRUCTION = "Instruct: Given a question, retrieve passages\nQuery: "
SIZES = {
    "vocab_size": 259,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


class LatentAttention(Resampler):
    """Their pooling, restated: what is pooled asks, latents answer, and it is averaged."""

    def forward(self, hidden, pooled):
        attend, forward = self.cross_attend_blocks
        asked = attend.fn.to_q(attend.norm(hidden))
        keys, values = attend.fn.to_kv(attend.norm_context(self.latents)).chunk(2, dim=-1)
        heads = []
        for head in range(HEADS):
            part = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
            shares = (asked[:, part] @ keys[:, part].T / HEAD_WIDTH**0.5).softmax(dim=-1)
            heads.append(shares @ values[:, part])
        mixed = attend.fn.to_out(torch.cat(heads, dim=-1)) + hidden
        value, gate = forward.fn.net[0](forward.norm(mixed)).chunk(2, dim=-1)
        mixed = mixed + forward.fn.net[2](value * F.gelu(gate))
        return F.normalize(mixed[pooled].mean(dim=0), dim=-1)


@pytest.fixture
def published(tmp_path):
    """Write a tiny model in NV-Embed-v2's layout; return its folder, decoder and pooling."""
    torch.manual_seed(0)
    decoder = AutoModel.from_config(MistralConfig(**SIZES, sliding_window=None))
    with torch.no_grad():
        for parameter in decoder.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    pooling = LatentAttention(None)
    folder = tmp_path / "NV-Embed-v2"
    byte_tokenizer(adds_bos=True).save_pretrained(folder)
    tensors = {f"embedding_model.{name}": t for name, t in decoder.state_dict().items()}
    tensors |= {f"latent_attention_model.{name}": t for name, t in pooling.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["NVEmbedModel"],
        "auto_map": {"AutoModel": "modeling_nvembed.NVEmbedModel"},
        "model_type": "nvembed",
        "is_mask_instruction": True,
        "text_config": {**SIZES, "model_type": "bidir_mistral", "sliding_window": 4},
        "latent_attention_config": {
            "model_type": "latent_attention",
            "num_latents_value": LATENTS,
            "num_cross_heads": HEADS,
            "cross_dim_head": HEAD_WIDTH,
            "hidden_dim": WIDTH,
            "latent_dim": WIDTH,
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    (folder / "modeling_nvembed.py").write_text(code)
    decoder.config.is_causal = False
    return folder, decoder.eval(), pooling


def their_vectors(published, prompt):
    """Instruction, text and </s> in one string; BOS and the instruction are not averaged."""
    folder, decoder, pooling = published
    tokenizer = AutoTokenizer.from_pretrained(folder, config=decoder.config)
    skipped = len(tokenizer(prompt)["input_ids"]) if prompt else 0
    vectors = []
    for text in TEXTS:
        ids = [*tokenizer(prompt + text)["input_ids"], 2]
        pooled = torch.arange(len(ids)) >= skipped
        with torch.inference_mode():
            states = decoder(torch.tensor([ids])).last_hidden_state[0]
            vectors.append(pooling(states, pooled))
    return torch.stack(vectors).numpy()


@pytest.mark.parametrize("prompt", ["", INSTRUCTION])
def test_vectors_are_those_of_its_code_which_is_not_run(published, tmp_path, prompt):
    folder, *_ = published
    name = f"{folder},query_prompt={write_value(prompt)}" if prompt else str(folder)
    model = load_encoder(name, device="cpu")
    np.testing.assert_allclose(
        model.encode_queries(TEXTS), their_vectors(published, prompt), atol=1e-5
    )
    np.testing.assert_allclose(
        model.encode_documents(TEXTS), their_vectors(published, ""), atol=1e-5
    )
    assert not (tmp_path / "ran").exists()
    assert model.name == name


def test_its_weights_may_lie_in_shards(published):
    folder, *_ = published
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
    folder, decoder, _ = published
    said = []
    model = load_encoder(f"{folder}:mean+bidirectional", device="cpu", notify=said.append)
    tokenizer = AutoTokenizer.from_pretrained(folder, config=decoder.config)
    ids = torch.tensor([[*tokenizer("a")["input_ids"], 2]])
    with torch.inference_mode():
        expected = F.normalize(decoder(ids).last_hidden_state[0].mean(dim=0), dim=-1)
    np.testing.assert_allclose(model.encode_documents(["a"])[0], expected, atol=1e-5)
    assert any("Overriding what" in line for line in said)


def test_a_missing_tensor_is_named(published):
    folder, *_ = published
    tensors = load_file(folder / "model.safetensors")
    del tensors["latent_attention_model.cross_attend_blocks.0.norm.bias"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="it lacks 'cross_attend_blocks.0.norm.bias'"):
        load_encoder(str(folder), device="cpu")


def test_every_other_architecture_with_code_stays_refused(published, tmp_path):
    folder, *_ = published
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = ["NVEmbedModel2"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="comes with Python code of its own"):
        load_encoder(str(folder), device="cpu")
    assert not (tmp_path / "ran").exists()
