"""All comparisons on a GPU in one command: tokens a second and MFU, against what others do.

    python -m benchmarks.lab.speed.gpu --out gpu.json
    python -m benchmarks.lab.speed.gpu --out gpu.json --quick     # tiny shapes: does it run at all?

Shapes: smollm2-135m (its weights where they are in the cache or named by ``--base``, else random
ones) and random Llamas of 0.5B and 7B, in bfloat16, mean+causal. MFU is the operations of the
layers (2 a weight and token, and attention's under a causal mask) over the card's own peak at
bfloat16 matrix products, measured first. "Naive" is transformers with the same weights, batches of
64 in input order, all hidden states kept. Contestants take turns, and ratios are taken within
rounds. What would not fit in ``--seconds`` is left out, and a line says so.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.lab.speed.gpu_models import SHAPES, TINY, find_base
from benchmarks.lab.speed.gpu_parts import measure_shape
from benchmarks.lab.speed.gpu_run import Config, Run
from benchmarks.lab.speed.gpu_tables import Results
from benchmarks.lab.speed.gpu_work import matmul_peak
from benchmarks.lab.speed.interleaved import say
from benchmarks.scoring.optional import read_versions
from embedder.environment import choose_device
from retrieval.errors import MillpondError

_ORDER = ("smollm2-135m", "llama-7b", "llama-0.5b")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all comparisons, write the JSON and print the tables; return the exit code."""
    config = _parse(arguments)
    try:
        device = choose_device(config.device)
        base = find_base("smollm2-135m", config.base)
    except MillpondError as error:
        say(f"error: {error}")
        return 1
    run = Run(config, device, Results(describe(device)))
    sizes = (256,) if config.is_tiny else (8192, 16_384)
    run.results.peak_flops = matmul_peak(device, run.dtype, sizes)
    run.save()
    for name in config.shapes:
        shape = (TINY if config.is_tiny else SHAPES)[name]
        weights = base if name == "smollm2-135m" and not config.is_tiny else None
        run.attempt(name, 0.01 * config.seconds, partial(measure_shape, run, shape, weights))
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    run.results.machine["seconds"] = round(time.perf_counter() - run.began)
    run.save()
    print(run.results.to_markdown())
    return 1 if run.has_failed else 0


def describe(device: torch.device) -> dict[str, Any]:
    """Return the machine and the versions that matter."""
    found: dict[str, Any] = {"processor": platform.processor() or platform.machine()}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found = {
            "device": properties.name,
            "memory GiB": round(properties.total_memory / 2**30),
            "CUDA": torch.version.cuda,
        }
    found["cores"] = os.cpu_count()
    if hasattr(os, "getloadavg"):
        found["load"] = round(os.getloadavg()[0], 1)
    return found | read_versions("torch", "transformers", "sentence-transformers", "flash-attn")


def _parse(arguments: Sequence[str] | None) -> Config:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--seconds", type=float, default=540.0, help="of the whole run, about")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, as on a CPU")
    parser.add_argument("--device", help="cuda where there is one")
    parser.add_argument("--base", type=Path, help="a folder with smollm2-135m for transformers")
    parser.add_argument("--shapes", nargs="+", choices=_ORDER, default=list(_ORDER))
    return Config(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    raise SystemExit(main())
