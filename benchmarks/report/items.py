"""The scores of a task item by item, and the queries on which two models differ most."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from benchmarks.scoring.results import QueryHits, Result, read_hits

SCALE = 10_000
"""Scores are kept as whole numbers of 1/10,000: half the page's weight, and exact decimals."""
QUERIES_EACH_WAY = 10
HITS_SHOWN = 5
HITS_SHOWN_OF_MANY = 3
MANY_MODELS = 8
"""Above so many the pairs need so many documents that the page would weigh 10 MB."""
QUERY_CHARACTERS = 200
TITLE_CHARACTERS = 110
SNIPPET_CHARACTERS = 180

Scaled = list[int | None]


def collect_items(
    folder: Path,
    models: Sequence[str],
    results: Mapping[str, Result],
    task_type: str,
    metric: str,
) -> dict[str, Any]:
    """Return the item scores of one task and, for retrieval, the hits behind the differences.

    Parameters
    ----------
    models : all models, by number.
    results : of the task, by model.

    Returns
    -------
    scale : the values are whole numbers of 1/scale.
    ids : of the items; absent where they are "0", "1", ... in order.
    values : one row per model, None for a model without the task; for STS the cosines.
    gold : for STS the true scores.
    texts, most, documents, hits : for retrieval, as ``_collect_hits`` says.
    """
    key = "cosine" if task_type == "sts" else metric
    ids = list(dict.fromkeys(str(item) for one in results.values() for item in one.item_ids))
    rows: list[Scaled | None] = [
        _align(results[name], key, ids) if name in results and key in results[name].items else None
        for name in models
    ]
    block: dict[str, Any] = {"scale": SCALE, "values": rows}
    if ids != [str(number) for number in range(len(ids))]:
        block["ids"] = ids
    judged = [one for one in results.values() if "gold" in one.items]
    if task_type == "sts" and judged:
        block["gold"] = _align(judged[0], "gold", ids)
    if task_type == "retrieval":
        block |= _collect_hits(folder, models, next(iter(results.values())).task, rows, ids)
    return block


def _align(result: Result, key: str, ids: Sequence[str]) -> Scaled:
    """Return an item's values in the order of ``ids``, None where there is none."""
    values = dict(zip((str(item) for item in result.item_ids), result.items[key], strict=True))
    found = (values.get(item, math.nan) for item in ids)
    return [round(value * SCALE) if math.isfinite(value) else None for value in found]


def most_different(first: Scaled, second: Scaled, limit: int) -> tuple[list[int], list[int]]:
    """Return the items where the first model leads by most, and those where the second does."""
    gaps = [
        (mine - theirs, place)
        for place, (mine, theirs) in enumerate(zip(first, second, strict=True))
        if mine is not None and theirs is not None and mine != theirs
    ]
    ahead = sorted((gap for gap in gaps if gap[0] > 0), key=lambda gap: (-gap[0], gap[1]))
    behind = sorted(gap for gap in gaps if gap[0] < 0)
    return [place for _, place in ahead[:limit]], [place for _, place in behind[:limit]]


def _collect_hits(
    folder: Path, models: Sequence[str], task: str, rows: Sequence[Scaled | None], ids: list[str]
) -> dict[str, Any]:
    """Return query texts, and the hits of the queries on which each pair of models differs most.

    Returns
    -------
    texts : one query per item, "" where no hits are kept.
    most : "3-5" to the items where model 3 leads by most, and where model 5 does.
    documents : [id, title, snippet] each; hits name them by their place.
    hits : one mapping per model: item to [document, relevance, document, relevance, ...].
    """
    most: dict[str, tuple[list[int], list[int]]] = {}
    wanted: list[set[int]] = [set() for _ in models]
    present = [number for number, row in enumerate(rows) if row is not None]
    for one, other in combinations(present, 2):
        first, second = rows[one], rows[other]
        if first is not None and second is not None:
            chosen = most_different(first, second, QUERIES_EACH_WAY)
            most[f"{one}-{other}"] = chosen
            for number in (one, other):
                wanted[number].update(*chosen)
    keeper = _HitKeeper(ids, HITS_SHOWN if len(models) <= MANY_MODELS else HITS_SHOWN_OF_MANY)
    hits = [keeper.read(folder, name, task, wanted[number]) for number, name in enumerate(models)]
    return {"texts": keeper.texts, "most": most, "documents": keeper.documents, "hits": hits}


class _HitKeeper:
    """Keeps each query and document text once, however many models found it."""

    def __init__(self, ids: Sequence[str], hits_shown: int) -> None:
        self.texts = [""] * len(ids)
        self._hits_shown = hits_shown
        self.documents: list[tuple[str, str, str]] = []
        self._places = {item: place for place, item in enumerate(ids)}
        self._numbers: dict[tuple[str, str, str], int] = {}

    def read(self, folder: Path, model: str, task: str, wanted: set[int]) -> dict[int, list[int]]:
        """Return the hits of the wanted items of one model; remember every query's text."""
        kept: dict[int, list[int]] = {}
        for query in read_hits(folder, model, task):
            place = self._places.get(query.query_id)
            if place is None:
                continue
            self.texts[place] = self.texts[place] or _cut(query.query, QUERY_CHARACTERS)
            if place in wanted:
                kept[place] = self._keep(query)
        return kept

    def _keep(self, query: QueryHits) -> list[int]:
        row: list[int] = []
        for hit in query.hits[: self._hits_shown]:
            title, snippet = (
                _cut(hit.title, TITLE_CHARACTERS),
                _cut(hit.snippet, SNIPPET_CHARACTERS),
            )
            document = (hit.doc_id, title, snippet)
            number = self._numbers.setdefault(document, len(self.documents))
            if number == len(self.documents):
                self.documents.append(document)
            row += [number, hit.relevance]
        return row


def _cut(text: str, characters: int) -> str:
    """Return the text on one line, with "…" where it was cut."""
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1].rstrip() + "…"
