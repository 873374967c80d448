"""The loss curve as a small SVG that reads on a light and on a dark page."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["draw_curve"]

_WIDTH, _HEIGHT = 640, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 28, 36
_MOST_POINTS = 600

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
