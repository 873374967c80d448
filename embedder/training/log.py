"""metrics.jsonl and loss.svg: what a run says about itself while it goes."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedder.training.curve import draw_curve
from retrieval.disk import replace_file
from retrieval.errors import StorageError

__all__ = ["MetricsLog", "Meter", "StepReport"]


@dataclass(frozen=True)
class StepReport:
    """One finished step.

    Attributes
    ----------
    step : 1 for the first one.
    loss, pairs_per_second, tokens_per_second : over the steps since the last logged one.
    gradient_norm : of this step, before it was shortened.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    gradient_norm: float
    pairs_per_second: float
    tokens_per_second: float
    eta_seconds: float

    def line(self) -> dict[str, float]:
        """Return the entry for metrics.jsonl."""
        return {
            "step": self.step,
            "loss": round(self.loss, 6),
            "lr": self.learning_rate,
            "grad_norm": round(self.gradient_norm, 6),
            "pairs_per_second": round(self.pairs_per_second, 2),
            "tokens_per_second": round(self.tokens_per_second, 1),
            "eta_seconds": round(self.eta_seconds, 1),
        }


@dataclass
class Meter:
    """Sums over the steps since the last logged one."""

    losses: list[float] = field(default_factory=list)
    pairs: int = 0
    tokens: int = 0
    started: float = field(default_factory=time.monotonic)

    def add(self, loss: float, pairs: int, tokens: int) -> None:
        """Count one step."""
        self.losses.append(loss)
        self.pairs += pairs
        self.tokens += tokens

    def report(self, step: int, steps: int, learning_rate: float, norm: float) -> StepReport:
        """Return the rates so far."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        return StepReport(
            step,
            steps,
            sum(self.losses) / len(self.losses),
            learning_rate,
            norm,
            self.pairs / seconds,
            self.tokens / seconds,
            (steps - step) * seconds / len(self.losses),
        )


class MetricsLog:
    """Appends to OUT/metrics.jsonl, and draws OUT/loss.svg from it.

    Parameters
    ----------
    step : the step that a run goes on from; entries after it are dropped.

    Raises
    ------
    StorageError : a file cannot be written.
    """

    def __init__(self, out: Path, step: int) -> None:
        self._path = out / "metrics.jsonl"
        self._curve = out / "loss.svg"
        self._points: list[tuple[int, float]] = []
        kept = []
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:  # a line that a kill cut off
                    continue
                if entry["step"] <= step:
                    kept.append(line)
                    self._note(entry)
        replace_file(self._path, "".join(f"{line}\n" for line in kept).encode())

    def append(self, entry: Mapping[str, Any]) -> None:
        """Add one line."""
        self._note(entry)
        try:
            with self._path.open("a") as stream:
                stream.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise StorageError(
                f"{self._path}: cannot be written ({error.strerror}). Free some space and run "
                f"again with --resume."
            ) from error

    def draw(self) -> None:
        """Write the loss curve so far."""
        if self._points:
            replace_file(self._curve, draw_curve(self._points).encode())

    def _note(self, entry: Mapping[str, Any]) -> None:
        if "loss" in entry:
            self._points.append((int(entry["step"]), float(entry["loss"])))
