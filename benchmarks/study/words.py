"""The tables of a study's report as rows of text, for the page and for Markdown alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = [
    "ablation_tables",
    "attention_sentences",
    "convergence_sentence",
    "cost_rows",
    "task_type_rows",
    "scale_note",
]

MINUS = "\N{MINUS SIGN}"
NOTHING = "\N{EN DASH}"

Table = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Headings, and rows of as many cells; a cell may have several lines."""

Base = Mapping[str, Any]


def ablation_tables(base: Base) -> dict[str, list[Mapping[str, Any]]]:
    """Return the variants by the table that they stand in."""
    tables = {
        "Designs": [one for one in base["variants"] if not one["ablation"]],
        "Ablations": [one for one in base["variants"] if one["ablation"]],
    }
    return {title: rows for title, rows in tables.items() if rows}


def task_type_rows(base: Base, variants: Sequence[Mapping[str, Any]], baseline: str) -> Table:
    """Return a row a variant: score, interval and seeds' deviation, and below them the test."""
    heads = ["variant", "seeds", *map(task_type_title, base["task_types"])]
    rows = []
    for one in variants:
        design = "" if one["design"] == one["name"] else f"\n{one['design']}"
        row = [f"{one['name']}{design}", str(len(one["seeds"]))]
        for task_type in base["task_types"]:
            score, test = one["scores"].get(task_type), one["tests"].get(task_type)
            against = "" if one["name"] == baseline else f"\n{_test(test)}"
            row.append(_score(score) + against)
        rows.append(row)
    return heads, rows


def task_type_title(task_type: str) -> str:
    """Return a task type's name as a heading."""
    return "STS" if task_type == "sts" else task_type


def cost_rows(base: Base) -> Table:
    """Return a row a variant of what it costs."""
    heads = [
        "variant",
        "pooling weights",
        "adapter weights",
        "GFLOPs a text",
        "training tokens/s",
        "scoring tokens/s",
        "training memory",
        "training time",
    ]
    rows = []
    for one in base["variants"]:
        costs = one["costs"]
        rows.append(
            [
                one["name"],
                _count(costs.get("train_pooling_parameters")),
                _count(costs.get("train_adapter_parameters")),
                _with(costs.get("flops"), 1e9, "{:.3f}"),
                _with(costs.get("train_tokens_per_second"), 1, "{:,.0f}"),
                _with(costs.get("score_tokens_per_second"), 1, "{:,.0f}"),
                _with(costs.get("train_peak_memory_bytes"), 1e9, "{:.2f} GB"),
                _with(costs.get("train_seconds"), 1, "{:,.0f} s"),
            ]
        )
    return heads, rows


def attention_sentences(base: Base) -> list[str]:
    """Return what redrawn queries and keys change in each trained last_layer pooling."""
    found = []
    for one in base["variants"]:
        attention = one["attention"]
        if attention is None:
            continue
        keys, change = attention["keys"], attention["change"]
        means = f"{one['name']} attends over {keys:g} {'key' if keys == 1 else 'keys'} a text."
        means += f" With other query and key weights its vectors move by {100 * change:.3g}%"
        if keys == 1:
            means += (
                f" of the largest coordinate: the softmax over one key is 1, so "
                f"{attention['idle']:,} of its weights decide nothing and the layer is a "
                f"feed-forward of one vector."
            )
        else:
            means += " of the largest coordinate."
        found.append(means)
    return found


def convergence_sentence(one: Mapping[str, Any]) -> str:
    """Return how much a variant's loss still fell at the end."""
    if one["late_gain"] is None:
        return "too few points to say whether it had converged"
    gain = 100 * one["late_gain"]
    return (
        f"{'fell' if gain >= 0 else 'rose'} by {abs(gain):.1f}% from the fourth to the last fifth"
    )


def scale_note(base: Base) -> str:
    """Return how large the base is beside the paper's."""
    size = base["parameters"]
    known = "of unknown size" if size is None else f"{size / 1e6:,.1f} million parameters"
    return f"{base['name']}: {known}; the paper's main base has 7 billion."


def _score(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return NOTHING
    spread = cell["seed_deviation"]
    beside = "" if spread is None else f" ± {spread:.3f}"
    return f"{_number(cell['score'])}{beside}\n[{_number(cell['low'])}, {_number(cell['high'])}]"


def _test(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return NOTHING
    p = test["p_corrected"]
    shown = "no test" if p is None else "p < 0.001" if p < 0.001 else f"p {p:.3f}"
    star = " *" if test["significant"] else ""
    return f"{test['difference']:+.3f}".replace("-", MINUS) + f", {shown}{star}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}".replace("-", MINUS)


def _count(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def _with(value: float | None, unit: float, form: str) -> str:
    return NOTHING if value is None else form.format(value / unit)
