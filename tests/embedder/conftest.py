"""Tiny random decoders, built here, so that no test needs a download."""

from itertools import product

import pytest
import torch

from embedder import Embedder, VariantSpec
from embedder.engine.fused import UnavailableError, load_functions
from embedder.models.lora import LoraOptions, add_adapter
from embedder.pooling import POOLINGS
from embedder.variants import ATTENTIONS
from tests.embedder.tiny_decoders import ARCHITECTURES, write_base

SMALL_LORA = LoraOptions(rank=2, alpha=4)
FOLLOWING = ("llama", "qwen3", "mistral", "gemma3")
"""The architectures on which every variant must work."""


def every_variant(*architectures):
    """All poolings, attentions and architectures, if any, together; most of them are slow.

    ``make test`` takes a Latin square: of the last axis one value, in turn, for each combination of
    the others.
    """
    axes = [axis for axis in (list(POOLINGS), list(ATTENTIONS), architectures) if axis]
    found = []
    for places in product(*(range(len(axis)) for axis in axes)):
        values = [axis[place] for axis, place in zip(axes, places, strict=True)]
        is_slow = sum(places) % len(axes[-1]) > 0
        found.append(pytest.param(*values, marks=pytest.mark.slow if is_slow else ()))
    return found


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory):
    """One saved tiny base per architecture; gemma3's tokenizer adds BOS, llama's pad is EOS."""
    return {name: write_base(tmp_path_factory.mktemp(name), name) for name in ARCHITECTURES}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep tests out of the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def functions():
    """Skip where fused.c was not compiled when millpond was installed."""
    skip_without_functions()


@pytest.fixture(params=["AVX2", "AVX512"])
def each_library(request, monkeypatch):
    """The library for CPUs that can do no more than this; skip where this one can do less."""
    skip_without_functions()
    if request.param == "AVX512" != torch.backends.cpu.get_cpu_capability():
        pytest.skip("this CPU has no AVX-512")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: request.param)


def skip_without_functions():
    try:
        load_functions()
    except UnavailableError as error:
        pytest.skip(f"layers are not fused here: {error}")


@pytest.fixture
def adapt():
    """Put LoRA into an embedder that changes its vectors, in evaluation mode."""

    def change(embedder):
        add_adapter(embedder.backbone, LoraOptions(rank=2, alpha=4))
        for name, weights in embedder.backbone.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weights, std=0.3)
        embedder.eval()

    return change


@pytest.fixture
def trained(base_folder):
    """Return a model on a tiny base as if trained: LoRA and pooling weights are not the first."""

    def build(
        pooling="mean",
        attention="causal",
        *,
        base=base_folder["llama"],
        seed=0,
        lora=SMALL_LORA,
        **settings,
    ):
        spec = VariantSpec(
            base=str(base),
            pooling=pooling,
            attention=attention,
            **{"max_tokens": 96, **settings},
        )
        embedder = Embedder.from_spec(spec, device="cpu")
        embedder.backbone.requires_grad_(False)
        if lora is not None:
            add_adapter(embedder.backbone, lora)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in embedder.parameters():
                if parameter.requires_grad:
                    parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        return embedder

    return build
