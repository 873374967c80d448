"""The charts of a study as SVG inside the page: loss curves, heatmaps, shares, quality and cost.

No chart has a style or a script of its own; classes are those of study.css.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Point = Sequence[float]

_LEVELS = 20
_CURVE_WIDTH, _CURVE_HEIGHT = 240, 120
_BAR_WIDTH, _BAR_HEIGHT = 300, 110
_SCATTER_WIDTH, _SCATTER_HEIGHT = 620, 360
_LABEL_WIDTH, _LABEL_HEIGHT = 60, 14
_LEFT, _BOTTOM, _TOP, _RIGHT = 40, 22, 8, 10


def draw_curves(curves: Sequence[Sequence[Point]], top: float, label: str) -> str:
    """Return one small chart: a line for each seed, all charts up to the same loss."""
    last = max((row[-1][0] for row in curves if row), default=1.0)
    parts = [_open(_CURVE_WIDTH, _CURVE_HEIGHT, "curves", label)]
    parts += _frame(_CURVE_WIDTH, _CURVE_HEIGHT, f"{top:.3g}", "0", "0", f"{last:,.0f}")
    for row in curves:
        places = [
            _place(_CURVE_WIDTH, _CURVE_HEIGHT, step / last, min(loss, top) / top)
            for step, loss in row
        ]
        if len(places) == 1:
            parts.append(_dot(*places[0], 2))
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="curve" points="{points}"/>')
    return "".join([*parts, "</svg>"])


def draw_heatmap(matrix: Sequence[Sequence[float]], label: str) -> str:
    """Return a square of layers x layers, the first layer at the top left, 0 pale and 1 strong."""
    size = len(matrix)
    levels: dict[int, list[str]] = {}
    for y, row in enumerate(matrix):
        for x, value in enumerate(row):
            level = round(max(0.0, min(1.0, value)) * _LEVELS)
            levels.setdefault(level, []).append(f"M{x} {y}h1v1h-1z")
    parts = [_open(size, size, "layers", label)]
    for level, cells in sorted(levels.items()):
        shade, drawn = f"{level / _LEVELS:g}", "".join(cells)
        parts.append(f'<path class="level" fill-opacity="{shade}" d="{drawn}"/>')
    return "".join([*parts, "</svg>"])


def draw_bars(places: Sequence[int], shares: Sequence[float], depth: int, label: str) -> str:
    """Return a bar for each layer that is read, as high as its share; the rest stays empty."""
    top = max(shares)
    parts = [_open(_BAR_WIDTH, _BAR_HEIGHT, "bars", label)]
    parts += _frame(_BAR_WIDTH, _BAR_HEIGHT, f"{100 * top:.1f}%", "0", "layer 1", f"{depth}")
    width = (_BAR_WIDTH - _LEFT - _RIGHT) / depth
    for place, share in zip(places, shares, strict=True):
        x, y = _place(_BAR_WIDTH, _BAR_HEIGHT, (place - 1) / depth, share / top)
        height = _BAR_HEIGHT - _BOTTOM - y
        parts.append(
            f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{0.8 * width:.1f}" '
            f'height="{height:.1f}"><title>layer {place}: {100 * share:.1f}%</title></rect>'
        )
    return "".join([*parts, "</svg>"])


def draw_scatter(points: Mapping[int, tuple[float, float]], x_title: str, y_title: str) -> str:
    """Return numbered points of (cost, quality); the cost on a logarithmic axis.

    Points that are close share one label.
    """
    costs = [math.log10(cost) for cost, _ in points.values()]
    scores = [score for _, score in points.values()]
    left, right = _widen(min(costs), max(costs))
    low, high = _widen(min(scores), max(scores))
    width, height = _SCATTER_WIDTH, _SCATTER_HEIGHT
    parts = [_open(width, height, "scatter", f"{y_title} against {x_title}")]
    ends = f"{high:.3f}", f"{low:.3f}", _power(left), _power(right)
    parts += _frame(width, height, *ends)
    parts.append(
        f'<text x="{width / 2}" y="{height - 6}" text-anchor="middle">{escape(x_title)}</text>'
    )
    labels: dict[tuple[int, int], tuple[float, float, list[int]]] = {}
    for number, (cost, score) in points.items():
        across, up = (math.log10(cost) - left) / (right - left), (score - low) / (high - low)
        x, y = _place(width, height, across, up)
        parts.append(_dot(x, y, 4))
        near = round(x / _LABEL_WIDTH), round(y / _LABEL_HEIGHT)
        labels.setdefault(near, (x, y, []))[2].append(number)
    for x, y, numbers in labels.values():
        shown = ", ".join(map(str, numbers))
        parts.append(f'<text class="name" x="{x + 6:.1f}" y="{y - 6:.1f}">{shown}</text>')
    return "".join([*parts, "</svg>"])


def _dot(x: float, y: float, radius: int) -> str:
    return f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius}"/>'


def _open(width: float, height: float, kind: str, label: str) -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(label, quote=True)}">'
    )


def _frame(width: float, height: float, top: str, bottom: str, left: str, right: str) -> list[str]:
    """Return the axes with a number at each end."""
    floor, edge = height - _BOTTOM, width - _RIGHT
    return [
        f'<path class="axis" d="M{_LEFT} {_TOP}V{floor}H{edge}"/>',
        f'<text x="{_LEFT - 4}" y="{_TOP + 8}" text-anchor="end">{escape(top)}</text>',
        f'<text x="{_LEFT - 4}" y="{floor}" text-anchor="end">{escape(bottom)}</text>',
        f'<text x="{_LEFT}" y="{floor + 15}">{escape(left)}</text>',
        f'<text x="{edge}" y="{floor + 15}" text-anchor="end">{escape(right)}</text>',
    ]


def _place(width: float, height: float, across: float, up: float) -> tuple[float, float]:
    """Return where a point from 0 to 1 stands."""
    x = _LEFT + (width - _LEFT - _RIGHT) * across
    return x, height - _BOTTOM - (height - _BOTTOM - _TOP) * up


def _widen(low: float, high: float) -> tuple[float, float]:
    """Return ends with some room; two ends even where all values are one."""
    room = 0.06 * (high - low) or 0.01
    return low - room, high + room


def _power(exponent: float) -> str:
    return f"{10**exponent:.2g}"
