"""The probe that attention is what the spec asks for."""

import pytest
import torch

from embedder import Embedder, VariantSpec
from embedder.engine.probe import probe_attention
from embedder.variants import ATTENTIONS
from retrieval.errors import AttentionProbeError, UnknownNameError


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("name", ["llama", "qwen3", "mistral", "gemma3", "gpt2"])
def test_architectures_that_follow_the_switch_load_both_ways(base_folder, name, attention):
    spec = VariantSpec(base=str(base_folder[name]), pooling="mean", attention=attention)
    assert Embedder.from_spec(spec).backbone.attention.name == attention


def test_an_architecture_that_ignores_the_switch_is_refused(base_folder):
    base = str(base_folder["gpt_neo"])
    Embedder.from_spec(VariantSpec(base=base, pooling="mean", attention="causal"))
    with pytest.raises(AttentionProbeError, match=r"ignores config\.is_causal=False.*\+causal"):
        Embedder.from_spec(VariantSpec(base=base, pooling="mean", attention="bidirectional"))


def running_mean(ids, mask):
    """A causal stand-in: each position is the mean of the ids up to it."""
    total = ids.cumsum(dim=1) / torch.arange(1, ids.shape[1] + 1)
    return total.unsqueeze(-1).float()


def total_mean(ids, mask):
    """A bidirectional stand-in: each position is its id plus the mean of all."""
    return (ids + (ids * mask).float().mean(dim=1, keepdim=True)).unsqueeze(-1).float()


def probe(states, attention):
    probe_attention(
        states,
        ATTENTIONS[attention],
        vocabulary=50,
        device=torch.device("cpu"),
        described="stand-in",
    )


def test_the_probe_tells_causal_from_bidirectional():
    probe(running_mean, "causal")
    probe(total_mean, "bidirectional")
    with pytest.raises(AttentionProbeError, match="asked for bidirectional"):
        probe(running_mean, "bidirectional")
    with pytest.raises(AttentionProbeError, match="asked for causal"):
        probe(total_mean, "causal")


def test_the_probe_sees_a_kernel_that_is_wrong_only_without_padding():
    def forgetful(ids, mask):
        return (running_mean if bool(mask.all()) else total_mean)(ids, mask)

    with pytest.raises(AttentionProbeError):
        probe(forgetful, "bidirectional")


def test_an_unknown_attention_names_the_known_ones():
    with pytest.raises(UnknownNameError, match="Did you mean 'causal'.*causal, bidirectional"):
        ATTENTIONS["casual"]
