"""What a study's report says, for the page and for Markdown alike: table rows, method, gaps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.report.markdown import MINUS, NOTHING, format_score
from benchmarks.study.config import StudyConfig
from benchmarks.study.runs import StudyRun
from retrieval.errors import count_noun

_PAPER_BASE = "Mistral-7B-v0.1"
_PAPER = {
    "train.steps": 1000,
    "train.batch_pairs": 2048,
    "train.loss.scale": 50.0,
    "train.optimiser.learning_rate": 1e-5,
    "train.adapter.kind": "lora",
    "train.adapter.rank": 16,
    "train.adapter.alpha": 32,
    "train.adapter.dropout": 0.1,
    "train.adapter.targets": "all-linear",
    "pooling.latents": 768,
    "pooling.heads": 32,
    "pooling.head_width": 2048,
    "pooling.feedforward_multiple": 4,
    "pooling.init": "random",
}
"""The setting of arXiv 2409.02727, as far as millpond has a name for it."""

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
    """Return one row per variant: score, interval and seeds' deviation, and below them the test."""
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
    """Return one row per variant with its costs."""
    heads = [
        "variant",
        "pooling weights",
        "adapter weights",
        "GFLOPs per text",
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
        means = f"{one['name']} attends over {keys:g} {'key' if keys == 1 else 'keys'} per text."
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
    """Return how much a variant's loss was still falling at the end."""
    if one["late_gain"] is None:
        return "too few points to say whether it had converged"
    gain = 100 * one["late_gain"]
    return (
        f"{'fell' if gain >= 0 else 'rose'} by {abs(gain):.1f}% from the fourth to the last fifth"
    )


def scale_note(base: Base) -> str:
    """Return the size of the base, next to that of the paper."""
    size = base["parameters"]
    known = "of unknown size" if size is None else f"{size / 1e6:,.1f} million parameters"
    return f"{base['name']}: {known}; the paper's main base has 7 billion."


def list_departures(config: StudyConfig) -> list[str]:
    """Return one sentence per departure from arXiv 2409.02727."""
    return [*config.departures, *_find_departures(config)]


def _find_departures(config: StudyConfig) -> Iterator[str]:
    others = [base.name for base in config.bases if not base.base.endswith(_PAPER_BASE)]
    if others:
        yield f"Base: {', '.join(others)}; the paper's main base is {_PAPER_BASE}."
    for key, paper in _PAPER.items():
        value: object = config
        for name in key.split("."):
            value = getattr(value, name)
        if value != paper:
            shown = "by width" if value is None else value
            yield f"{key} is {shown}; the paper's is {paper}."
    rate = config.train.optimiser.pooling_learning_rate
    if rate is not None and rate != config.train.optimiser.learning_rate:
        yield f"The poolings have a learning rate of their own, {rate:g}."
    layers = [base for base in config.bases if base.base_layers is not None]
    for base in layers:
        yield f"{base.name}: {base.base_layers} decoder layers are kept."
    for base in config.bases:
        yield f"{base.name}: texts are cut to {base.max_tokens} tokens."
    prompts = {base.query_prompt or base.document_prompt for base in config.bases}
    own = "none" if prompts == {""} else ", ".join(sorted(repr(one) for one in prompts if one))
    yield f"Prompts: {own}. The paper's prompts are not reproduced."
    sources = ", ".join(source.path.name for source in config.train.data)
    yield f"Training data: {sources}; not the paper's 1.4 million pairs."
    yield "Scores are of the tasks named here, not of the whole MTEB."
    yield "Padding is masked in every pooling; the authors' code lets last_layer attend to it."


def describe_gaps(runs: Sequence[StudyRun], done: Sequence[StudyRun]) -> list[str]:
    """Return a sentence on what is missing."""
    missing = [run.name for run in runs if run not in done]
    if not missing:
        return []
    shown = "; ".join(missing[:8]) + (f"; and {len(missing) - 8} more" if len(missing) > 8 else "")
    are = "is" if len(missing) == 1 else "are"
    return [f"{len(missing)} of {count_noun(len(runs), 'run')} {are} not done: {shown}."]


def _describe_cut(config: StudyConfig) -> list[str]:
    """Return how much of the tasks is used; nothing where all of it is."""
    names = {
        "sts_pairs": "pairs of an STS task",
        "clustering_rows": "rows of a clustering task",
        "test_rows": "test rows of a classification task",
        "queries": "queries",
        "documents": "documents of a retrieval task, and all that is relevant",
    }
    kept = [
        f"{getattr(config.cut, name):,} {what}"
        for name, what in names.items()
        if getattr(config.cut, name)
    ]
    return [f"Of larger tasks these were drawn: {'; '.join(kept)}."] if kept else []


def describe_method(config: StudyConfig) -> list[str]:
    """Return how runs were trained, scored, tested and analysed, a sentence or two per entry."""
    level = f"{100 * (1 - config.alpha):g}%"
    return [
        f"All variants of a seed were trained on the same pairs in the same order: "
        f"{config.train.steps:,} steps of {config.train.batch_pairs:,} pairs. The seed decides the "
        f"order, the negatives, the dropout and the first weights.",
        *_describe_cut(config),
        "The score of a task type is the mean over its tasks, and over seeds.",
        "Tests are paired. Seeds are averaged, not a random factor: the scores of an item (query, "
        "draw, split) are averaged over seeds, then their differences get random signs, "
        f"{config.resamples:,} times (Fisher); each task of a type has the same weight. A pair of "
        "an STS task has no score of its own, so there the seeds' correlations are averaged within "
        f"each of {config.bootstrap_resamples:,} paired resamples of the pairs.",
        "A p-value is therefore about other items, with these training runs. The standard "
        "deviation between seeds, beside a score, says how much the seed moves it; a difference "
        "counts as significant only where no seed has the opposite sign.",
        f"Intervals hold the middle {level} of the bootstrap over items and are not corrected.",
        f"Holm's method corrects all tests against {config.baseline} together, and all tests of "
        f"the claims together, over all bases.",
        "FLOPs are for one text of 128 tokens: two for each multiply-add of a matrix product, one "
        "for each element of any other operation. On a CPU, memory is that of the whole process, "
        "so it never falls from one run to the next.",
        "Layers are correlated by rank (Spearman) over the coordinates of their mean states, and "
        "averaged over the same texts for all models. The last layer is taken after the final "
        "norm.",
    ]


def _score(cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return NOTHING
    spread = cell["seed_deviation"]
    beside = "" if spread is None else f" ± {spread:.3f}"
    score, low, high = (format_score(cell[name]) for name in ("score", "low", "high"))
    return f"{score}{beside}\n[{low}, {high}]"


def _test(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return NOTHING
    p = test["p_corrected"]
    shown = "no test" if p is None else "p < 0.001" if p < 0.001 else f"p {p:.3f}"
    star = " *" if test["significant"] else ""
    return f"{test['difference']:+.3f}".replace("-", MINUS) + f", {shown}{star}"


def _count(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


def _with(value: float | None, unit: float, form: str) -> str:
    return NOTHING if value is None else form.format(value / unit)
