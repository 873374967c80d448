"""Fused layers: the C functions against torch, the layers against lean ones, and every way out."""

import ctypes
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, LlamaConfig

from embedder import Embedder, VariantSpec, list_variants
from embedder.engine import fused_build
from embedder.engine.fused import FusedLayer, fused_layers
from embedder.engine.fused_build import BuildError, load_functions
from embedder.engine.fused_int8 import fused_int8_layers
from embedder.engine.int8 import _hadamard, _turn_and_round, quantize_linears
from embedder.engine.lean import LeanLayer
from embedder.engine.packing import GROUPS, PackedBatch, Pattern, packed_attention
from embedder.engine.probe import Packing, layers_agree, packed_states
from embedder.engine.speed import describe_speeds, unfuse

CPU = torch.device("cpu")
TEXTS = ["a", "the mill by the pond", "", "mills grind slowly, ponds fill slower " * 2, "pond"]
VARIANTS = [(variant.pooling, variant.attention) for variant in list_variants()]
NO_OFFSET = 0  # a null pointer: no bias, no gains


def why_not() -> str | None:
    """Return why the functions cannot be compiled here."""
    try:
        load_functions()
    except BuildError as error:
        return str(error)
    return None


needs_functions = pytest.mark.skipif(why_not() is not None, reason=f"not compiled: {why_not()}")


def load(folder: Path, pooling: str = "mean", attention: str = "causal", **how: Any) -> Embedder:
    spec = VariantSpec(base=str(folder), pooling=pooling, attention=attention, max_tokens=48)
    return Embedder.from_spec(spec, device="cpu", **how)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Embedder]:
    """Load with int8 on any CPU; where it lacks the instructions, the products are slow."""
    monkeypatch.setattr("embedder.engine.speed.cpu_has_vnni", lambda: True)
    return lambda *args, **how: load(*args, **how, speed="fast")


def unfused(embedder: Embedder) -> Embedder:
    assert embedder.backbone.is_fused
    unfuse(embedder.backbone)
    assert not embedder.backbone.is_fused
    return embedder


def tiny(**settings: Any) -> Any:
    """Return a random Llama whose norms and biases are random too."""
    torch.manual_seed(0)
    shape = {
        "vocab_size": 50,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 8,
    }
    model = AutoModel.from_config(LlamaConfig(**{**shape, **settings})).eval()
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if "norm" in name or "bias" in name:
                weights.uniform_(0.5, 1.5)
    return model


def quantized(model: Any) -> list[LeanLayer]:
    """Make a model's layers int8 as ``quantize_backbone`` does, and return them lean."""
    lean = [LeanLayer(block) for block in model.layers]
    quantize_linears(model.layers, dict(layer.turn_values() for layer in lean))
    for layer in lean:
        layer.join_int8()
    return lean


@needs_functions
class TestFunctions:
    """Each against what torch makes of the same numbers; 1, 5 and 8 rows over two threads."""

    @pytest.fixture(params=[1, 5, 8])
    def n(self, request: pytest.FixtureRequest) -> int:
        torch.manual_seed(request.param)
        return int(request.param)

    @staticmethod
    def call(name: str, *values: Any) -> None:
        pointers = (v.data_ptr() if isinstance(v, Tensor) else v for v in values)
        getattr(load_functions(), name)(*pointers, 2)

    @staticmethod
    def rows(n: int, width: int) -> tuple[Tensor, Tensor]:
        return torch.full((n, width), 99, dtype=torch.int8), torch.empty(n, 1)

    @staticmethod
    def sums(n: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
        return (
            torch.randint(-60_000, 60_000, (n, width), dtype=torch.int32),
            torch.rand(n, 1) * 0.01 + 0.001,
            torch.rand(1, width) * 0.01 + 0.001,
        )

    @staticmethod
    def assert_rounded(found: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
        torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=0)
        apart = (found[0].int() - expected[0].int()).abs()
        assert apart.max() <= 1
        assert apart.float().mean() < 0.01  # only what lay between two steps

    @pytest.mark.parametrize(("width", "block"), [(576, 64), (64, 64), (48, 16), (40, 8), (7, 1)])
    def test_norm(self, n: int, width: int, block: int) -> None:
        states, gains = torch.randn(n, width) * 3, torch.rand(width) + 0.5
        states[:, 0] *= 50
        found = self.rows(n, width)
        self.call("millpond_norm", states, gains, 1e-3, block, n, width, *found)
        normed = states * (states.square().mean(1, keepdim=True) + 1e-3).rsqrt() * gains
        self.assert_rounded(found, _turn_and_round(normed, _hadamard(block)))

    def test_zeros_stay_zeros(self) -> None:
        found = self.rows(2, 64)
        self.call("millpond_round", torch.zeros(2, 64), 2, 64, *found)
        assert not found[0].any()
        assert torch.isfinite(found[1]).all()

    def test_round(self, n: int) -> None:
        values = torch.randn(n, 100)
        found = self.rows(n, 100)
        self.call("millpond_round", values, n, 100, *found)
        self.assert_rounded(found, _turn_and_round(values, _hadamard(1)))
        assert (found[0].abs().amax(1) == 127).all()

    @pytest.mark.parametrize("has_bias", [False, True])
    def test_add_and_norm(self, n: int, has_bias: bool) -> None:
        width = 192
        states, gains = torch.randn(n, width), torch.rand(width) + 0.5
        sums, rows, columns = self.sums(n, width)
        bias = torch.randn(width) if has_bias else NO_OFFSET
        expected = states + sums.float() * rows * columns + bias
        after, alone, found = torch.empty(n, width), states.clone(), self.rows(n, width)
        scaled = (sums, rows, columns, bias)
        self.call("millpond_add_norm", states, *scaled, gains, 1e-5, 64, n, width, after, *found)
        torch.testing.assert_close(after, expected)
        normed = expected * (expected.square().mean(1, keepdim=True) + 1e-5).rsqrt() * gains
        self.assert_rounded(found, _turn_and_round(normed, _hadamard(64)))
        self.call("millpond_add", alone, *scaled, n, width, alone)  # in place
        torch.testing.assert_close(alone, expected)

    @pytest.mark.parametrize("has_bias", [False, True])
    @pytest.mark.parametrize("has_gains", [False, True])
    def test_heads(self, n: int, has_bias: bool, has_gains: bool) -> None:
        heads, key_heads, width = 3, 2, 16
        every = (heads + 2 * key_heads) * width
        sums, rows, columns = self.sums(n, every)
        bias = torch.randn(every) if has_bias else NO_OFFSET
        gains = [torch.rand(width) + 0.5 for _ in range(2)] if has_gains else [NO_OFFSET] * 2
        cosines, sines = torch.randn(2, n, width)
        found = [torch.empty(n, count, width) for count in (heads, key_heads, key_heads)]
        self.call(
            *("millpond_heads", sums, rows, columns, bias, *gains, 1e-3, cosines, sines),
            *(n, heads, key_heads, width, *found),
        )
        floats = (sums.float() * rows * columns + bias).view(n, -1, width)
        parts = torch.split(floats, [heads, key_heads, key_heads], dim=1)
        for part, own, gain in zip(found, parts, [*gains, None], strict=True):
            expected = own if gain is None else self.placed(own, gain, cosines, sines)
            torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-4)

    @staticmethod
    def placed(heads: Tensor, gains: Tensor | int, cosines: Tensor, sines: Tensor) -> Tensor:
        """Norm (n, heads, width) unless there are no gains, and turn it by its positions."""
        if isinstance(gains, Tensor):
            heads = heads * (heads.square().mean(-1, keepdim=True) + 1e-3).rsqrt() * gains
        first, second = heads.chunk(2, dim=-1)
        return heads * cosines[:, None] + torch.cat([-second, first], -1) * sines[:, None]

    @pytest.mark.parametrize("has_gains", [False, True])
    def test_place(self, n: int, has_gains: bool) -> None:
        heads, width = 3, 16
        values, (cosines, sines) = torch.randn(n, heads, width), torch.randn(2, n, width)
        gains = torch.rand(width) + 0.5 if has_gains else NO_OFFSET
        expected = self.placed(values, gains, cosines, sines)
        self.call("millpond_place", values, gains, 1e-3, cosines, sines, n, heads, width)
        torch.testing.assert_close(values, expected)

    def test_norm_of_floats(self, n: int) -> None:
        states, gains = torch.randn(n, 100) * 3, torch.rand(100) + 0.5
        found = torch.empty(n, 100)
        self.call("millpond_norm_float", states, gains, 1e-3, n, 100, found)
        expected = states * (states.square().mean(1, keepdim=True) + 1e-3).rsqrt() * gains
        torch.testing.assert_close(found, expected)

    def test_gate_of_floats(self, n: int) -> None:
        """Down to -200, where e to its power is no float32, and up to 200."""
        gates, ups = torch.randn(n, 100) * 50, torch.randn(n, 100)
        gates[0, :4] = torch.tensor([-200.0, 200.0, 0.0, -88.0])
        expected = nn.functional.silu(gates) * ups
        self.call("millpond_gate_float", gates, ups, n, 100)
        torch.testing.assert_close(gates, expected, rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize("has_bias", [False, True])
    @pytest.mark.parametrize(("width", "block"), [(128, 64), (48, 16)])
    def test_gate(self, n: int, has_bias: bool, width: int, block: int) -> None:
        """Gates reach -600 and 600, where e to their power is no float32."""
        sums, rows, columns = self.sums(n, 2 * width)
        bias = torch.randn(2 * width) if has_bias else NO_OFFSET
        found = self.rows(n, width)
        self.call("millpond_gate", sums, rows, columns, bias, block, n, width, *found)
        gates, ups = (sums.float() * rows * columns + bias).chunk(2, dim=1)
        expected = nn.functional.silu(gates) * ups
        self.assert_rounded(found, _turn_and_round(expected, _hadamard(block)))

    @pytest.mark.parametrize("is_causal", [True, False])
    @pytest.mark.parametrize(("heads", "key_heads", "width"), [(6, 2, 64), (2, 2, 16), (3, 1, 80)])
    def test_attend(self, is_causal: bool, heads: int, key_heads: int, width: int) -> None:
        """Lengths around the 8 queries and 16 columns that are computed together."""
        torch.manual_seed(0)
        lengths = [40, 33, 32, 31, 17, 16, 15, 9, 8, 8, 7, 2, 1]
        batch = PackedBatch.of([[1] * length for length in lengths], CPU)
        n = sum(lengths)
        queries = torch.randn(n, heads, width) * 3
        keys, values = torch.randn(2, n, key_heads, width)
        found = torch.full((n, heads, width), float("nan"))
        self.call(
            *("millpond_attend", queries, keys, values, batch.offsets, len(lengths)),
            *(heads, key_heads, width, 0.2, int(is_causal), found),
        )
        parts = (each.transpose(0, 1)[None] for each in (queries, keys, values))
        [expected] = GROUPS.run(*parts, batch, Pattern(is_causal, 0.2))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    def test_what_is_not_finite_stays_so(self) -> None:
        """A model that gives NaN is to be told from one that does not."""
        sums = torch.zeros(3, 64, dtype=torch.int32)
        states, ones = torch.zeros(3, 64), torch.ones(64)
        states[0, 5], states[1, 5] = float("nan"), float("inf")
        found, after = self.rows(3, 64), torch.empty(3, 64)
        self.call(
            *("millpond_add_norm", states, sums, torch.ones(3), ones, NO_OFFSET, ones, 1e-5),
            *(64, 3, 64, after, *found),
        )
        assert torch.isfinite(after).all(dim=1).tolist() == [False, False, True]


@needs_functions
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"hidden_size": 192, "intermediate_size": 128, "head_dim": 64, "rms_norm_eps": 0.1},
        {"num_key_value_heads": 3},
        {"head_dim": 16},
        {"head_dim": 16, "num_key_value_heads": 3},
    ],
)
@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("is_int8", [True, False])
def test_each_layer_is_the_lean_one(
    settings: dict[str, Any], is_causal: bool, is_int8: bool
) -> None:
    model = tiny(**settings)
    model.config.is_causal = is_causal
    lean = quantized(model) if is_int8 else [LeanLayer(block) for block in model.layers]
    fused = fused_int8_layers(lean) if is_int8 else fused_layers(lean)
    assert [layer.block for layer in fused] == list(model.layers)
    assert layers_agree(model, is_causal, lean, fused, 0.02 if is_int8 else 1e-4)
    batch = PackedBatch.of([[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [15, 16, 17], [18]], CPU)
    with torch.inference_mode():
        found, expected = (
            packed_states(model, batch, is_causal, GROUPS, layers)[0] for layers in (fused, lean)
        )
    if is_int8:
        assert torch.cosine_similarity(found, expected).min() > 0.999
    else:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@needs_functions
def test_a_layer_that_computes_something_else_is_noticed() -> None:
    model = tiny()
    lean = quantized(model)
    fused = fused_int8_layers(lean)
    for layer, change in ((fused[1], 1.05), (fused[0], float("nan"))):
        right = layer.compute
        layer.compute = lambda *given, r=right, c=change: given[0] + (r(*given) - given[0]) * c  # type: ignore[method-assign]
        assert not layers_agree(model, True, lean, fused, 0.02)
        layer.compute = right  # type: ignore[method-assign]
    assert layers_agree(model, True, lean, fused, 0.02)


@needs_functions
@pytest.mark.parametrize(("pooling", "attention"), VARIANTS)
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral"])
def test_every_variant_has_the_vectors_of_the_bases_own_layers(
    base_folder: dict[str, Path], architecture: str, pooling: str, attention: str
) -> None:
    embedder = load(base_folder[architecture], pooling, attention)
    assert embedder.backbone.is_fused
    assert list(embedder.backbone.packed_layers()) == []  # none to compile
    found = embedder.encode_documents(TEXTS)
    packing = embedder.backbone.packing
    embedder.backbone.packing = Packing(packing.longest, packing.kernel)
    np.testing.assert_allclose(found, embedder.encode_documents(TEXTS), atol=1e-6)


@needs_functions
@pytest.mark.parametrize(("pooling", "attention"), VARIANTS)
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral"])
def test_every_variant_in_int8_has_the_vectors_of_lean_layers(
    base_folder: dict[str, Path],
    fast: Callable[..., Embedder],
    architecture: str,
    pooling: str,
    attention: str,
) -> None:
    embedder = fast(base_folder[architecture], pooling, attention)
    assert embedder.is_int8 and embedder.backbone.is_fused
    assert embedder.compiler is None
    found = embedder.encode_documents(TEXTS)
    np.testing.assert_allclose(found, unfused(embedder).encode_documents(TEXTS), atol=2e-2)


@needs_functions
def test_long_texts_are_left_to_torchs_attention(
    base_folder: dict[str, Path], fast: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = fast(base_folder["llama"])
    short = embedder.encode_documents(TEXTS)
    calls: list[int] = []

    def count(*given: Any, **named: Any) -> Any:
        calls.append(1)
        return packed_attention(*given, **named)

    monkeypatch.setattr("embedder.engine.fused.packed_attention", count)
    embedder.encode_documents(TEXTS)
    before = len(calls)
    monkeypatch.setattr("embedder.engine.fused._LONGEST_ATTENDED", 3)
    np.testing.assert_allclose(embedder.encode_documents(TEXTS), short, atol=5e-3)
    assert len(calls) == before + 4  # one a layer


@needs_functions
def test_a_text_has_one_vector_in_every_batch(
    base_folder: dict[str, Path], fast: Callable[..., Embedder]
) -> None:
    embedder = fast(base_folder["llama"])
    together = embedder.encode_documents(TEXTS)
    alone = np.concatenate([embedder.encode_documents([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)


@needs_functions
def test_another_activation_is_left_to_lean_layers(
    base_folder: dict[str, Path], fast: Callable[..., Embedder]
) -> None:
    lean = quantized(tiny(hidden_act="gelu"))
    assert fused_int8_layers(lean) == fused_layers(lean) == ()
    assert fused_int8_layers([LeanLayer(block) for block in tiny().layers]) == ()  # not int8
    assert fused_int8_layers([]) == fused_layers([]) == ()
    gemma = fast(base_folder["gemma3"])
    assert gemma.is_int8 and not gemma.backbone.is_fused
    assert gemma.compiler is not None


@needs_functions
def test_no_second_openmp_library_is_loaded() -> None:
    """Two would keep twice as many threads spinning as there are cores."""
    script = (
        "import torch\n"
        "from pathlib import Path\n"
        "from embedder.engine.fused_build import load_functions\n"
        "load_functions()\n"
        "maps = Path('/proc/self/maps').read_text().splitlines()\n"
        "print(*sorted({line.split()[-1] for line in maps if 'omp' in line and '.so' in line}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    libraries = [Path(path).name for path in done.stdout.split()]
    assert len([name for name in libraries if "gomp" in name or "iomp" in name]) == 1, libraries


class TestBuild:
    """In a cache folder and process state of its own."""

    @pytest.fixture(autouse=True)
    def anew(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setattr(fused_build, "load_functions", load_functions.__wrapped__)

    @staticmethod
    def build() -> ctypes.CDLL:
        return fused_build.load_functions()

    @staticmethod
    def kept(tmp_path: Path) -> list[Path]:
        return sorted((tmp_path / "cache").rglob("*.so"))

    @needs_functions
    def test_it_is_compiled_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.build()
        [library] = self.kept(tmp_path)
        commands: list[str] = []
        run = fused_build._run
        monkeypatch.setattr(
            fused_build, "_run", lambda command: commands.append(command[-1]) or run(command)
        )
        self.build()
        assert commands == ["--version"]
        assert self.kept(tmp_path) == [library]

    @needs_functions
    def test_a_damaged_file_is_made_again(self, tmp_path: Path) -> None:
        key = self.kept(tmp_path)
        assert key == []
        self.build()
        [library] = self.kept(tmp_path)
        whole = library.read_bytes()
        library.unlink()  # a loaded file is not to be written over
        library.write_bytes(whole[:100])
        self.build()
        assert library.read_bytes()[:100] == whole[:100]
        assert library.stat().st_size > 1000

    @needs_functions
    def test_a_cache_that_cannot_be_written_costs_only_time(self, tmp_path: Path) -> None:
        (tmp_path / "cache").write_text("a file in its place")
        self.build()

    @needs_functions
    def test_flags_and_cpu_are_part_of_the_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.build()
        monkeypatch.setattr(fused_build, "_cpu", lambda: "another")
        self.build()
        assert len(self.kept(tmp_path)) == 2

    @pytest.mark.parametrize(
        ("compiler", "message"),
        [
            ("/nonexistent/cc", "no C compiler '/nonexistent/cc'"),
            ("false", "false ended with 1: no message"),
        ],
    )
    def test_without_a_compiler(
        self,
        base_folder: dict[str, Path],
        fast: Callable[..., Embedder],
        monkeypatch: pytest.MonkeyPatch,
        compiler: str,
        message: str,
    ) -> None:
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            pytest.skip("tells of the platform first")
        monkeypatch.setenv("CC", compiler)
        with pytest.raises(BuildError, match=message):
            self.build()
        for module in ("fused", "fused_int8"):
            monkeypatch.setattr(f"embedder.engine.{module}.load_functions", self.build)
        notes: list[str] = []
        embedder = fast(base_folder["llama"], notify=notes.append)
        assert embedder.is_int8 and not embedder.backbone.is_fused
        assert embedder.compiler is not None
        assert notes == [f"speed fast: {message}; so layers are not fused, and slower."]
        assert np.isfinite(embedder.encode_documents(TEXTS)).all()

    def test_a_compiler_that_refuses_the_source_is_quoted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            pytest.skip("tells of the platform first")
        refuses = tmp_path / "cc"
        refuses.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "no -O3" >&2\nexit 4\n')
        refuses.chmod(0o755)
        monkeypatch.setenv("CC", str(refuses))
        with pytest.raises(BuildError, match="ended with 4: no -O3"):
            self.build()
        assert self.kept(tmp_path) == []

    def test_other_platforms(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(platform, "machine", lambda: "aarch64")
        with pytest.raises(BuildError, match="only for Linux on x86-64, not linux on aarch64"):
            monkeypatch.setattr(sys, "platform", "linux")
            self.build()


@needs_functions
def test_fused_layers_that_differ_are_not_used(
    base_folder: dict[str, Path], fast: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 by more than 1e-4 of what a layer changes, and in int8."""

    class Other(FusedLayer):
        def compute(self, states: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
            return states + (super().compute(states, turns) - states) * 1.001

    with monkeypatch.context() as changed:
        changed.setattr("embedder.engine.fused.FusedLayer", Other)
        layers = load(base_folder["llama"]).backbone.packing.layers
        assert {type(layer) for layer in layers} == {LeanLayer}
    monkeypatch.setattr("embedder.engine.speed.layers_agree", lambda *given: False)
    notes: list[str] = []
    embedder = fast(base_folder["llama"], notify=notes.append)
    assert not embedder.backbone.is_fused
    assert notes == ["speed fast: fused layers differ from the base's own; going on without."]


@needs_functions
def test_an_adapter_that_is_added_later_counts(
    base_folder: dict[str, Path], adapt: Callable[[Embedder], None]
) -> None:
    """And with gradients the base's own layers run."""
    embedder = load(base_folder["llama"])
    before = embedder.encode_documents(TEXTS)
    adapt(embedder)
    assert embedder.backbone.is_fused
    found = embedder.encode_documents(TEXTS)
    assert np.abs(found - before).max() > 1e-2
    batch = PackedBatch.of([[5, 6, 7, 8], [9, 10]], CPU)
    graphed = embedder.backbone.packed_states(batch)
    assert graphed.requires_grad
    with torch.inference_mode():
        plain = embedder.backbone.packed_states(batch)
    torch.testing.assert_close(graphed.detach(), plain, atol=1e-5, rtol=1e-4)
    embedder.packs = False
    np.testing.assert_allclose(found, embedder.encode_documents(TEXTS), atol=1e-5)


@needs_functions
def test_under_autocast_the_blocks_own_layers_run(
    base_folder: dict[str, Path], fast: Callable[..., Embedder]
) -> None:
    """Rounded from bfloat16, the largest input of a row would become 128, which int8 lacks."""
    embedder = fast(base_folder["llama"])
    before = embedder.encode_documents(TEXTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = embedder.encode_documents(TEXTS)
    assert (found * before).sum(axis=1).min() > 0.99


@pytest.mark.parametrize(
    ("device", "has_vnni", "error", "expected"),
    [
        ("cuda", True, None, ("torch's own layers", "compiled layers in long runs")),
        ("cpu", False, None, ("fused layers", "fused layers (int8 needs VNNI)")),
        ("cpu", True, None, ("fused layers", "fused layers, int8")),
        (
            *("cpu", True, "no C compiler 'cc'"),
            (
                "torch's own layers (no C compiler 'cc')",
                "torch's own layers (no C compiler 'cc'), int8",
            ),
        ),
    ],
)
def test_what_the_speeds_do_on_a_machine(
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    has_vnni: bool,
    error: str | None,
    expected: tuple[str, str],
) -> None:
    def load() -> None:
        if error is not None:
            raise BuildError(error)

    monkeypatch.setattr("embedder.engine.speed.cpu_has_vnni", lambda: has_vnni)
    monkeypatch.setattr("embedder.engine.speed.load_functions", load)
    assert describe_speeds(torch.device(device)) == expected
