"""The note that a step may not fit into memory."""

from types import SimpleNamespace

import pytest
import torch

from embedder import Embedder, VariantSpec
from embedder.models.lora import LoraOptions, add_adapter
from embedder.training import setup, train
from embedder.training.setup import graph_bytes


@pytest.fixture
def free(monkeypatch):
    """Let the machine have so many bytes of memory left."""

    def leave(count):
        left = SimpleNamespace(available=count)
        monkeypatch.setattr(setup.psutil, "virtual_memory", lambda: left)

    return leave


def notes_of(config, out, **options):
    said = []
    train(config, out, device="cpu", notify=said.append, **options)
    return [line for line in said if line.startswith("Warning: steps of up to")]


def test_a_batch_that_does_not_fit_is_told_before_the_first_step(config, tmp_path, free):
    free(1_000_000)
    seen = []
    said = []
    train(
        config(batch_pairs=8, steps=1),
        tmp_path / "out",
        device="cpu",
        notify=lambda line: said.append(line) if not seen else None,
        progress=seen.append,
    )
    (note,) = (line for line in said if "gradient_cache = true" in line)
    assert note.startswith("Warning: steps of up to ")
    fitting = int(note.rpartition("batch_pairs = ")[2].rstrip("."))
    assert 2 <= fitting < 8
    assert not notes_of(config(batch_pairs=fitting, steps=1), tmp_path / "fitting")


def test_nothing_is_said_where_memory_does_not_grow_with_the_batch_or_is_enough(
    config, tmp_path, free
):
    free(10**12)
    assert not notes_of(config(steps=1), tmp_path / "enough")
    free(1000)
    assert not notes_of(config(steps=1, gradient_cache=True), tmp_path / "cached")
    assert not notes_of(config(steps=1, gradient_checkpointing=True), tmp_path / "checkpointed")
    assert notes_of(config(steps=1), tmp_path / "little")


def test_the_tokens_told_are_those_of_the_largest_step(config, tmp_path, free):
    free(1000)
    tokens = []

    def count(report):
        tokens.append(round(4 * report.tokens_per_second / report.pairs_per_second))

    (note,) = notes_of(config(batch_pairs=4, steps=3), tmp_path / "out", progress=count)
    assert int(note.split()[5].replace(",", "")) == max(tokens)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
def test_the_estimate_is_near_what_autograd_holds(base_folder, family):
    embedder = Embedder.from_spec(
        VariantSpec(base=str(base_folder[family]), pooling="mean", attention="causal"),
        device="cpu",
    )
    embedder.backbone.requires_grad_(False)
    add_adapter(embedder.backbone, LoraOptions(rank=2, alpha=4), seed=0)
    weights = {weight.untyped_storage().data_ptr() for weight in embedder.parameters()}
    held = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids = torch.randint(5, 50, (4, 32))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        rows = embedder.train()(ids, torch.ones_like(ids))
        assert rows.requires_grad
    measured = sum(held.values()) / ids.numel()
    estimate = graph_bytes(embedder)
    assert estimate is not None
    assert 0.5 < estimate / measured < 2, (estimate, measured)
