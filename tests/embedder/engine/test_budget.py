"""Tokens per batch: found on a GPU, halved where memory is short, and the vectors the same."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from embedder import Embedder, VariantSpec
from embedder.embedder import _BATCH_TOKENS
from embedder.engine import batches
from embedder.engine.batches import (
    CUDA_TOKENS,
    TokenBudget,
    budget_of,
    is_out_of_memory,
    packed_batches,
    token_batches,
)
from retrieval.errors import ModelError

TEXTS = [letter * length for letter, length in zip("abcdefg", (3, 11, 7, 1, 7, 5, 2), strict=True)]
"""A byte is a token and EOS ends a text: 4, 12, 8, 2, 8, 6 and 3 tokens, 43 in all."""


@pytest.fixture
def embedder(base_folder):
    spec = VariantSpec(
        base=str(base_folder["llama"]), pooling="mean", attention="causal", max_tokens=96
    )
    return Embedder.from_spec(spec, device="cpu", batch_tokens=64)


def lack_memory(monkeypatch, embedder, most):
    """Let batches of more than ``most`` tokens fail; return the sizes that are tried."""
    tried = []
    real = embedder.embed

    def small(batch, **settings):
        tokens = batch.ids.numel()
        tried.append(tokens)
        if tokens > most:
            raise torch.OutOfMemoryError(f"tried to allocate {tokens} tokens")
        return real(batch, **settings)

    monkeypatch.setattr(embedder, "embed", small)
    return tried


def test_a_batch_that_does_not_fit_is_halved_and_the_vectors_are_the_same(embedder, monkeypatch):
    """43 tokens fail; of the halves 12+8+8 fail, 12 fit, 8+8 fit; 6+4+3+2 fit."""
    expected = embedder.encode_documents(TEXTS)
    tried = lack_memory(monkeypatch, embedder, most=20)
    np.testing.assert_allclose(embedder.encode_documents(TEXTS), expected, atol=1e-5)
    assert tried == [43, 28, 12, 16, 15]


@pytest.mark.parametrize("pool_prompt", [True, False])
def test_after_a_lack_of_memory_batches_stay_small(embedder, monkeypatch, pool_prompt):
    """43 and then 28 failed, so that 28 // 2 = 14 tokens are left: 12, 8, 8+6, 4+3+2."""
    embedder.spec = replace(embedder.spec, pool_prompt=pool_prompt)
    tried = lack_memory(monkeypatch, embedder, most=20)
    embedder.encode_documents(TEXTS)
    tried.clear()
    embedder.encode_documents(TEXTS)
    assert tried == [12, 8, 14, 9]
    embedder.batch_tokens = 16  # asked for anew
    tried.clear()
    embedder.encode_documents(TEXTS)
    assert tried == [12, 16, 15]


def test_padded_batches_are_halved_too(embedder, monkeypatch):
    """5 rows x 12 are 60; 2 x 12 fail, so 12 and 8; 3 x 8 fail, so 8 and 2 x 6; last 2 x 3."""
    expected = embedder.encode_documents(TEXTS)
    embedder.packs = False
    tried = lack_memory(monkeypatch, embedder, most=20)
    np.testing.assert_allclose(embedder.encode_documents(TEXTS), expected, atol=1e-5)
    assert tried == [60, 24, 12, 8, 24, 8, 12, 6]


def test_a_text_that_does_not_fit_alone_is_named_by_its_length(embedder, monkeypatch):
    lack_memory(monkeypatch, embedder, most=10)
    with pytest.raises(ModelError, match=r"One text of 12 tokens does not fit .* memory of cpu"):
        embedder.encode_documents(TEXTS)


def test_other_errors_are_not_taken_for_a_lack_of_memory(embedder, monkeypatch):
    def broken(batch, **settings):
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(embedder, "embed", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        embedder.encode_documents(TEXTS)
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert not is_out_of_memory(MemoryError())


def growing(asked=400, free=10**9):
    return TokenBudget(asked, grows=True, free=lambda: free)


def run_batches(budget, rates, bytes_each=1):
    """Run full batches at these tokens a second by size, till the budget settles."""
    for _ in range(100):
        if budget.is_settled:
            return
        tokens = budget.tokens
        budget.record(tokens, tokens / rates[tokens], tokens * bytes_each)


def test_tokens_double_until_that_no_longer_pays():
    """A quarter of 400 is 100. 200 is twice as fast, 400 1.5 times, 800 1.02 times: 800 stays."""
    budget = growing()
    run_batches(budget, {100: 1000, 200: 2000, 400: 3000, 800: 3060})
    assert budget.tokens == 800
    budget = growing()
    run_batches(budget, {100: 1000, 200: 2000, 400: 1900})  # slower: back to 200
    assert budget.tokens == 200


def test_tokens_do_not_double_into_memory_that_is_not_there():
    """400 tokens of 10 bytes are 4,000: more than four fifths of 4,999, not of 5,000."""
    always_faster = {size: size for size in (100, 200, 400, 800)}
    for free, expected in ((4999, 200), (5000, 400)):
        budget = growing(free=free)
        run_batches(budget, always_faster, bytes_each=10)
        assert budget.tokens == expected


def test_tokens_have_an_upper_limit(monkeypatch):
    monkeypatch.setattr(batches, "MOST_TOKENS", 400)
    budget = growing()
    run_batches(budget, {size: size for size in (100, 200, 400, 800)})
    assert budget.tokens == 400


def test_the_first_batch_of_a_size_and_batches_not_full_say_nothing():
    """74 of 100 tokens are below three quarters; 101 are a text longer than the budget."""
    budget = growing()
    for tokens in (74, 101):
        for _ in range(9):
            budget.record(tokens, 1.0, 0)
    assert budget.tokens == 100
    for seconds in (60.0, 1.0, 1.0):  # the first one compiles and allocates
        budget.record(100, seconds, 0)
    assert budget.tokens == 200
    for seconds in (60.0, 1.0, 1.0):
        budget.record(200, seconds, 0)
    assert budget.tokens == 400


def test_a_size_that_a_user_asks_for_never_grows():
    budget = TokenBudget(100, grows=False, free=lambda: 10**9)
    for _ in range(9):
        budget.record(100, 1.0, 0)
    assert budget.tokens == 100
    budget.shrink(80)
    assert budget.tokens == 40
    for _ in range(9):
        budget.shrink(1)
    assert budget.tokens == 1


class Settings:
    def __init__(self, device, batch_tokens):
        self.device = torch.device(device)
        self.batch_tokens = batch_tokens


def test_only_a_gpu_that_was_asked_for_no_number_finds_its_own():
    assert _BATCH_TOKENS["cuda"] == CUDA_TOKENS  # what an Embedder sets where none is asked for
    assert budget_of(Settings("cuda", CUDA_TOKENS)).tokens == CUDA_TOKENS // 4
    for settings in (Settings("cuda", 5000), Settings("cpu", CUDA_TOKENS)):
        assert budget_of(settings).tokens == settings.batch_tokens
        assert budget_of(settings).is_settled
        assert budget_of(settings) is budget_of(settings)


def test_batches_follow_a_budget_that_changes():
    sizes = iter([4, 8, 2])
    assert list(packed_batches([2] * 7, lambda: next(sizes))) == [[0, 1], [2, 3, 4, 5], [6]]
    sizes = iter([4, 9, 2])
    assert list(token_batches([2] * 7, lambda: next(sizes))) == [[0, 1], [2, 3, 4, 5], [6]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_on_a_gpu_vectors_come_out_in_input_order_from_batches_that_overlap(base_folder):
    spec = VariantSpec(base=str(base_folder["llama"]), pooling="mean", attention="causal")
    embedder = Embedder.from_spec(spec, device="cuda", dtype=torch.float32)
    expected = np.concatenate([embedder.encode_documents([text]) for text in TEXTS])
    for asked in (4, 16, CUDA_TOKENS):
        embedder.batch_tokens = asked
        found = embedder.encode_documents(TEXTS * 50)
        np.testing.assert_allclose(found, np.tile(expected, (50, 1)), atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_that_is_nearly_full_halves_its_batches(base_folder):
    spec = VariantSpec(base=str(base_folder["llama"]), pooling="mean", attention="causal")
    embedder = Embedder.from_spec(spec, device="cuda", dtype=torch.float32, batch_tokens=1 << 22)
    texts = ["the mill by the pond " * 4] * 30_000
    expected = embedder.encode_documents(texts[:1])
    free, total = torch.cuda.mem_get_info()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((total - free + (1 << 28)) / total)
    try:
        found = embedder.encode_documents(texts)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert budget_of(embedder).tokens < 1 << 22
    np.testing.assert_allclose(found, np.tile(expected, (len(texts), 1)), atol=1e-5)
