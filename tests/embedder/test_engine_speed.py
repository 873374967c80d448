"""``fast``: int8 layers and compiled layers, each with what happens where it cannot be had."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from embedder import Embedder, VariantSpec
from embedder.engine.compiling import LayerCompiler
from embedder.engine.int8 import Int8Linear, quantize_linears
from embedder.lora import LoraOptions, add_adapter
from embedder.saved import save_model
from retrieval.errors import UsageError

TEXTS = ["pond", "the mill by the pond turns", "mills grind slowly", "", "a b c d e f g"]
VNNI = "embedder.engine.speed.cpu_has_vnni"


def load(folder: Path, notes: list[str], speed: Any = "fast", **settings: Any) -> Embedder:
    spec = VariantSpec(base=str(folder), pooling="mean", attention="causal", max_tokens=48)
    return Embedder.from_spec(spec, device="cpu", speed=speed, notify=notes.append, **settings)


@pytest.fixture
def llama(base_folder: dict[str, Path]) -> Path:
    return base_folder["llama"]


def test_an_int8_layer_worked_by_hand() -> None:
    """Weights 127 and -2 are 1 a step; inputs 2 and 1 are 2/127 a step: 127 and 63.5, so 64.

    The sum of products is 127 * 127 - 64 * 2 = 16001, times 2/127 and plus 5.
    """
    linear = nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[127.0, -2.0]]))
        linear.bias.fill_(5.0)
    layer = Int8Linear(linear)
    assert layer.weight.tolist() == [[127, -2]]
    found = layer(torch.tensor([[[2.0, 1.0]]]))
    assert found.shape == (1, 1, 1)
    assert found.item() == pytest.approx(16001 * 2 / 127 + 5)


def test_an_int8_layer_is_near_its_float_layer_and_takes_zeros() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 96, bias=False)
    states = torch.randn(3, 7, 64)
    expected, found = linear(states), Int8Linear(linear)(states)
    assert torch.cosine_similarity(found.flatten(), expected.flatten(), dim=0) > 0.9999
    assert not Int8Linear(linear)(torch.zeros(1, 64)).any()


def test_layers_with_more_inputs_than_outputs_stay_in_float() -> None:
    block = nn.ModuleDict({"up": nn.Linear(4, 8), "same": nn.Linear(4, 4), "down": nn.Linear(8, 4)})
    assert quantize_linears(nn.ModuleList([block])) == 2
    kinds = {name: type(layer) for name, layer in block.items()}
    assert kinds == {"up": Int8Linear, "same": Int8Linear, "down": nn.Linear}


def test_fast_without_vnni_computes_the_exact_vectors_and_says_why(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VNNI, lambda: False)
    notes: list[str] = []
    fast, exact = load(llama, notes), load(llama, [], "exact")
    assert np.array_equal(fast.encode_documents(TEXTS), exact.encode_documents(TEXTS))
    assert fast.fingerprint == exact.fingerprint
    assert [note for note in notes if "speed fast" in note] == [
        "speed fast: int8 needs a CPU with VNNI, which this one lacks (there int8 is slower); "
        "computing in float32."
    ]


def test_fast_with_vnni_computes_near_vectors_under_another_fingerprint(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VNNI, lambda: True)
    notes: list[str] = []
    fast, exact = load(llama, notes), load(llama, [], "exact")
    assert fast.is_int8
    assert not [note for note in notes if "speed fast" in note]
    found, expected = fast.encode_documents(TEXTS), exact.encode_documents(TEXTS)
    assert np.abs(found - expected).max() > 1e-5
    assert ((found * expected).sum(axis=1) > 0.98).all()
    assert fast.fingerprint.digest != exact.fingerprint.digest
    settings = dict(fast.fingerprint.settings)
    assert settings.pop("linear_layers") == "int8"
    assert settings == dict(exact.fingerprint.settings)


def test_int8_is_the_same_alone_and_in_any_batch_to_the_rounding_of_a_step(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VNNI, lambda: True)
    fast = load(llama, [])
    alone = np.concatenate([fast.encode_documents([text]) for text in TEXTS])
    np.testing.assert_allclose(fast.encode_documents(TEXTS), alone, atol=2e-3)


def test_int8_is_not_for_half_precision_nor_under_lora(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VNNI, lambda: True)
    notes: list[str] = []
    assert not load(llama, notes, dtype=torch.bfloat16).is_int8
    assert "int8 layers take float32" in notes[-1]
    exact = load(llama, [], "exact")
    add_adapter(exact.backbone, LoraOptions(rank=2, alpha=4))
    assert not Embedder(exact.spec, exact.backbone, speed="fast", notify=notes.append).is_int8
    assert "under LoRA" in notes[-1]


def test_an_int8_model_is_not_saved(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VNNI, lambda: True)
    with pytest.raises(UsageError, match="speed='exact'"):
        save_model(load(llama, []), tmp_path / "out", record={})
    assert not (tmp_path / "out").exists()


def test_an_unknown_speed_is_refused(llama: Path) -> None:
    with pytest.raises(UsageError, match="speed is 'ludicrous'; accepted: exact, fast"):
        load(llama, [], "ludicrous")


def eager(embedder: Embedder, notes: list[str], repaid_seconds: float = 0.0) -> LayerCompiler:
    """Put a compiler into the embedder that wants to compile as soon as it can."""
    compiler = LayerCompiler(embedder.backbone.blocks, notes.append, repaid_seconds=repaid_seconds)
    embedder.compiler = compiler
    embedder.batch_tokens = 8
    return compiler


def test_compiled_layers_give_the_same_vectors_for_every_batch(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own tracer without its C++ step; the packed attention must survive it."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr("embedder.engine.compiling.LEAST_GAIN", 0.0)
    plain, notes = load(llama, [], "exact"), list[str]()
    fast = load(llama, [])
    compiler = eager(fast, notes)
    texts = TEXTS * 8
    found = fast.encode_documents(texts)
    assert compiler.state == "kept"
    assert notes == ["Compiling the decoder layers, once for this run"]
    np.testing.assert_allclose(found, plain.encode_documents(texts), atol=1e-5)
    assert all("forward" not in vars(block) for block in fast.backbone.blocks())


def test_without_a_compiler_the_work_goes_on_with_plain_layers(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(function: Any, **settings: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            raise RuntimeError("No working C++ compiler found")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    plain, notes = load(llama, [], "exact"), list[str]()
    fast = load(llama, [])
    compiler = eager(fast, notes)
    texts = TEXTS * 8
    np.testing.assert_allclose(
        fast.encode_documents(texts), plain.encode_documents(texts), atol=1e-5
    )
    assert compiler.state == "dropped"
    assert notes[1:] == [
        "The layers cannot be compiled here (No working C++ compiler found); "
        "going on with plain ones."
    ]


def test_short_work_is_not_compiled(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, notes = load(llama, []), list[str]()
    compiler = eager(fast, notes, repaid_seconds=600)
    fast.encode_documents(TEXTS * 4)
    assert compiler.state == "waiting"
    assert notes == []


def trial(monkeypatch: pytest.MonkeyPatch, compiled_seconds: float) -> tuple[str, list[str]]:
    """Return how a compiler ends whose plain batches of 100 tokens take 1 second."""
    monkeypatch.setattr(torch, "compile", lambda forward, **settings: forward)
    notes: list[str] = []
    compiler = LayerCompiler(lambda: [nn.Identity()], notes.append, repaid_seconds=100.0)
    for _ in range(4):
        compiler.consider(tokens_left=1_000_000)
        assert compiler.state == "waiting"  # too few batches to know the speed
        compiler.record(100, 1.0)
    compiler.consider(tokens_left=9_900)  # 99 s of work at 100 tokens/s
    assert compiler.state == "waiting"
    compiler.consider(tokens_left=10_000)  # 100 s
    assert compiler.state == "trying"
    # The first three compile; then a compiled one and a plain one take turns.
    for seconds in (50.0, 20.0, 5.0, *[compiled_seconds, 1.0] * 4):
        assert compiler.state == "trying"
        assert compiler.is_on == (seconds != 1.0)
        compiler.record(100, seconds)
    return compiler.state, notes


def test_compiled_layers_stay_where_they_gain_three_per_cent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """100 tokens in 0.8 s are 125 a second: 1.25 times the plain 100."""
    assert trial(monkeypatch, 0.8) == ("kept", ["Compiling the decoder layers, once for this run"])


def test_compiled_layers_go_where_they_gain_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 tokens in 1.25 s are 80 a second: 0.80 of the plain speed."""
    state, notes = trial(monkeypatch, 1.25)
    assert state == "dropped"
    assert notes[1] == "Compiled layers run at 0.80 of the plain speed; going on with plain ones."


def test_a_failure_that_is_not_the_compilers_is_not_hidden(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = load(llama, [])
    eager(fast, [])

    def fail(batch: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(fast, "forward_packed", fail)
    with pytest.raises(MemoryError, match="no room"):
        fast.encode_documents(TEXTS)
