"""A study's report as Markdown: everything of the page but its charts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.markdown import plain, table_lines
from benchmarks.study.config import StudyConfig
from benchmarks.study.page import render_study_page
from benchmarks.study.runs import StudyFolder
from benchmarks.study.summary import summarise
from benchmarks.study.words import (
    ablation_tables,
    attention_sentences,
    convergence_sentence,
    cost_rows,
    scale_note,
    task_type_rows,
)
from indexes.storage.manifest import millpond_version, now_utc
from retrieval.errors import count_noun


def render_study_markdown(summary: Mapping[str, Any]) -> str:
    """Return the verdicts, tables, costs, departures and method of a summary."""
    lines = [f"# {plain(summary['title'])}", ""]
    lines.append(
        f"{summary['done']} of {count_noun(summary['runs'], 'run')} done, seeds "
        f"{', '.join(map(str, summary['seeds']))}. The claims are those of arXiv 2409.02727."
    )
    notes = [*(scale_note(base) for base in summary["bases"]), *summary["cautions"]]
    lines += ["", *_list(notes), ""]
    for base in summary["bases"]:
        lines += _base(base, summary["baseline"])
    if summary["failed"]:
        lines += ["## Runs that failed", ""]
        lines += [*_list([f"{k}: {v}" for k, v in summary["failed"].items()]), ""]
    lines += ["## What departs from the paper", "", *_list(summary["departures"]), ""]
    lines += ["## Method", "", *_list(summary["method"]), ""]
    limits = f"margin {summary['margin']:g}, alpha {summary['alpha']:g}"
    lines += [f"## The rule of the verdicts ({limits})", "", *_list(summary["rule"]), ""]
    lines.append(f"millpond {summary['version']}, {summary['created'][:10]}")
    text = "\n".join(lines) + "\n"
    return text.encode("utf-8", "backslashreplace").decode()


def _base(base: Mapping[str, Any], baseline: str) -> Iterator[str]:
    yield from (f"## {plain(base['name'])}", "")
    for claim in base["claims"]:
        yield from (f"**Claim {claim['number']}: {claim['word']}.** {plain(claim['text'])}", "")
        yield from _list([f"{one['reason']} ({one['word']})" for one in claim["judgements"]])
        yield ""
    for title, variants in ablation_tables(base).items():
        yield from (f"### {title}", "", *_table(*task_type_rows(base, variants, baseline)), "")
    yield (
        "Score ± standard deviation between seeds; [interval over items]; difference and corrected "
        "p, \\* where it is significant and no seed has the other sign."
    )
    readings = list(_readings(base)) or ["No pooling that weighs layers was trained."]
    attention = attention_sentences(base) or ["No last_layer pooling was trained."]
    losses = [f"{one['name']}: the loss {convergence_sentence(one)}." for one in base["variants"]]
    yield from ("", "### Layers that are read most", "", *_list(readings), "")
    yield from ("### Attention over a single key", "", *_list(attention), "")
    yield from ("### Convergence", "", *_list(losses), "")
    yield from ("### Cost", "", *_table(*cost_rows(base)), "")


def _readings(base: Mapping[str, Any]) -> Iterator[str]:
    for one in base["variants"]:
        if one["reading"]:
            pairs = sorted(
                zip(one["reading"]["shares"], one["reading"]["layers"], strict=True), reverse=True
            )
            shown = ", ".join(f"{layer} ({100 * share:.1f}%)" for share, layer in pairs[:3])
            yield f"{one['name']}: {shown} of {len(pairs)}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    safe = [[plain(cell.replace("\n", "; ")) for cell in row] for row in (heads, *rows)]
    return table_lines(safe[0], safe[1:])


def _list(texts: Sequence[str]) -> Iterator[str]:
    return (f"- {plain(text)}" for text in texts)


def write_study_report(config: StudyConfig, out: str | Path) -> dict[str, Any]:
    """Write summary.json, report.html and report.md into the study, and return the summary.

    Raises
    ------
    UsageError : no run is done.
    FailureError, RecordError, StorageError : a file of the study is damaged or not writable.
    """
    folder = StudyFolder(Path(out))
    summary = summarise(config, folder, millpond_version(), now_utc())
    text = json.dumps(summary, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    folder.write_text("summary.json", f"{text}\n")
    folder.write_text("report.html", render_study_page(summary))
    folder.write_text("report.md", render_study_markdown(summary))
    return summary
