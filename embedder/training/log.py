"""metrics.jsonl, loss.svg and agreement.svg: the record of a run while it goes on."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retrieval.disk import replace_file
from retrieval.errors import StorageError

_WIDTH, _HEIGHT = 640, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 28, 36
_MOST_POINTS = 600

_AGREEMENT = "teacher_spearman"

_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#555}"
    ".grid{stroke:#8884}.line{fill:none;stroke:#1565c0;stroke-width:1.5}"
    "@media(prefers-color-scheme:dark){text{fill:#bbb}.line{stroke:#64b5f6}}"
)


def draw_curve(points: Sequence[tuple[int, float]], title: str = "training loss") -> str:
    """Return an SVG document of (step, value) points, at least one, in the order of steps."""
    shown = points[:: max(1, math.ceil(len(points) / _MOST_POINTS))]
    if shown[-1] != points[-1]:
        shown = [*shown, points[-1]]
    last_step = max(points[-1][0], 1)
    top = max(value for _, value in shown) * 1.05 or 1.0

    def place(step: float, value: float) -> tuple[float, float]:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / last_step
        y = _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / top
        return x, y

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'role="img" aria-label="{title} over {last_step} steps">',
        f"<style>{_STYLE}</style>",
        f'<text x="{_LEFT}" y="16">{title}</text>',
    ]
    for value in _ticks(top):
        y = place(0, value)[1]
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for step in _ticks(last_step):
        x = place(step, 0)[0]
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{step:g}</text>')
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in shown))
    parts.append(f'<polyline class="line" points="{line}"/>')
    return "\n".join([*parts, "</svg>\n"])


def _ticks(top: float) -> list[float]:
    """Return 0 and up to five round values below ``top``."""
    raw = top / 5
    power = 10.0 ** math.floor(math.log10(raw))
    unit = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    return [round(unit * index, 10) for index in range(int(top / unit) + 1)]


@dataclass(frozen=True)
class StepReport:
    """One finished step.

    Attributes
    ----------
    step : 1 for the first one.
    loss, pairs_per_second, tokens_per_second : over the steps since the last logged one.
    gradient_norm : of this step, before clipping.
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


_NO_ENTRY = (ValueError, TypeError, KeyError, OverflowError, RecursionError)


class MetricsLog:
    """Appends to OUT/metrics.jsonl, and draws OUT/loss.svg and OUT/agreement.svg from it.

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
        self._agreement = out / "agreement.svg"
        self._points: list[tuple[int, float]] = []
        self._agreed: list[tuple[int, float]] = []
        kept = []
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    if entry["step"] <= step:
                        self._note(entry)
                        kept.append(line)
                except _NO_ENTRY:  # a line that a kill cut off
                    continue
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
        """Write the curves so far: the loss, and the agreement with a teacher, if any."""
        if self._points:
            replace_file(self._curve, draw_curve(self._points).encode())
        if self._agreed:
            title = "agreement with the teacher (Spearman)"
            replace_file(self._agreement, draw_curve(self._agreed, title).encode())

    def _note(self, entry: Mapping[str, Any]) -> None:
        if "loss" in entry:
            self._points.append((int(entry["step"]), float(entry["loss"])))
        if _AGREEMENT in entry:
            self._agreed.append((int(entry["step"]), float(entry[_AGREEMENT])))
