"""What a score costs: time, memory, parameters, the arithmetic of the pooling."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import psutil

if TYPE_CHECKING:
    from embedder import Embedder

FLOP_TOKENS = 128
_SAMPLE_SECONDS = 0.05
_LATENCY_TEXTS = 100


class PeakMemory:
    """Samples how much memory this process holds while the block runs.

    On a GPU, what torch had allocated there; else the resident size, every 50 ms.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.bytes = 0
        self._cuda: Any = sys.modules["torch"].cuda if device.startswith("cuda") else None
        self._process = psutil.Process()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        if self._cuda is not None:
            self._cuda.reset_peak_memory_stats()
        else:
            self._sample()
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._cuda is not None:
            self.bytes = int(self._cuda.max_memory_allocated())
            return
        self._done.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._done.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        self.bytes = max(self.bytes, int(self._process.memory_info().rss))


def resident_bytes() -> int:
    """Return how much memory this process holds now."""
    return int(psutil.Process().memory_info().rss)


def measure_latency(search: Callable[[str], object], texts: Sequence[str]) -> dict[str, float]:
    """Return "query_p50_seconds" and "query_p95_seconds" of up to 100 texts searched alone.

    The first text is searched once before, unmeasured.
    """
    chosen = texts[:_LATENCY_TEXTS]
    if not chosen:
        return {}
    search(chosen[0])
    seconds = []
    for text in chosen:
        started = time.perf_counter()
        search(text)
        seconds.append(time.perf_counter() - started)
    return {
        "query_p50_seconds": float(np.percentile(seconds, 50)),
        "query_p95_seconds": float(np.percentile(seconds, 95)),
    }


def count_parameters(embedder: Embedder) -> int:
    """Return the number of learned parameters in the layers that are kept."""
    return sum(parameter.numel() for parameter in embedder.parameters())


def pooling_flops(embedder: Embedder) -> int:
    """Return the arithmetic operations of pooling one text of 128 tokens, without the base's.

    Counted while the pooling runs: two operations for each multiply-add of a matrix product, one
    for each element of any other pointwise operation or reduction; moving data counts nothing. A
    pooling over layers reads one state a layer, which the base's hooks have already reduced.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from embedder.pooling.registry import POOLINGS

    spec = embedder.spec
    causal = embedder.backbone.attention.is_causal
    reads = POOLINGS[spec.pooling].reads(causal, spec.pooling_options)
    depth = len(spec.pooling_options.layers or range(embedder.backbone.layer_count))
    rows = {"tokens": FLOP_TOKENS, "eos": 1, "layers": depth}[reads]
    states = torch.ones(1, rows, embedder.backbone.width, device=embedder.device)
    mask = torch.ones(1, rows, dtype=torch.bool, device=embedder.device)
    counter = flop_counter()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        embedder.pooling(states, mask)
    return int(counter.flops)


def flop_counter() -> Any:
    """Return a context that adds up the operations that torch runs within it."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    reductions = {"sum", "mean", "amax", "max", "norm", "_softmax", "cumsum", "var_mean"}
    reductions |= {"linalg_vector_norm", "native_layer_norm", "logsumexp", "prod"}
    moving = {"where", "clone", "_to_copy", "copy_", "masked_fill", "fill", "zero_", "fill_"}

    class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
        flops = 0

        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = kwargs or {}
            result = function(*args, **kwargs)
            packet = function.overloadpacket
            name = packet.__name__
            if packet in flop_registry:
                self.flops += flop_registry[packet](*args, **kwargs, out_val=result)
            elif name in reductions and _floats(args[0]):
                self.flops += args[0].numel()
            elif torch.Tag.pointwise in function.tags and name not in moving and _floats(result):
                self.flops += result.numel()
            return result

    def _floats(value: Any) -> bool:
        return isinstance(value, torch.Tensor) and value.is_floating_point()

    return Counter()  # type: ignore[no-untyped-call]
