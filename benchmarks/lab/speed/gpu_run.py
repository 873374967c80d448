"""One run of the GPU comparisons: where it runs, until when, and what it has found so far."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.lab.speed.gpu_models import LONGEST_TOKENS
from benchmarks.lab.speed.gpu_tables import Results
from benchmarks.lab.speed.interleaved import say
from embedder.engine.budget import is_out_of_memory
from retrieval.errors import MillpondError

__all__ = ["Config", "Run"]


@dataclass(frozen=True)
class Config:
    """What is run; see ``--help``."""

    out: Path
    seconds: float
    quick: bool
    device: str | None
    base: Path | None
    shapes: list[str]

    @property
    def is_tiny(self) -> bool:
        """Whether the tiny shapes stand in for the real ones."""
        return self.quick or self.device == "cpu" or not torch.cuda.is_available()


@dataclass
class Run:
    """One run of the command: where, until when, and what was found."""

    config: Config
    device: torch.device
    results: Results
    began: float = field(default_factory=time.perf_counter)
    has_failed: bool = False

    @property
    def dtype(self) -> torch.dtype:
        """bfloat16 on a GPU; a CPU may take minutes for that."""
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    @property
    def turn_seconds(self) -> float:
        """About how long one contestant works in one round."""
        return 0.05 if self.config.is_tiny else 1.0

    @property
    def longest(self) -> int:
        """Of all texts, in tokens."""
        return 64 if self.config.is_tiny else LONGEST_TOKENS

    @property
    def seconds_left(self) -> float:
        """Until the time asked for is over."""
        return self.config.seconds - (time.perf_counter() - self.began)

    def attempt(self, name: str, seconds: float, part: Callable[[], None]) -> None:
        """Do a part that takes about so long; leave it out, with a line, if that cannot be."""
        if self.seconds_left < seconds:
            self.skip(f"{name}: {self.seconds_left:.0f} s are left, about {seconds:.0f} are needed")
            return
        try:
            part()
        except MillpondError as error:
            self.skip(f"{name}: {error}")
        except Exception as error:  # the other parts are worth having all the same
            if not is_out_of_memory(error):
                traceback.print_exc()
                self.has_failed = True
            self.skip(f"{name}: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
        self.save()

    def skip(self, line: str) -> None:
        """Take note of what was left out."""
        say(f"left out: {line}")
        self.results.skipped.append(line)

    def save(self) -> None:
        """Write what was measured so far, so that a stopped run leaves it behind."""
        self.config.out.write_text(json.dumps(self.results.to_json(), indent=1) + "\n")
