"""Sets of several parts, such as CQADupStack: one result, the mean of its parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean

from benchmarks.scoring.remembered import digest
from benchmarks.scoring.results import BEIR_PARTS, Result
from retrieval.errors import count_noun

_SUMMED = ("seconds", "index_bytes")


def combine_parts(results: Sequence[Result], parts: Sequence[str]) -> Iterator[Result]:
    """Yield the results, those of a set's parts replaced by the mean of the parts.

    Each part weighs the same, as BEIR and mteb average CQADupStack's twelve, and the parts are the
    items: a test of the mean is one over parts. A set of which a part failed is left out.

    Parameters
    ----------
    results : of one model.
    parts : the names of all parts, SET/PART, that the model had to do.
    """
    sets = {name: [one for one in parts if one.startswith(f"{name}/")] for name in BEIR_PARTS}
    for result in results:
        if result.task.partition("/")[0] not in BEIR_PARTS or "/" not in result.task:
            yield result
    for name, wanted in sets.items():
        found = [one for one in results if one.task in wanted]
        if wanted and len(found) == len(wanted):
            yield _mean(name, found)


def _mean(name: str, found: Sequence[Result]) -> Result:
    first = found[0]
    labels = [one.task.partition("/")[2] for one in found]
    shared = [name for name in first.metrics if all(name in one.metrics for one in found)]
    items = {metric: [one.metrics[metric] for one in found] for metric in shared}
    counts = {
        key: sum(one.data[key] for one in found)
        for key, value in first.data.items()
        if isinstance(value, int)
    }
    costs = {key: value for key, value in first.costs.items() if key == "parameters"}
    costs |= {key: sum(one.costs.get(key, 0.0) for one in found) for key in _SUMMED}
    notes = [f"{label}: {note}" for label, one in zip(labels, found, strict=True)
             for note in one.notes]  # fmt: skip
    how = f"The mean of {count_noun(len(found), 'part')}, each weighing the same; tested by parts."
    whole = str(first.recipe.get("task", "")).rpartition("/")[0]
    return replace(
        first,
        task=name,
        metrics={metric: fmean(row) for metric, row in items.items()},
        item_ids=labels,
        items=items,
        data={"sha256": digest([one.data["sha256"] for one in found]), **counts},
        run_digest=digest([one.run_digest for one in found]),
        settings={**first.settings, "parts": len(found)},
        costs=costs,
        notes=[how, *notes],
        recipe={**first.recipe, "task": whole},
    )
