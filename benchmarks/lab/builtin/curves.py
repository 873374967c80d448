"""Draws how several training runs learned: their scores on dev sets against the texts they saw.

    python -m benchmarks.lab.builtin.curves RUN [RUN ...] --texts-per-step 96 --out curves.svg

A RUN is a folder of ``millpond train``, named after what it tries; ``evaluate.sts`` and
``evaluate.beir`` of its config made the scores. Runs are drawn up to where the shortest one ends.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

PANELS = {"sts": "STS-B dev, Spearman", "ndcg": "SciFact train claims, nDCG@10"}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # told apart without red or green as well
WIDTH, HEIGHT, LEFT, TOP = 300, 190, 44, 26

Curve = list[tuple[float, float]]


def read_scores(run: Path, texts_per_step: int) -> dict[str, Curve]:
    """Return the points (texts seen, score) of a run for each of ``PANELS``."""
    found: dict[str, Curve] = {name: [] for name in PANELS}
    for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        for name in PANELS.keys() & entry.keys():
            found[name].append((entry["step"] * texts_per_step, entry[name]))
    return found


def draw(runs: Mapping[str, Mapping[str, Curve]]) -> str:
    """Return an SVG with a panel for each score and a line for each run."""
    width = len(PANELS) * (WIDTH + LEFT) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT + TOP + 44}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (name, title) in enumerate(PANELS.items()):
        curves = {run: found[name] for run, found in runs.items()}
        parts += _draw_panel(curves, title, number * (WIDTH + LEFT) + LEFT)
    for number, run in enumerate(runs):
        x, y = LEFT + 110 * number, HEIGHT + TOP + 36
        parts.append(f'<path d="M{x} {y - 4}h18" stroke="{COLOURS[number]}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 23}" y="{y}">{run}</text>')
    return "\n".join([*parts, "</svg>\n"])


def _draw_panel(curves: Mapping[str, Curve], title: str, left: float) -> list[str]:
    end = min(curve[-1][0] for curve in curves.values())
    cut = {run: [point for point in curve if point[0] <= end] for run, curve in curves.items()}
    scores = [score for curve in cut.values() for _, score in curve]
    low, high = min(scores), max(scores)

    def place(texts: float, score: float) -> tuple[float, float]:
        share = (score - low) / (high - low) if high > low else 0.5
        return left + WIDTH * 0.94 * texts / end, TOP + HEIGHT * (1 - share)

    parts = [f'<text x="{left}" y="14" font-weight="bold">{title}</text>']
    for score in (low, (low + high) / 2, high):
        _, y = place(0, score)
        parts.append(f'<path d="M{left} {y:.1f}h{WIDTH * 0.94:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{score:.2f}</text>')
    for texts in (0, end / 2, end):
        x, _ = place(texts, low)
        parts.append(
            f'<text x="{x:.1f}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{texts:,.0f}</text>'
        )
    for (_, curve), colour in zip(cut.items(), COLOURS, strict=False):
        points = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in curve)
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    return parts


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the figure and print the scores; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--texts-per-step", type=int, default=96)
    parser.add_argument("--out", type=Path, required=True, help="an .svg file")
    options = parser.parse_args(arguments)
    runs = {run.name: read_scores(run, options.texts_per_step) for run in options.runs}
    options.out.write_text(draw(runs), encoding="utf-8")
    for name, found in runs.items():
        for texts in (point[0] for point in found["sts"]):
            scores = (f"{score} {dict(found[score])[texts]:.4f}" for score in PANELS)
            print(f"{name}, {texts:,} texts: {', '.join(scores)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
