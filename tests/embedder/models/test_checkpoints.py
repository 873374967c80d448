"""Checkpoints of arXiv 2409.02727's authors give their code's vectors under our names."""

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer

from benchmarks.lab.layouts.adapters import peft_model, write_adapter
from embedder import Embedder
from embedder.models.foreign.checkpoints import import_checkpoint
from embedder.models.manifest import read_manifest
from retrieval.errors import ModelError, UsageError

TEXTS = ["a", "the quick brown fox", "mills grind slowly, ponds fill slower"]
WIDTH, LATENTS, HEADS, HEAD_WIDTH, ROWS = 32, 6, 2, 12, 7


class PreNorm(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn, self.norm = fn, nn.LayerNorm(WIDTH)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        inner = HEADS * HEAD_WIDTH
        self.to_q = nn.Linear(WIDTH, inner, bias=False)
        self.to_kv = nn.Linear(WIDTH, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, WIDTH, bias=False)


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        inner = 4 * WIDTH
        self.net = nn.Sequential(
            nn.Linear(WIDTH, 2 * inner), nn.Identity(), nn.Linear(inner, WIDTH)
        )


class Resampler(nn.Module):
    """Their pooling, restated: latents ask, what is pooled answers; one head after another."""

    def __init__(self, layers):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(LATENTS, WIDTH))
        if layers:
            self.pos_emb = nn.Embedding(layers, WIDTH)
        attend = PreNorm(Attention())
        attend.norm_context = nn.LayerNorm(WIDTH)
        self.cross_attend_blocks = nn.ModuleList([attend, PreNorm(FeedForward())])

    def forward(self, hidden):
        if hasattr(self, "pos_emb"):
            hidden = hidden + self.pos_emb.weight[: len(hidden)]
        attend, forward = self.cross_attend_blocks
        asked = attend.fn.to_q(attend.norm_context(self.latents))
        keys, values = attend.fn.to_kv(attend.norm(hidden)).chunk(2, dim=-1)
        heads = []
        for head in range(HEADS):
            part = slice(head * HEAD_WIDTH, (head + 1) * HEAD_WIDTH)
            shares = (asked[:, part] @ keys[:, part].T / HEAD_WIDTH**0.5).softmax(dim=-1)
            heads.append(shares @ values[:, part])
        mixed = attend.fn.to_out(torch.cat(heads, dim=-1)) + self.latents
        value, gate = forward.fn.net[0](forward.norm(mixed)).chunk(2, dim=-1)
        mixed = mixed + forward.fn.net[2](value * F.gelu(gate))
        return F.normalize(mixed.mean(dim=0), dim=-1)


def their_vectors(base, folder, variant, pool):
    """Their forward, one text at a time, with EOS as their tokenizer puts it."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = peft_model(base, [folder], is_causal=variant in ("model1", "model2", "model3"))
    vectors = []
    for text in TEXTS:
        ids = torch.tensor([[*tokenizer(text)["input_ids"], 2]])
        with torch.inference_mode():
            out = model(ids, output_hidden_states=True)
            layers = [states[0] for states in out.hidden_states[1:]]
            if variant == "model1":
                vectors.append(F.normalize(layers[-1][-1], dim=-1))
            elif variant == "model2":
                vectors.append(pool(layers[-1][-1:]))
            elif variant == "model3":
                vectors.append(pool(torch.stack([states[-1] for states in layers])))
            elif variant == "model4":
                vectors.append(pool(layers[-1]))
            else:
                vectors.append(pool(torch.stack([states.mean(dim=0) for states in layers])))
    return torch.stack(vectors).numpy()


@pytest.fixture
def checkpoint(base_folder, tmp_path):
    """Write a checkpoint as their trainers do; return its folder, their vectors' function."""

    def write(variant="model3", *, beside=False, base="mistral"):
        folder = write_adapter(
            tmp_path / "theirs", base_folder[base], target_modules=["q_proj", "down_proj"]
        )
        torch.manual_seed(3)
        pool = Resampler(ROWS if variant in ("model3", "model5") else None)
        if variant != "model1":
            name = "theirsattn_pool.pt" if beside else "theirs/attn_pool.pt"
            torch.save(pool.state_dict(), tmp_path / name)
        return folder, pool

    return write


@pytest.mark.parametrize("variant", ["model1", "model2", "model3", "model4", "model5"])
@pytest.mark.parametrize("base", ["mistral", "qwen3"])
def test_vectors_are_those_of_their_code(checkpoint, base_folder, tmp_path, variant, base):
    folder, pool = checkpoint(variant, base=base)
    expected = their_vectors(base_folder[base], folder, variant, pool)
    import_checkpoint(folder, tmp_path / "ours", variant=variant, heads=HEADS)
    model = Embedder.load(str(tmp_path / "ours"), device="cpu")
    np.testing.assert_allclose(model.encode_documents(TEXTS), expected, atol=2e-6)
    record = read_manifest(tmp_path / "ours").record["imported"]
    assert (record["from"], record["variant"]) == ("theirs", variant)


def test_the_pooling_may_lie_beside_the_folder_where_their_trainer_puts_it(checkpoint, tmp_path):
    folder, _ = checkpoint(beside=True)
    import_checkpoint(folder, tmp_path / "ours", variant="model3", heads=HEADS)
    assert "theirsattn_pool.pt" in read_manifest(tmp_path / "ours").record["imported"]["sha256"]


def test_the_base_may_be_typed(checkpoint, base_folder, tmp_path):
    folder, pool = checkpoint()
    base = shutil.copytree(base_folder["mistral"], tmp_path / "moved")
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "/gone"
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    import_checkpoint(folder, tmp_path / "ours", variant="model3", base=str(base), heads=HEADS)
    found = Embedder.load(str(tmp_path / "ours"), device="cpu").encode_documents(TEXTS)
    np.testing.assert_allclose(found, their_vectors(base, folder, "model3", pool), atol=2e-6)


def _drop(tensors):
    del tensors["cross_attend_blocks.0.norm.bias"]


def _add(tensors):
    tensors["cross_attend_blocks.2.norm.bias"] = torch.zeros(2)


def _no_layers(tensors):
    del tensors["pos_emb.weight"]


def _few_layers(tensors):
    tensors["pos_emb.weight"] = tensors["pos_emb.weight"][:2]


def _narrow(tensors):
    tensors["latents"] = tensors["latents"][:, :16].contiguous()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop, "it lacks 'cross_attend_blocks.0.norm.bias'"),
        (_add, "it holds 'cross_attend_blocks.2.norm.bias'"),
        (_no_layers, r"it lacks 'pos_emb.weight' \(model3 and model5 have it\)"),
        (_few_layers, "has 2 rows, but the base has 4 layers"),
        (_narrow, "has shape"),
    ],
)
def test_tensors_that_do_not_fit_are_named(checkpoint, tmp_path, change, message):
    folder, _ = checkpoint()
    tensors = torch.load(folder / "attn_pool.pt", weights_only=True)
    change(tensors)
    (folder / "attn_pool.pt").unlink()
    save_file(tensors, folder / "attn_pool.safetensors")
    with pytest.raises(ModelError, match=message) as caught:
        import_checkpoint(folder, tmp_path / "ours", variant="model3", heads=HEADS)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ours").exists()


def test_what_is_no_such_checkpoint_is_one_clear_line(checkpoint, base_folder, tmp_path):
    folder, _ = checkpoint()

    def refused(kind, message, place=folder, **settings):
        with pytest.raises(kind, match=message):
            import_checkpoint(place, tmp_path / "ours", **{"variant": "model3", **settings})

    refused(UsageError, "24 wide, which 5 heads cannot share.*--heads", heads=5)
    refused(UsageError, "Unknown model of arXiv 2409.02727 'mean'", variant="mean")
    refused(ModelError, "it holds 'pos_emb.weight'", variant="model2", heads=HEADS)
    refused(UsageError, "there is no such folder", place=tmp_path / "none")
    refused(ModelError, "has no adapter_config.json", place=base_folder["llama"])
    (folder / "attn_pool.pt").rename(folder / "pool.pt")
    refused(ModelError, "no attn_pool.pt, the weights of the pooling")
    dora = write_adapter(tmp_path / "dora", base_folder["mistral"], use_dora=True)
    refused(UsageError, "use_dora True, which their trainers do not set", place=dora)


class Marker:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_code_in_attn_pool_is_not_run(checkpoint, tmp_path):
    folder, _ = checkpoint()
    torch.save({"latents": Marker(tmp_path / "ran")}, folder / "attn_pool.pt")
    with pytest.raises(ModelError, match="it holds more than tensors"):
        import_checkpoint(folder, tmp_path / "ours", variant="model3", heads=HEADS)
    assert not (tmp_path / "ran").exists()


def test_the_command_writes_a_model(checkpoint, tmp_path):
    from typer.testing import CliRunner

    from cli.app import app

    folder, _ = checkpoint("model5")
    command = ["import", str(folder), "--variant", "model5", "--heads", str(HEADS), "-o"]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "ours")])
    assert done.exit_code == 0, done.output
    assert "Wrote the model" in done.output
    assert load_file(tmp_path / "ours" / "pooling.safetensors")["latents"].shape == (LATENTS, WIDTH)
