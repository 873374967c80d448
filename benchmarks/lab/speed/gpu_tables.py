"""The results of a run on a GPU, as Markdown for people and JSON for machines."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from benchmarks.lab.speed.interleaved import Timings, format_table, ratios, spread

__all__ = ["NAIVE", "OURS", "PADDED", "Measurement", "Results"]

OURS = "millpond"
PADDED = "millpond padded"
NAIVE = "naive, batches of 64"


@dataclass(frozen=True)
class Measurement:
    """One shape at one length.

    Attributes
    ----------
    texts, tokens, flops : of the whole work.
    batch_tokens : the most tokens in one of our batches.
    lowest_cosine : between our vectors and the naive ones, over some texts.
    """

    shape: str
    length: str
    texts: int
    tokens: int
    flops: float
    batch_tokens: int
    timings: Timings
    lowest_cosine: float

    def rate(self, name: str) -> float:
        """Return tokens per second, the median of all rounds; 0 if it was not run."""
        seconds = self.timings.seconds.get(name)
        return self.tokens / statistics.median(seconds) if seconds else 0.0

    def ratio(self, against: str) -> str:
        """Return our speed over that of another contestant, with the lowest and highest round."""
        if against not in self.timings.seconds:
            return "-"
        return spread(ratios(self.timings, OURS, against))

    def mfu(self, name: str, peak: float) -> float:
        """Return the share of the card's measured matrix-product peak that is reached."""
        return self.rate(name) * self.flops / self.tokens / peak


@dataclass
class Results:
    """What was measured, and what was left out and why."""

    machine: dict[str, Any]
    peak_flops: float = 0.0
    measurements: list[Measurement] = field(default_factory=list)
    against: dict[str, tuple[Timings, int]] = field(default_factory=dict)
    packing: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON can hold it; ``seconds`` has one entry per round."""
        return {
            "machine": self.machine,
            "matmul_peak_tflops": self.peak_flops / 1e12,
            "packing": self.packing,
            "lengths": [
                {
                    "shape": cell.shape,
                    "length": cell.length,
                    "texts": cell.texts,
                    "tokens": cell.tokens,
                    "flops": cell.flops,
                    "batch_tokens": cell.batch_tokens,
                    "lowest_cosine": cell.lowest_cosine,
                    "seconds": cell.timings.seconds,
                    "tokens_per_second": {name: cell.rate(name) for name in cell.timings.seconds},
                    "mfu": {name: cell.mfu(name, self.peak_flops) for name in cell.timings.seconds},
                }
                for cell in self.measurements
            ],
            "texts": {
                name: {"tokens": tokens, "seconds": timings.seconds}
                for name, (timings, tokens) in self.against.items()
            },
            "skipped": self.skipped,
        }

    def to_markdown(self) -> str:
        """Return the tables."""
        about = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        peak = f"Matrix-product peak, measured: {self.peak_flops / 1e12:.4g} TFLOP/s"
        lines = [about, "", peak]
        for shape in dict.fromkeys(cell.shape for cell in self.measurements):
            lines += ["", f"**{shape}** (attention: {self.packing.get(shape, '-')})", ""]
            lines += self._lengths(shape)
        for name, (timings, tokens) in self.against.items():
            others = [other for other in timings.seconds if not other.startswith(OURS)]
            lines += ["", f"**{name}** ({tokens} tokens, tokenising included)", ""]
            lines += format_table(timings, tokens, others, {})
        if self.skipped:
            lines += ["", "Left out:", "", *(f"- {line}" for line in self.skipped)]
        return "\n".join(lines)

    def _lengths(self, shape: str) -> list[str]:
        titles = ["length", "tokens/s", "MFU", f"x {PADDED}", f"x {NAIVE}", "naive MFU"]
        rows = [[*titles, "tokens per batch", "lowest cosine"], ["---"] * (len(titles) + 2)]
        cells = [
            cell for cell in self.measurements if cell.shape == shape
        ]  # "mixed" is the longest
        for cell in sorted(cells, key=lambda cell: (len(cell.length), cell.length)):
            rows.append(
                [
                    cell.length,
                    f"{cell.rate(OURS):,.0f}",
                    f"{cell.mfu(OURS, self.peak_flops):.1%}",
                    cell.ratio(PADDED),
                    cell.ratio(NAIVE),
                    f"{cell.mfu(NAIVE, self.peak_flops):.1%}",
                    f"{cell.batch_tokens:,}",
                    f"{cell.lowest_cosine:.5f}",
                ]
            )
        return ["| " + " | ".join(row) + " |" for row in rows]
