"""GradCache gives the plain step's gradients, dropout included."""

import pytest
import torch

from embedder.pooling import POOLINGS
from embedder.training.loss import cached_backward, plain_backward
from embedder.training.processes import Processes
from tests.embedder.training.stepping import step_gradients

ALONE = Processes(torch.device("cpu"))
VARIANTS = [
    (pooling, attention)
    for pooling in ("mean", *(name for name in POOLINGS if POOLINGS[name].trainable))
    for attention in ("causal", "bidirectional")
]


@pytest.fixture
def gradients():
    """Return the loss under "loss", and every trained parameter's gradient by its name."""

    def compute(config, *, cached, chunks_at_least=3):
        found, chunks = step_gradients(config, ALONE, cached=cached)
        assert chunks >= chunks_at_least
        return found

    return compute


@pytest.mark.parametrize(("pooling", "attention"), VARIANTS)
def test_gradients_equal_the_plain_steps_with_dropout(
    variant_config, gradients, assert_same, pooling, attention
):
    variant = variant_config(
        pooling, attention, adapter__dropout=0.3, loss__matryoshka_dimensions=[8, 32]
    )
    plain = gradients(variant, cached=False)
    assert_same(plain, gradients(variant, cached=True), 1e-5)
    if POOLINGS[pooling].trainable:
        assert any(name.startswith("pooling.") for name in plain)
    assert any("lora_B" in name and gradient.any() for name, gradient in plain.items())


def test_dropout_was_on_and_other_chunks_draw_other_masks(config, gradients):
    dropped = gradients(config(adapter__dropout=0.5), cached=True)
    whole = gradients(config(adapter__dropout=0.0), cached=True)
    # Before training B is zero, so the loss is the same, but B's gradient passes through dropout.
    name = next(name for name in dropped if "lora_B" in name)
    assert not torch.allclose(dropped[name], whole[name], rtol=1e-2)


def test_without_dropout_the_chunks_make_no_difference(config, gradients, assert_same):
    small = config(adapter__dropout=0.0, forward_tokens=32)
    large = config(adapter__dropout=0.0, forward_tokens=4096)
    first = gradients(small, cached=True)
    assert_same(first, gradients(large, cached=False, chunks_at_least=1), 1e-5)


def test_full_training_has_gradients_everywhere(config, gradients, assert_same):
    full = config(adapter={"kind": "full"})
    plain = gradients(full, cached=False)
    assert_same(plain, gradients(full, cached=True), 1e-5)
    assert any("embed_tokens" in name for name in plain)


@pytest.mark.parametrize("pooling", ["mean", "multi_layer"])
def test_gradient_checkpointing_changes_no_gradient(config, gradients, pooling, assert_same):
    model = {"model__pooling": pooling, "adapter__dropout": 0.3}
    kept = gradients(config(**model), cached=False)
    again = gradients(config(**model, gradient_checkpointing=True), cached=False)
    assert_same(kept, again, 1e-5)


def test_a_loss_that_is_not_finite_leaves_no_gradient():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    for backward in (plain_backward, lambda *a: cached_backward(*a, device=ALONE.device)):
        value = backward(
            lambda chunk: chunk @ weight, [torch.ones(1, 2)], lambda rows: rows.sum() / 0.0
        )
        assert not torch.isfinite(value)
        assert weight.grad is None
