"""A study's report as one HTML page: no script, no request, charts as SVG in the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from benchmarks.report.markdown import NOTHING, format_score
from benchmarks.report.page import fill_template, policy_digest, read_static
from benchmarks.study.charts import draw_bars, draw_curves, draw_heatmap, draw_scatter
from benchmarks.study.words import (
    Table,
    ablation_tables,
    attention_sentences,
    convergence_sentence,
    cost_rows,
    scale_note,
    task_type_rows,
)
from retrieval.errors import count_noun

Base = Mapping[str, Any]

_CLASSES = {"holds": "claim holds", "does not hold": "claim fails", "cannot tell": "claim"}


def render_study_page(summary: Mapping[str, Any]) -> str:
    """Return the page of a summary; names are escaped, whatever they hold."""
    style = read_static("page.css") + _static("study.css")
    sections = [
        ("caution", "Read first", _caution(summary)),
        *(
            (f"base-{number}", base["name"], _base(base, summary["baseline"]))
            for number, base in enumerate(summary["bases"])
        ),
        ("departures", "What departs from the paper", [_list(summary["departures"])]),
        ("method", "Method", _method(summary)),
    ]
    lead = (
        f"{summary['done']} of {count_noun(summary['runs'], 'run')} done, seeds "
        f"{', '.join(map(str, summary['seeds']))}. The claims are those of arXiv 2409.02727."
    )
    parts = {
        "@STYLE@": style,
        "@STYLE_DIGEST@": policy_digest(style),
        "@TITLE@": escape(summary["title"]),
        "@LEAD@": escape(lead),
        "@NAV@": "\n".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in sections),
        "@BODY@": "\n".join(_section(*section) for section in sections),
        "@FOOTER@": escape(f"millpond {summary['version']}, {summary['created'][:10]}"),
    }
    text = fill_template(_static("study.html"), parts)
    return text.encode("utf-8", "backslashreplace").decode()


def _static(name: str) -> str:
    return (files("benchmarks.study") / "static" / name).read_text(encoding="utf-8")


def _section(name: str, title: str, body: Iterable[str]) -> str:
    inner = "\n".join(body)
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">\n'
        f'<h2 id="{name}-title">{escape(title)}</h2>\n{inner}\n</section>'
    )


def _caution(summary: Mapping[str, Any]) -> Iterator[str]:
    scale = [scale_note(base) for base in summary["bases"]]
    yield from _paragraphs([*scale, *summary["cautions"]], "notice measure")
    if summary["failed"]:
        yield "<h3>Runs that failed</h3>"
        yield _list(f"{name}: {error}" for name, error in summary["failed"].items())


def _base(base: Base, baseline: str) -> Iterator[str]:
    yield "<h3>Does each claim hold?</h3>"
    yield '<div class="claims">'
    yield from map(_claim, base["claims"])
    yield "</div>"
    for title, variants in ablation_tables(base).items():
        yield f"<h3>{title}</h3>"
        yield _table(*task_type_rows(base, variants, baseline))
    yield (
        '<p class="notes">Score ± standard deviation between seeds, and the interval over items. '
        f"Against {escape(baseline)}: difference and corrected p; * is significant, with no seed "
        "of the other sign.</p>"
    )
    yield "<h3>Tasks</h3>"
    yield _table(*_task_rows(base))
    yield "<h3>Loss</h3>"
    yield from _curves(base)
    yield "<h3>How alike the layers are</h3>"
    yield from _heatmaps(base)
    yield "<h3>Which layers the poolings read</h3>"
    yield from _readings(base)
    yield "<h3>Attention over a single key</h3>"
    sentences = attention_sentences(base)
    yield from _paragraphs(sentences or ["No last_layer pooling was trained."], "measure")
    yield "<h3>Cost</h3>"
    yield _table(*cost_rows(base))
    yield "<h3>Quality against cost</h3>"
    yield from _scatter(base)


def _claim(claim: Mapping[str, Any]) -> str:
    reasons = "".join(
        f"<li>{escape(one['reason'])} <b>{escape(one['word'])}</b></li>"
        for one in claim["judgements"]
    )
    return (
        f'<article class="{_CLASSES[claim["word"]]}"><h4>{claim["number"]}. '
        f"{escape(claim['text'])}</h4>"
        f'<p class="word">{escape(claim["word"].capitalize())}</p><ul>{reasons}</ul></article>'
    )


def _task_rows(base: Base) -> Table:
    tasks = [one for task_type in base["task_types"] for one in base["tasks"][task_type]]
    heads = ["variant", *(f"{one['task']} ({one['metric']})" for one in tasks)]
    rows = []
    for one in base["variants"]:
        scores = [one["tasks"][task["task"]] for task in tasks]
        shown = [NOTHING if score is None else format_score(score) for score in scores]
        rows.append([one["name"], *shown])
    return heads, rows


def _curves(base: Base) -> Iterator[str]:
    losses = [p[1] for one in base["variants"] for row in one["curves"] for p in row]
    if not losses:
        yield "<p>No curve was kept.</p>"
        return
    top = sorted(losses)[int(0.99 * (len(losses) - 1))] * 1.05 or 1.0
    yield '<div class="grid">'
    for one in base["variants"]:
        chart = draw_curves(one["curves"], top, f"training loss of {one['name']}")
        yield _figure(chart, one["name"], convergence_sentence(one))
    yield "</div>"


def _heatmaps(base: Base) -> Iterator[str]:
    yield (
        '<p class="measure">Rank correlation of each two layers, the first at the top left: pale '
        "is 0 or less, strong is 1. Where all is strong, the layers hold much the same.</p>"
    )
    yield '<div class="grid">'
    for one in base["heatmaps"]:
        matrix = one["matrix"]
        apart = [v for y, row in enumerate(matrix) for x, v in enumerate(row) if x != y]
        mean = f"mean {sum(apart) / len(apart):.2f}" if apart else "one layer"
        chart = draw_heatmap(matrix, f"layer correlations {one['title']}")
        yield _figure(chart, one["title"], mean)
    yield "</div>"


def _readings(base: Base) -> Iterator[str]:
    depth = max((len(one["matrix"]) for one in base["heatmaps"]), default=0)
    readings = [one for one in base["variants"] if one["reading"]]
    if not readings:
        yield "<p>No pooling that weighs layers was trained.</p>"
        return
    yield (
        '<p class="measure">The attention of each pooling over layers, averaged over heads, '
        "latents, texts and seeds.</p>"
    )
    yield '<div class="grid">'
    for one in readings:
        layers, shares = one["reading"]["layers"], one["reading"]["shares"]
        chart = draw_bars(layers, shares, max(depth, *layers), f"layers that {one['name']} reads")
        best = layers[shares.index(max(shares))]
        even = f"most of layer {best}: {100 * max(shares):.1f}%, even is {100 / len(layers):.1f}%"
        yield _figure(chart, one["name"], even)
    yield "</div>"


def _scatter(base: Base) -> Iterator[str]:
    points: dict[int, tuple[float, float]] = {}
    legend = []
    for number, one in enumerate(base["variants"], start=1):
        scores = [one["scores"].get(task_type, {}).get("score") for task_type in base["task_types"]]
        if "flops" not in one["costs"] or None in scores or not scores:
            continue
        points[number] = (one["costs"]["flops"] / 1e9, sum(scores) / len(scores))
        legend.append(f"<li>{number}: {escape(one['name'])}</li>")
    if not points:
        yield "<p>No variant has a score on every task type.</p>"
        return
    yield draw_scatter(points, "GFLOPs per text of 128 tokens", "mean over task types")
    yield f'<ul class="legend notes">{"".join(legend)}</ul>'


def _method(summary: Mapping[str, Any]) -> Iterator[str]:
    yield _list(summary["method"])
    limits = f"margin {summary['margin']:g}, alpha {summary['alpha']:g}"
    yield f"<h3>The rule of the verdicts ({limits})</h3>"
    yield _list(summary["rule"])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads[1:])
    body = "".join(
        f'<tr><th class="name" scope="row">{_lines(first)}</th>'
        + "".join(f"<td>{_lines(text)}</td>" for text in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroller tables"><table class="numbers"><thead><tr>'
        f'<th class="name" scope="col">{escape(heads[0])}</th>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _lines(text: str) -> str:
    """Return the text, its further lines smaller and below."""
    first, *rest = text.split("\n")
    return escape(first) + "".join(f'<span class="below">{escape(line)}</span>' for line in rest)


def _figure(chart: str, name: str, note: str) -> str:
    return f"<figure>{chart}<figcaption><b>{escape(name)}</b>: {escape(note)}</figcaption></figure>"


def _paragraphs(texts: Iterable[str], kind: str) -> Iterator[str]:
    return (f'<p class="{kind}">{escape(text)}</p>' for text in texts)


def _list(texts: Iterable[str]) -> str:
    return f'<ul class="measure">{"".join(f"<li>{escape(text)}</li>" for text in texts)}</ul>'
