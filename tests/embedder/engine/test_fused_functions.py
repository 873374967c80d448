"""The functions of fused.c, each against what torch makes of the same numbers, over two threads."""

import pytest
import torch
from torch import Tensor, nn

from embedder.engine.fused import load_functions
from embedder.engine.hadamard import hadamard
from embedder.engine.packing import GROUPS, PackedBatch, Pattern

pytestmark = pytest.mark.usefixtures("each_library")

CPU = torch.device("cpu")
NO_OFFSET = 0  # a null pointer: no bias, no gains


@pytest.fixture(params=[1, 5, 8])
def n(request):
    torch.manual_seed(request.param)
    return int(request.param)


def call(name, *values, scratch=0):
    pointers = (v.data_ptr() if isinstance(v, Tensor) else v for v in values)
    memory = torch.full((2, scratch), float("nan"))
    own = (memory.data_ptr(), scratch) if scratch else ()
    getattr(load_functions(), name)(*pointers, *own, 2)


def rows_of(n, width):
    return torch.full((n, width), 99, dtype=torch.int8), torch.empty(n, 1)


def sums_of(n, width):
    return (
        torch.randint(-60_000, 60_000, (n, width), dtype=torch.int32),
        torch.rand(n, 1) * 0.01 + 0.001,
        torch.rand(1, width) * 0.01 + 0.001,
    )


UNSURE = 127 * 8 * 16 * 2**-24
"""How far from a tie, in steps, float32 can still take the other side.

A row is rounded to 127 steps. Rotating 64 numbers sums up to 8 times the largest result, and the 16
or so roundings of the norm, the rotation and the scale each err by 2^-24 of that.
"""


def assert_rounded(found, expected):
    """Compare int8 rows and scales with the float64 rows (n, width) that they stand for."""
    steps, scales = found
    exact_scales = expected.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127
    torch.testing.assert_close(scales.double(), exact_scales, rtol=1e-5, atol=0)
    assert (steps - expected / exact_scales).abs().max() <= 0.5 + UNSURE


def normed(states, gains, epsilon):
    """Return rows over their root mean square, times gains, in float64."""
    states = states.double()
    return states * (states.square().mean(-1, keepdim=True) + epsilon).rsqrt() * gains


def rotated(rows, block):
    """Return float64 rows, each block times the Hadamard matrix."""
    matrix = torch.from_numpy(hadamard(block)).sign().double() / block**0.5
    return (rows.double().view(-1, block) @ matrix).view(rows.shape)


@pytest.mark.parametrize(("width", "block"), [(576, 64), (64, 64), (48, 16), (40, 8), (7, 1)])
def test_norm(n, width, block):
    states, gains = torch.randn(n, width) * 3, torch.rand(width) + 0.5
    states[:, 0] *= 50
    found = rows_of(n, width)
    call("millpond_norm", states, gains, 1e-3, block, n, width, *found, scratch=width)
    assert_rounded(found, rotated(normed(states, gains, 1e-3), block))


def test_zeros_stay_zeros():
    found = rows_of(2, 64)
    call("millpond_round", torch.zeros(2, 64), 2, 64, *found)
    assert not found[0].any()
    assert torch.isfinite(found[1]).all()


def test_round(n):
    values = torch.randn(n, 100)
    found = rows_of(n, 100)
    call("millpond_round", values, n, 100, *found)
    assert_rounded(found, values.double())
    assert (found[0].abs().amax(1) == 127).all()


@pytest.mark.parametrize("has_bias", [False, True])
def test_add_and_norm(n, has_bias):
    width = 192
    states, gains = torch.randn(n, width), torch.rand(width) + 0.5
    sums, rows, columns = sums_of(n, width)
    bias = torch.randn(width) if has_bias else NO_OFFSET
    expected = states + sums.float() * rows * columns + bias
    after, alone, found = torch.empty(n, width), states.clone(), rows_of(n, width)
    scaled = (sums, rows, columns, bias)
    call(
        "millpond_add_norm",
        states,
        *scaled,
        gains,
        1e-5,
        64,
        n,
        width,
        after,
        *found,
        scratch=width,
    )
    torch.testing.assert_close(after, expected)
    assert_rounded(found, rotated(normed(after, gains, 1e-5), 64))
    call("millpond_add", alone, *scaled, n, width, alone)  # in place
    torch.testing.assert_close(alone, expected)


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("has_gains", [False, True])
def test_heads(n, has_bias, has_gains):
    heads, key_heads, width = 3, 2, 16
    every = (heads + 2 * key_heads) * width
    sums, rows, columns = sums_of(n, every)
    bias = torch.randn(every) if has_bias else NO_OFFSET
    gains = [torch.rand(width) + 0.5 for _ in range(2)] if has_gains else [NO_OFFSET] * 2
    cos, sin = torch.randn(2, n, width)
    found = [torch.empty(n, count, width) for count in (heads, key_heads, key_heads)]
    call(
        *("millpond_heads", sums, rows, columns, bias, *gains, 1e-3, cos, sin),
        *(n, heads, key_heads, width, *found),
    )
    floats = (sums.float() * rows * columns + bias).view(n, -1, width)
    parts = torch.split(floats, [heads, key_heads, key_heads], dim=1)
    for part, own, gain in zip(found, parts, [*gains, None], strict=True):
        expected = own if gain is None else rotated_by_position(own, gain, cos, sin)
        torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-4)


def rotated_by_position(heads, gains, cos, sin):
    """QK-norm of (n, heads, width) where there are gains, then RoPE."""
    if isinstance(gains, Tensor):
        heads = normed(heads, gains, 1e-3).float()
    first, second = heads.chunk(2, dim=-1)
    return heads * cos[:, None] + torch.cat([-second, first], -1) * sin[:, None]


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize(("width", "block"), [(128, 64), (48, 16)])
def test_swiglu(n, has_bias, width, block):
    """Gates reach -600 and 600, where e to their power is no float32."""
    sums, rows, columns = sums_of(n, 2 * width)
    bias = torch.randn(2 * width) if has_bias else NO_OFFSET
    found = rows_of(n, width)
    call("millpond_swiglu", sums, rows, columns, bias, block, n, width, *found, scratch=2 * width)
    gates, ups = (sums.double() * rows * columns + bias).chunk(2, dim=1)
    assert_rounded(found, rotated(nn.functional.silu(gates) * ups, block))


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize(("heads", "key_heads", "width"), [(6, 2, 64), (2, 2, 16), (3, 1, 80)])
def test_attend(is_causal, heads, key_heads, width):
    """Lengths around the 8 queries and 16 columns that are computed together."""
    torch.manual_seed(0)
    lengths = [40, 33, 32, 31, 17, 16, 15, 9, 8, 8, 7, 2, 1]
    batch = PackedBatch.of([[1] * length for length in lengths], CPU)
    n = sum(lengths)
    queries = torch.randn(n, heads, width) * 3
    keys, values = torch.randn(2, n, key_heads, width)
    found = torch.full((n, heads, width), float("nan"))
    call(
        *("millpond_attend", queries, keys, values, batch.offsets, len(lengths)),
        *(heads, key_heads, width, 0.2, int(is_causal), found),
        scratch=(width + 8) * 48,
    )
    parts = (each.transpose(0, 1)[None] for each in (queries, keys, values))
    [expected] = GROUPS.run(*parts, batch, Pattern(is_causal, 0.2))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_is_not_finite_stays_so():
    """A model that gives NaN is to be told from one that does not."""
    sums = torch.zeros(3, 64, dtype=torch.int32)
    states, ones = torch.zeros(3, 64), torch.ones(64)
    states[0, 5], states[1, 5] = float("nan"), float("inf")
    found, after = rows_of(3, 64), torch.empty(3, 64)
    call(
        *("millpond_add_norm", states, sums, torch.ones(3), ones, NO_OFFSET, ones, 1e-5),
        *(64, 3, 64, after, *found),
        scratch=64,
    )
    assert torch.isfinite(after).all(dim=1).tolist() == [False, False, True]
