"""Attention kernels for a GPU, with stand-ins on the CPU that take the real ones' arguments."""

import sys

import numpy as np
import pytest
import torch

from embedder import Embedder, VariantSpec
from embedder.engine import kernels
from embedder.engine.kernels import BUCKETS, checked, flash_kernel, varlen_kernel
from embedder.engine.packing import GROUPS, Kernel, PackedBatch, PackingError, Pattern
from embedder.engine.probe import Packing, choose_packing, find_kernels
from tests.embedder.conftest import every_variant

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
VARIANTS = every_variant()
TEXTS = ["a", "mill", "the quick brown fox jumps over the lazy dog", "", "pond", "mills " * 8]


def attend(query, key, value, bounds, scale, reach):
    """Attention over texts of varying length as flash attention defines it, (total, heads, d)."""
    assert bounds.dtype == torch.int32
    found = torch.full_like(query, float("nan"))
    times = query.shape[1] // key.shape[1]
    for start, stop in zip(bounds.tolist(), bounds.tolist()[1:], strict=False):
        for head in range(query.shape[1]):
            own = slice(start, stop)
            scores = scale * query[own, head] @ key[own, head // times].T
            for row in range(stop - start):
                for column in range(stop - start):
                    left, right = row - column, column - row
                    hidden = left > reach[0] >= 0 or right > reach[1] >= 0
                    scores[row, column] = -torch.inf if hidden else scores[row, column]
            found[own, head] = scores.softmax(dim=-1) @ value[own, head // times]
    return found


def longest(bounds):
    return int(bounds.diff().max())


def torch_2_10(q, k, v, bounds, same, most, other,
               is_causal = False, return_aux = None):  # fmt: skip
    assert same is bounds
    assert most == other == longest(bounds)
    return attend(q, k, v, bounds, q.shape[-1] ** -0.5, (-1, 0 if is_causal else -1))


def torch_2_11(q, k, v, bounds, same, most, other,
               *, scale = None, window_size = (-1, -1)
               ):  # fmt: skip
    assert same is bounds
    assert most == other == longest(bounds)
    return attend(q, k, v, bounds, scale or q.shape[-1] ** -0.5, window_size)


def torch_2_13(q, k, v, bounds, same, most, other,
               *, scale = None, window_size = (-1, -1),
               enable_gqa = False):  # fmt: skip
    if not enable_gqa and q.shape[1] != k.shape[1]:
        raise ValueError("as many heads are expected")
    return torch_2_11(q, k, v, bounds, same, most, other, scale=scale, window_size=window_size)


def flash_2(q, k, v, bounds, same, most, other,
            dropout_p = 0.0, softmax_scale = None, causal = False,
            window_size = (-1, -1)):  # fmt: skip
    assert most == other == longest(bounds)
    left, right = window_size
    scale = softmax_scale or q.shape[-1] ** -0.5
    return attend(q, k, v, bounds, scale, (left, 0 if causal else right))


STAND_INS = {
    "torch 2.10": varlen_kernel(torch_2_10),
    "torch 2.11": varlen_kernel(torch_2_11),
    "torch 2.13": varlen_kernel(torch_2_13),
    "heads repeated": varlen_kernel(torch_2_13, repeats_heads=True),
    "flash_attn": flash_kernel(flash_2),
    "buckets": BUCKETS,
}


def load(folder, pooling, attention):
    spec = VariantSpec(base=str(folder), pooling=pooling, attention=attention, max_tokens=64)
    return Embedder.from_spec(spec, device="cpu")


def choose(backbone, *choice):
    return choose_packing(
        backbone.model,
        backbone.token_states,
        backbone.attention.is_causal,
        backbone.blocks,
        choice,
    )


def pack_with(embedder, kernel):
    """Let the embedder pack with this kernel, as far as the probe allows."""
    backbone = embedder.backbone
    packing = choose(backbone, kernel)
    backbone.packing, backbone.longest_packed = packing, packing.longest
    return packing


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral", "gemma3"])
@pytest.mark.parametrize("name", STAND_INS)
def test_every_kernel_gives_the_padded_vectors(base_folder, name, architecture, attention):
    """All have 4 heads over 2 of keys; the windows of mistral and gemma3 are 8 tokens."""
    embedder = load(base_folder[architecture], "mean", attention)
    kernel = STAND_INS[name]
    packing = pack_with(embedder, kernel)
    has_window = architecture in ("mistral", "gemma3")
    heeds_window = kernel.takes_windows and attention == "causal"
    assert packing == Packing(8 if has_window and not heeds_window else sys.maxsize, kernel)
    found = embedder.encode_documents(TEXTS)
    embedder.packs = False
    np.testing.assert_allclose(found, embedder.encode_documents(TEXTS), atol=1e-5)


@pytest.mark.parametrize(("pooling", "attention"), VARIANTS)
def test_every_variant_pooled_in_buckets_gives_its_padded_vectors(
    base_folder, monkeypatch, pooling, attention
):
    embedder = load(base_folder["llama"], pooling, attention)
    embedder.packs = False
    padded = embedder.encode_documents(TEXTS)
    embedder.packs = True
    pack_with(embedder, BUCKETS)
    monkeypatch.setattr(PackedBatch, "reduce", PackedBatch.reduce_buckets)
    np.testing.assert_allclose(embedder.encode_documents(TEXTS), padded, atol=1e-5)


def test_buckets_worked_by_hand():
    """5, 4, 4 take 15 places for 13 tokens, at most 1.25; with 2 they would take 20 for 15."""
    batch = PackedBatch.of([[1] * 5, [2] * 4, [3] * 4, [4] * 2, [5] * 2], CPU)
    first, second = batch.buckets
    assert (first.start, first.stop, second.start, second.stop) == (0, 13, 13, 17)
    assert second.slots is None
    assert first.pad(batch.ids[0]).tolist() == [[1] * 5, [2] * 4 + [0], [3] * 4 + [0]]
    assert first.real.tolist() == [[True] * 5, [True] * 4 + [False], [True] * 4 + [False]]
    assert second.pad(batch.ids[0]).tolist() == [[4, 4], [5, 5]]
    for bucket in (first, second):
        own = batch.ids[0, bucket.start : bucket.stop]
        assert bucket.unpad(bucket.pad(batch.ids[0])).tolist() == own.tolist()
    sums = batch.reduce_buckets(batch.ids[0, :, None], lambda states, real: states.sum(dim=1))
    assert sums.flatten().tolist() == [5, 8, 12, 8, 10]


def test_the_bounds_of_a_packed_batch_are_counted_in_32_bits():
    batch = PackedBatch.of([[7, 8, 9], [4, 5, 6], [1], [2, 3]], CPU)
    assert batch.offsets.tolist() == [0, 3, 6, 7, 9]
    assert batch.offsets.dtype == torch.int32
    assert batch.longest == 3


def altered(change):
    return Kernel("altered", change, takes_windows=True)


def scaled(query, key, value, batch, how):
    return 1.02 * BUCKETS.run(query, key, value, batch, how)


def leaking(query, key, value, batch, how):
    whole = PackedBatch.of([[0] * query.shape[2]], CPU)
    return BUCKETS.run(query, key, value, whole, how)


def crashing(query, key, value, batch, how):
    raise RuntimeError("FlashAttention only supports head dimensions that are multiples of 8")


@pytest.mark.parametrize("wrong", [scaled, leaking, crashing])
def test_a_kernel_that_computes_something_else_gives_way_to_the_next(base_folder, wrong):
    backbone = load(base_folder["llama"], "mean", "causal").backbone
    assert choose(backbone, altered(wrong), GROUPS) == Packing(sys.maxsize, GROUPS)
    assert choose(backbone, altered(wrong)) == Packing(0)


def test_a_kernel_that_is_told_of_windows_and_forgets_them_is_used_below_the_window(base_folder):
    backbone = load(base_folder["mistral"], "mean", "causal").backbone
    forgetful = altered(BUCKETS.run)
    assert choose(backbone, forgetful) == Packing(8, forgetful)


def test_in_half_precision_each_call_is_compared_with_attention_in_float32():
    """5 per cent is more than bfloat16 rounds; a window of 3 forgotten in 6 tokens is more yet."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 10, 8).bfloat16() for heads in (4, 2, 2))
    batch = PackedBatch.of([[0] * 6, [0] * 4], CPU)
    for pattern in (Pattern(True), Pattern(False), Pattern(True, scaling=0.3)):
        found = checked(BUCKETS).run(query, key, value, batch, pattern)
        assert torch.equal(found, BUCKETS.run(query, key, value, batch, pattern))
    with pytest.raises(PackingError, match="altered computes another attention"):
        checked(altered(leaking)).run(query, key, value, batch, Pattern(True))
    with pytest.raises(PackingError, match="another attention"):
        checked(altered(BUCKETS.run)).run(query, key, value, batch, Pattern(True, window=3))
    windowed = STAND_INS["torch 2.11"]
    checked(windowed).run(query, key, value, batch, Pattern(True, window=3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_a_base_in_half_precision_is_packed_where_a_kernel_is_named(base_folder, attention, dtype):
    backbone = load(base_folder["llama"], "mean", attention).backbone
    backbone.model.to(dtype)
    for kernel, expected in ((BUCKETS, sys.maxsize), (altered(leaking), 0)):
        assert choose(backbone, kernel).longest == expected
    assert choose(backbone) == Packing(0)


def test_a_base_that_mixes_neighbouring_tokens_in_half_precision_is_padded(base_folder):
    """Each token takes something of the one before, as a convolution would do it."""
    backbone = load(base_folder["llama"], "mean", "causal").backbone
    backbone.model.to(torch.bfloat16)
    layer = backbone.blocks()[1]
    layer.mlp.register_forward_hook(lambda module, given, out: out + out.roll(1, dims=1))
    assert choose(backbone, BUCKETS) == Packing(0)


def test_the_kernels_of_each_device_in_order(monkeypatch):
    there = {"varlen_attn": torch_2_11}
    monkeypatch.setattr(kernels, "_imported", lambda module, name: there.get(name))

    def names(device, dtype):
        return [kernel.name for kernel in find_kernels(device, dtype)]

    assert names(CPU, torch.float32) == names(CPU, torch.bfloat16) == [GROUPS.name]
    assert names(torch.device("mps"), torch.float32) == []
    varlen = ["torch varlen_attn", "torch varlen_attn, heads repeated"]
    assert names(CUDA, torch.bfloat16) == [*varlen, "padded buckets"]
    assert names(CUDA, torch.float32) == ["padded buckets"]
    there["flash_attn_varlen_func"] = flash_2
    assert names(CUDA, torch.float16) == [*varlen, "flash_attn", "padded buckets"]
    there.clear()
    assert names(CUDA, torch.float16) == ["padded buckets"]


def test_a_package_that_is_missing_or_broken_is_passed_over():
    assert kernels._imported("no_such_package_anywhere", "function") is None
    assert kernels._imported("torch", "no_such_function") is None
    assert kernels._imported("torch", "cat") is torch.cat


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral", "gemma3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_on_a_gpu_each_kernel_at_hand_gives_the_padded_vectors(
    base_folder, architecture, attention, dtype
):
    spec = VariantSpec(
        base=str(base_folder[architecture]), pooling="mean", attention=attention, max_tokens=64
    )
    embedder = Embedder.from_spec(spec, device="cuda", dtype=dtype)
    assert embedder.longest_packed > 0
    embedder.packs = False
    padded = embedder.encode_documents(TEXTS)
    embedder.packs = True
    chosen = set()
    for kernel in find_kernels(CUDA, dtype):
        chosen.add(pack_with(embedder, kernel).longest)
        found = embedder.encode_documents(TEXTS)
        if dtype == torch.float32:
            np.testing.assert_allclose(found, padded, atol=1e-5)
        assert ((found * padded).sum(axis=1) >= 0.99).all()
    assert chosen - {0}
