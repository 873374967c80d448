"""Texts without padding: the same vectors as with it, on every base, or else padding."""

import sys
import threading
import time
import weakref
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModel, LlamaConfig

from embedder import Embedder, VariantSpec
from embedder.engine.backbone import Backbone
from embedder.engine.batches import PaddedBatch, packed_batches, pad_batch
from embedder.engine.packing import (
    Group,
    PackedBatch,
    PackingError,
    attending_to,
    packed_attention,
    packed_states,
)
from embedder.engine.run import AHEAD, tokenized_ahead
from embedder.variants import ATTENTIONS
from tests.embedder.conftest import FOLLOWING, every_variant

TEXTS = [
    "a",
    "mill",
    "the quick brown fox jumps over the lazy dog",
    "",
    "pond",
    "mills grind slowly, ponds fill slower, and this one is long enough to be cut " * 2,
    "the quick brown fox jumps over the lazy cat",
]
CPU = torch.device("cpu")


def load(folder, pooling, attention, **settings):
    batch_tokens = settings.pop("batch_tokens", None)
    spec = VariantSpec(
        base=str(folder), pooling=pooling, attention=attention, **{"max_tokens": 96, **settings}
    )
    return Embedder.from_spec(spec, device="cpu", batch_tokens=batch_tokens)


def count_calls(monkeypatch, embedder):
    """Count forward passes by kind from now on."""
    calls, real = {PaddedBatch: 0, PackedBatch: 0}, embedder.embed

    def call(batch, **settings):
        calls[type(batch)] += 1
        return real(batch, **settings)

    monkeypatch.setattr(embedder, "embed", call)
    return calls


@pytest.mark.parametrize(("pooling", "attention", "architecture"), every_variant(*FOLLOWING))
def test_packed_vectors_are_the_padded_ones(
    base_folder, monkeypatch, architecture, pooling, attention
):
    embedder = load(base_folder[architecture], pooling, attention)
    calls = count_calls(monkeypatch, embedder)
    found = embedder.encode_documents(TEXTS)
    assert calls[PackedBatch] > 0 or pooling == "prompt_eos"  # longer than mistral's window
    embedder.packs = False
    calls[PackedBatch] = 0
    for side in ("left", "right"):
        embedder.padding_side = side
        padded = embedder.encode_documents(TEXTS)
        assert calls[PackedBatch] == 0
        np.testing.assert_allclose(found, padded, atol=1e-5)
        assert ((found * padded).sum(axis=1) >= 0.999999).all()


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_a_text_is_packed_with_any_others_to_the_same_vector(base_folder, attention):
    embedder = load(base_folder["llama"], "mean", attention)
    alone = np.concatenate([embedder.encode_documents([text]) for text in TEXTS])
    for budget in (1, 64, 100_000):
        embedder.batch_tokens = budget
        np.testing.assert_allclose(embedder.encode_documents(TEXTS), alone, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("llama", sys.maxsize),
        ("qwen3", sys.maxsize),
        ("gpt2", sys.maxsize),
        ("mistral", 8),  # their sliding_window: a longer text is padded
        ("gemma3", 8),
        ("gpt_neo", 0),  # takes no attention from transformers' interface
    ],
)
def test_each_architecture_is_packed_as_far_as_it_may_be(base_folder, architecture, expected):
    embedder = load(base_folder[architecture], "mean", "causal", max_tokens=32)
    assert embedder.longest_packed == expected
    assert np.isfinite(embedder.encode_documents(TEXTS)).all()


def test_texts_longer_than_the_sliding_window_are_padded_and_the_rest_packed(
    base_folder, monkeypatch
):
    """A byte is a token and EOS ends a text, so 7 bytes fill mistral's window of 8."""
    embedder = load(base_folder["mistral"], "mean", "causal")
    calls = count_calls(monkeypatch, embedder)
    embedder.encode_documents(["x" * 7, "y" * 3])
    assert calls == {PaddedBatch: 0, PackedBatch: 1}
    embedder.encode_documents(["x" * 8])
    assert calls == {PaddedBatch: 1, PackedBatch: 1}
    embedder.encode_documents(["x" * 8, "x" * 7])
    assert calls == {PaddedBatch: 2, PackedBatch: 2}


def tiny_llama():
    torch.manual_seed(0)
    return AutoModel.from_config(
        LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
        )
    ).eval()


def test_a_base_that_mixes_neighbouring_tokens_is_padded():
    """As a convolution or a recurrence would: each token takes something of the one before."""

    def mix(module, inputs, output):
        return output + 0.1 * output.roll(1, dims=1)

    for mixes, expected in ((False, sys.maxsize), (True, 0)):
        model = tiny_llama()
        if mixes:
            model.layers[0].mlp.register_forward_hook(mix)
            model.config.is_causal = False  # roll brings the last token to the first
        attention = ATTENTIONS["bidirectional" if mixes else "causal"]
        assert Backbone(model, None, attention, "id", "tiny").longest_packed == expected


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_half_precision_is_packed_and_attends_in_float32(monkeypatch, dtype, attention):
    """torch's gradient of attention takes ten times as long in bfloat16 on a CPU."""
    attended, attention_of_torch = [], F.scaled_dot_product_attention

    def attend(query, key, value, **settings):
        attended.append(query.dtype)
        return attention_of_torch(query, key, value, **settings)

    model = tiny_llama().to(dtype)
    chosen = ATTENTIONS[attention]
    model.config.is_causal = chosen.is_causal
    backbone = Backbone(model, None, chosen, "id", "tiny")
    assert backbone.longest_packed == sys.maxsize
    rows = [[5, 6, 7, 8], [9, 3], [4, 2]]
    ids, mask = pad_batch(rows, 0)
    padded = backbone.token_states(ids, mask)[mask.bool()].float()
    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = backbone.packed_states(PackedBatch.of(rows, CPU))
    assert set(attended) == {torch.float32}
    assert found.dtype == dtype
    assert (found.float() - padded).norm() <= 0.02 * padded.norm()
    found.float().square().sum().backward()
    assert all(weights.grad is not None for weights in backbone.blocks().parameters())


@pytest.mark.parametrize(
    "settings", [{"softcap": 50.0}, {"s_aux": torch.ones(1)}, {"dropout": 0.1}]
)
def test_attention_that_would_compute_something_else_is_refused(settings):
    states = torch.zeros(1, 1, 2, 4)
    with pytest.raises(PackingError, match="knows no mask, dropout"):
        packed_attention(None, states, states, states, **settings)


def test_a_base_attends_packed_only_where_its_thread_runs_a_packed_batch():
    """Padded batches of another thread meanwhile are attended as usual."""
    backbone = Backbone(tiny_llama(), None, ATTENTIONS["causal"], "id", "tiny")
    rows = [[5, 6, 7, 8], [9, 3], [4, 2]]
    ids, mask = pad_batch(rows, 0)
    with torch.inference_mode():
        expected = backbone.token_states(ids, mask)[mask.bool()]
        both = threading.Barrier(2)
        meanwhile = []

        def pad():
            with torch.inference_mode():
                both.wait()
                meanwhile.extend(backbone.token_states(ids, mask) for _ in range(20))

        other = threading.Thread(target=pad)
        other.start()
        both.wait()
        packed = [backbone.packed_states(PackedBatch.of(rows, CPU)) for _ in range(20)]
        other.join()
    for found in (*packed, *(states[mask.bool()] for states in meanwhile)):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert attending_to() is None
    states = torch.zeros(1, 2, 2, 8)
    with pytest.raises(PackingError, match="this thread runs no packed batch"):
        packed_attention(None, states, states, states)


def test_a_thread_reads_the_layers_of_its_own_texts():
    """Hooks on the layers are called for the texts of other threads, too."""
    backbone = Backbone(tiny_llama(), None, ATTENTIONS["causal"], "id", "tiny")
    batches = [PackedBatch.of([[5, 6, 7, 8], [9, 3]], CPU), PackedBatch.of([[4], [2, 11]], CPU)]
    with torch.inference_mode():
        expected = [backbone.read(batch, [1, 2]).stack([1, 2]) for batch in batches]
    both, found = threading.Barrier(2), [[], []]

    def read(number):
        with torch.inference_mode():
            both.wait()
            for _ in range(30):
                found[number].append(backbone.read(batches[number], [1, 2]).stack([1, 2]))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for states, right in zip(found, expected, strict=True):
        assert len(states) == 30
        assert all(torch.allclose(one, right, atol=1e-6) for one in states)


def test_packed_attention_sees_its_own_text_only_worked_by_hand():
    """Queries of 0 weigh all keys alike, so each token gets the mean of the values it sees.

    Two texts of 2 tokens, values 1 3 and 5 9: causal 1, (1+3)/2, 5, (5+9)/2; else 2 2 7 7.
    """
    query = torch.zeros(1, 1, 4, 1)
    value = torch.tensor([1.0, 3.0, 5.0, 9.0]).view(1, 1, 4, 1)

    def model(**given):
        found, _ = packed_attention(None, query, query, value)
        return SimpleNamespace(last_hidden_state=found.view(1, 4, 1))

    batch = PackedBatch.of([[0, 0], [0, 0]], CPU)
    for is_causal, expected in ((True, [1, 2, 5, 7]), (False, [2, 2, 7, 7])):
        assert packed_states(model, batch, is_causal)[0].flatten().tolist() == expected


def test_a_packed_batch_worked_by_hand():
    batch = PackedBatch.of([[7, 8, 9], [4, 5, 6], [1], [2, 3]], CPU)
    assert batch.ids.tolist() == [[7, 8, 9, 4, 5, 6, 1, 2, 3]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 2, 0, 0, 1]]
    assert batch.groups == (Group(0, 2, 3), Group(6, 1, 1), Group(7, 1, 2))
    sums = batch.reduce(batch.ids[0, :, None].float(), lambda states, real: states.sum(dim=1))
    assert sums.tolist() == [[24], [15], [1], [5]]


def test_packed_batches_stay_in_the_budget_longest_first():
    """12 alone is over the budget of 10; 6 + 4 fill it; 4 + 3 leave room, but 3 more do not fit."""
    assert list(packed_batches([4, 12, 3, 6, 4, 1], 10)) == [[1], [3, 0], [4, 2, 5]]
    assert list(packed_batches([], 10)) == []


def test_tokenising_is_ahead_by_a_bounded_number_of_windows_and_keeps_the_order():
    asked = []
    threads = set()

    def tokenize(texts):
        asked.extend(texts)
        threads.add(threading.get_ident())
        return [[int(text)] for text in texts]

    texts = [str(number) for number in range(20)]
    taken = []
    for first, rows in tokenized_ahead(tokenize, texts, 2):
        assert first == len(taken)
        taken += [row[0] for row in rows]
        time.sleep(0.01)
        assert len(asked) <= len(taken) + 2 * AHEAD
    assert taken == list(range(20))
    assert threading.get_ident() not in threads


def test_an_error_of_the_tokenising_thread_reaches_the_caller():
    def tokenize(texts):
        raise ValueError(f"cannot read {texts[0]}")

    with pytest.raises(ValueError, match="cannot read x"):
        list(tokenized_ahead(tokenize, ["x", "y"], 1))


def test_many_windows_of_texts_come_out_in_input_order(base_folder, monkeypatch):
    embedder = load(base_folder["llama"], "mean", "causal", batch_tokens=8)
    expected = embedder.encode_documents(TEXTS)
    monkeypatch.setattr("embedder.engine.run._LEAST_WINDOW_TEXTS", 2)
    np.testing.assert_allclose(embedder.encode_documents(TEXTS), expected, atol=1e-5)


class Operations(TorchDispatchMode):
    """How often each operation runs, by name."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_no_gradient_of_one_text_is_as_long_as_the_batch():
    """A slice per text would have one each, which took a fifth of a training step."""
    backbone = Backbone(tiny_llama(), None, ATTENTIONS["causal"], "id", "tiny")

    def gradient(*rows):
        batch = PackedBatch.of(rows, CPU)
        states = backbone.packed_states(batch)
        loss = batch.reduce(states, lambda own, real: own.mean(1)).sum()
        with Operations() as seen:
            loss.backward()
        return seen.counts

    one, four = gradient([5, 6, 7]), gradient([5, 6, 7], [8, 9], [3], [2, 4, 5, 6])
    attended = "_scaled_dot_product_flash_attention_for_cpu_backward"
    assert four[attended] == 4 * one[attended] > 0
    for whole in ("slice_backward", "select_backward", "new_zeros", "zeros"):
        assert four[whole] == one[whole]


class LiveBytes(TorchDispatchMode):
    """Follows the storages that operations make; ``peak`` is the most that lived at one time."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self._seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        return out

    def _follow(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key, size):
        self._seen.discard(key)
        self.live -= size


def test_model5_needs_no_more_than_a_tenth_more_memory_than_model1(base_folder):
    """One vector a layer and text is kept, never the states of all layers."""
    peaks = {}
    for pooling, attention in (("eos", "causal"), ("multi_layer", "bidirectional")):
        embedder = load(base_folder["llama"], pooling, attention, batch_tokens=4096)
        with LiveBytes() as memory:
            embedder.encode_documents(["the millpond lies still in the morning light " * 2] * 40)
        peaks[pooling] = memory.peak
    assert peaks["eos"] > 4096 * 32 * 4 / 2  # the states of some tokens, at the least
    assert peaks["multi_layer"] <= 1.1 * peaks["eos"]
