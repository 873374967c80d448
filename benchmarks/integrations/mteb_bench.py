"""A task of mteb in a benchmark run: scored by mteb's own code, with scores of single items.

Vectors and indexes are those of the results folder, so that nothing is embedded twice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.integrations.mteb import MtebSearcher, read_documents
from benchmarks.integrations.mteb_meta import import_mteb
from benchmarks.integrations.mteb_tasks import average_subsets
from benchmarks.scoring.cache import Searchable
from benchmarks.scoring.models import Bm25Model
from benchmarks.scoring.results import QueryHits
from benchmarks.scoring.searched import Worker, describe_cut
from benchmarks.tasks.mteb import MtebData, quiet_mteb
from benchmarks.tasks.retrieval import HITS_KEPT, keep_hits
from benchmarks.tasks.task import Scores
from retrieval import Corpus, Document, Hit, Query, Vectors
from retrieval.errors import count_noun
from retrieval.typed import load_json

_SEARCH_BATCH = 32
_ALSO = ("ndcg_at_10", "map_at_100", "recall_at_100")
"""Scores of rankings that are kept by query beside the main one."""
_MEASURES = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P",
             "hit_rate": "success"}  # fmt: skip
"""mteb's names of scores to those of trec_eval."""
_SAME = 1e-4  # mteb rounds to five decimals


def run_mteb(data: MtebData, worker: Worker) -> tuple[Scores, list[QueryHits] | None]:
    """Return the scores of a model by mteb's own evaluation, and the hits where it ranks.

    The items are queries, pairs, texts or samples of clusters, where mteb keeps their scores and
    their mean is the main score; of a task with several subsets they are the subsets.

    Raises
    ------
    MillpondError : as embedding and indexing.
    """
    task, inner = data.task, data.task.mteb
    model = _BenchedModel(worker)
    inner.rng_state, inner.np_rng = deepcopy(data.random_state)
    with tempfile.TemporaryDirectory(prefix="millpond-mteb-") as folder, quiet_mteb():
        subsets = inner.evaluate(
            model,
            task.split,
            subsets_to_run=list(task.subsets),
            encode_kwargs={},
            prediction_folder=Path(folder),
        )
        path = Path(folder) / inner.prediction_file_name
        predictions = load_json(path) if path.is_file() else {}
    main = inner.metadata.main_score
    metrics = average_subsets(main, list(subsets.values()))
    notes = model.notes
    hits: list[QueryHits] = []
    if task.task_type in ("retrieval", "reranking"):
        for subset in subsets:
            prefix = f"{subset}/" if len(subsets) > 1 else ""
            hits += _collect_hits(data.split(subset), predictions[subset][task.split], prefix)
    if len(subsets) > 1:
        count = count_noun(len(subsets), "subset")
        notes.append(f"The mean of {count}, each weighing the same; tested by subsets.")
        by_subset = {main: [float(one["main_score"]) for one in subsets.values()]}
        return Scores(main, metrics, list(subsets), by_subset, notes), hits or None
    [(subset, scores)] = subsets.items()
    found = predictions.get(subset, {}).get(task.split)
    ids, items = _find_items(data, subset, scores, found)
    own = items.get(main)
    if own is not None and not abs(float(np.mean(own)) - metrics[main]) < _SAME:
        items = {name: row for name, row in items.items() if name != main}
    rounds = scores.get("scores_per_experiment") or ()
    draws = {
        name: [one[name] for one in rounds]
        for name in dict.fromkeys((main, "accuracy"))
        if rounds and all(isinstance(one.get(name), float) for one in rounds)
    }
    return Scores(main, metrics, ids, items, notes, draws), hits or None


class _BenchedModel(MtebSearcher):
    """A model as mteb's tasks see it, which embeds and searches through a ``Worker``."""

    def __init__(self, worker: Worker) -> None:
        model = worker.model
        super().__init__(_Words(model) if isinstance(model, Bm25Model) else model.encoder)
        self._worker = worker
        self._coverage = worker.count_coverage()

    @property
    def notes(self) -> list[str]:
        """A sentence on texts that were read in part, if there are any."""
        return describe_cut(self._coverage.to_json() if self._coverage else None, "text")

    def _encode(self, texts: Iterator[str], is_document: bool, task: str) -> Vectors:
        listed = list(texts)
        if self._coverage is not None:
            for text in listed:
                self._coverage.add(text)
        return self._worker.embed(listed, "document" if is_document else "query")

    def _find(self, queries: Iterable[Query], top_k: int) -> Iterable[tuple[Query, list[Hit]]]:
        assert self._place is not None
        documents = _Documents(self._corpus, self._place["task_metadata"].name)
        asked = list(queries)
        corpus = Searchable(cast(Corpus, documents), len(self._corpus), documents.sha256, asked)
        searched = self._worker.index(corpus)
        if getattr(self._worker.model, "reranker", None) is not None:
            top_k = min(top_k, self._worker.config.depth)
        return searched.many.search_many(asked, top_k, batch=_SEARCH_BATCH, **searched.choices)


class _Words:
    """BM25 where mteb asks for an encoder's description; it encodes nothing."""

    dimension: Any = None

    def __init__(self, model: Bm25Model) -> None:
        self.fingerprint = model.fingerprint

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        raise NotImplementedError

    encode_documents = encode_queries


class _Documents:
    """mteb's corpus as documents, read anew each time."""

    def __init__(self, rows: Any, task: str) -> None:
        self._rows = rows
        self.name = task

    def __iter__(self) -> Iterator[Document]:
        return read_documents(self._rows, self.name)

    @property
    def sha256(self) -> str:
        """Of ids, titles and texts."""
        total = sha256()
        for one in self:
            for part in (one.doc_id, one.title, one.text):
                total.update(len(part).to_bytes(8) + part.encode("utf-8", "surrogatepass"))
        return total.hexdigest()


def _collect_hits(
    split: Any, run: Mapping[str, Mapping[str, float]], prefix: str
) -> Iterator[QueryHits]:
    """Yield what a result keeps of each ranking; titles and texts are looked up in the corpus."""
    ranked = {
        query: sorted(scores, key=lambda one: (-scores[one], one)) for query, scores in run.items()
    }
    wanted = {one for best in ranked.values() for one in best[:HITS_KEPT]}
    places = {str(key): place for place, key in enumerate(split["corpus"]["id"]) if key in wanted}
    texts = dict(zip(map(str, split["queries"]["id"]), split["queries"]["text"], strict=True))
    for query, best in ranked.items():
        hits = []
        for rank, one in enumerate(best[:HITS_KEPT], start=1):
            row = split["corpus"][places[one]]
            title = row.get("title") or ""
            hits.append(Hit(rank, one, run[query][one], title=title, text=row["text"]))
        asked = Query(prefix + query, str(texts[query]))
        yield keep_hits(asked, hits, run[query], split["relevant_docs"][query])


Items = tuple[list[str], dict[str, list[float]]]


def _find_items(data: MtebData, subset: str, scores: Mapping[str, Any], found: Any) -> Items:
    """Return ids and scores of items, none where mteb keeps none.

    Parameters
    ----------
    found : the predictions that mteb saved; None where it saved none.
    """
    find = _ITEMS.get(data.task.task_type)
    if find is None or found is None:
        return [], {}
    return find(data, subset, scores, found)


def _score_queries(data: MtebData, subset: str, scores: Mapping[str, Any], found: Any) -> Items:
    """Score each query once more by mteb's function, which returns means to its tasks."""
    inner = data.task.mteb
    module = import_mteb("mteb._evaluators.retrieval_metrics")
    if inner.ignore_identical_ids:
        found = {
            query: {one: score for one, score in row.items() if one != query}
            for query, row in found.items()
        }
    by_query = module.calculate_retrieval_scores(
        found, data.split(subset)["relevant_docs"], list(inner.k_values), inner.skip_first_result
    ).all_scores
    items = {}
    for name in dict.fromkeys((inner.metadata.main_score, *_ALSO)):
        measure, _, cut = name.rpartition("_at_")
        key = f"{_MEASURES.get(measure)}_{cut}"
        if all(key in row for row in by_query.values()):
            items[name] = [row[key] for row in by_query.values()]
    return list(by_query), items


def _score_pairs(data: MtebData, subset: str, scores: Mapping[str, Any], found: Any) -> Items:
    gold = [float(score) for score in data.split(subset)["score"]]
    return _number(gold), {"cosine": found["similarity_scores"], "gold": gold}


def _score_texts(data: MtebData, subset: str, scores: Mapping[str, Any], found: Any) -> Items:
    """Return the share of mteb's draws of training examples in which each text got its label."""
    inner = data.task.mteb
    if inner.is_cross_validation:
        return [], {}
    labels = np.asarray(data.split(subset)[inner.label_column_name])
    right = np.mean([np.asarray(draw) == labels for draw in found], axis=0)
    return _number(right), {"accuracy": right.tolist()}


def _score_samples(data: MtebData, subset: str, scores: Mapping[str, Any], found: Any) -> Items:
    """Return the scores of mteb's samples of clusters, over all levels."""
    rows = scores.get("v_measures", [])
    listed = [one for row in rows.values() for one in row] if isinstance(rows, dict) else rows
    return _number(listed), {"v_measure": [float(one) for one in listed]}


def _number(rows: Any) -> list[str]:
    return [str(number) for number in range(len(rows))]


_ITEMS: Mapping[str, Callable[[MtebData, str, Mapping[str, Any], Any], Items]] = {
    "retrieval": _score_queries,
    "reranking": _score_queries,
    "sts": _score_pairs,
    "classification": _score_texts,
    "clustering": _score_samples,
}
