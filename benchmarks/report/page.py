"""The report as one HTML page that works offline."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from benchmarks.report.collect import Report, page_data

SCRIPTS = (
    "base.js",
    "charts.js",
    "ranking.js",
    "leaderboard.js",
    "heatmap.js",
    "pair.js",
    "cost.js",
    "start.js",
)
"""Concatenated in this order into one function."""

_ESCAPES = {
    "<": "\\u003c",
    ">": "\\u003e",
    "&": "\\u0026",
    "\u2028": "\\u2028",
    "\u2029": "\\u2029",
}


def render_page(report: Report) -> str:
    """Return the page; it may hold any text, and runs no script but its own.

    Names, queries and documents are data: JSON in which no "<" is left, put on the page as text.
    The page's policy admits its own script and style by their digests, and no request at all.

    Raises
    ------
    RecordError : a file of hits is damaged.
    """
    whole, blocks = page_data(report)
    script = "".join(["(() => {\n", '"use strict";\n', *map(read_static, SCRIPTS), "})();\n"])
    style = read_static("page.css")
    data = [_script("report-data", whole)]
    data += [_script(f"task-{number}", block) for number, block in enumerate(blocks)]
    parts = {
        "@STYLE@": style,
        "@STYLE_DIGEST@": policy_digest(style),
        "@SCRIPT@": script,
        "@SCRIPT_DIGEST@": policy_digest(script),
        "@DATA@": "\n".join(data),
    }
    return fill_template(read_static("page.html"), parts)


def embed_json(value: Any) -> str:
    """Return JSON that can neither end a script element nor start a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text.encode("utf-8", "backslashreplace").decode()  # lone surrogates become \ud800


def _script(name: str, value: Any) -> str:
    return f'<script type="application/json" id="{name}">{embed_json(value)}</script>'


def read_static(name: str) -> str:
    """Return a file of the page, such as page.css."""
    text: str = (files("benchmarks.report") / "static" / name).read_text(encoding="utf-8")
    return text


def policy_digest(text: str) -> str:
    """Return the digest of an inline script or style as a content security policy has it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def fill_template(template: str, parts: Mapping[str, str]) -> str:
    """Return the template with its placeholders filled in one pass.

    What is filled in is never searched for placeholders.
    """
    return re.sub("|".join(map(re.escape, parts)), lambda found: parts[found[0]], template)
