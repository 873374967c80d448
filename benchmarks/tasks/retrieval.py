"""Retrieval: BEIR folders, their judgements, and the scores of a ranking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.scoring.metrics import retrieval_metrics, score_run
from benchmarks.scoring.results import QueryHits, TopHit
from benchmarks.tasks.datasets import BEIR_OWN_IDS
from benchmarks.tasks.task import Scores, Task
from retrieval import Corpus, Hit, Query, read_corpus, read_queries
from retrieval.corpus.qrels import find_beir, match_judgements, read_qrels
from retrieval.errors import UsageError, count_noun

PROTOCOL = 2
HITS_KEPT = 10
SNIPPET_CHARACTERS = 200

Ranking = tuple[Query, Sequence[Hit]]
"""A query and its hits with title and text, best first."""


@dataclass(frozen=True)
class RetrievalData:
    """The judged queries of a BEIR folder; its documents are streamed.

    Attributes
    ----------
    queries : those with a relevant document, in the order of the file.
    qrels : query id to document id to judgement, for these queries.
    documents : how many the corpus holds.
    """

    folder: Path
    queries: Sequence[Query]
    qrels: Mapping[str, Mapping[str, int]]
    documents: int
    skip_bad: bool
    notes: Sequence[str]

    @property
    def counts(self) -> Mapping[str, int]:
        """The numbers of documents, judged queries and judgements."""
        return {
            "documents": self.documents,
            "queries": len(self.queries),
            "judgements": sum(len(row) for row in self.qrels.values()),
        }

    def read_documents(self) -> Corpus:
        """Return the corpus, read anew each time it is iterated."""
        return read_corpus(self.folder, skip_bad=self.skip_bad)


def retrieval_files(task: Task) -> dict[str, Path]:
    """Return the files that decide a task's scores, by role; raises as ``find_beir``."""
    return dict(vars(find_beir(task.path, task.split, " Name one with --split.")))


def load_retrieval(task: Task, skip_bad: bool) -> RetrievalData:
    """Return the judged queries, after a look at every document's id.

    Queries with no relevant document are left out, and judged documents that the corpus lacks
    count as not found; notes say how many.

    Raises
    ------
    RecordError : a bad record, or judgements of queries that are not there, unless ``skip_bad``.
    UsageError : no query with a relevant document is left, or no judged document is there.
    """
    qrels = retrieval_files(task)["qrels"]
    read = read_qrels(qrels, skip_bad=skip_bad)
    judged, notes = read.judgements, [*read.notes]
    queries = read_queries(task.path, skip_bad=skip_bad)
    wanted = {row.query_id for row in judged}
    asked = {query.query_id: query for query in queries if query.query_id in wanted}
    corpus = read_corpus(task.path, skip_bad=skip_bad)
    wanted = {row.doc_id for row in judged}
    documents, present = 0, set()
    for document in corpus:
        documents += 1
        if document.doc_id in wanted:
            present.add(document.doc_id)
    for one, several, reader in (
        ("bad query was", "bad queries were", queries),
        ("bad document was", "bad documents were", corpus),
    ):
        if reader.skipped:
            count = count_noun(reader.skipped, one, several)
            notes.append(f"{count} left out; the first: {reader.first_skipped[0]}.")
    kept, missing = match_judgements(qrels, judged, asked, present, skip_bad)
    notes += missing
    rows: dict[str, dict[str, int]] = {}
    for row in kept:
        rows.setdefault(row.query_id, {})[row.doc_id] = max(row.score, 0)  # no gain is below 0
    relevant = {query: row for query, row in rows.items() if any(row.values())}
    if without := len(rows) - len(relevant):
        count = count_noun(without, "judged query has", "judged queries have")
        notes.append(f"{count} no relevant document and had to be left out.")
    if not relevant:
        raise UsageError(f"{qrels}: no query has a relevant document; expected one or more.")
    chosen = [query for query in asked.values() if query.query_id in relevant]
    return RetrievalData(task.path, chosen, relevant, documents, skip_bad, notes)


def score_retrieval(
    data: RetrievalData, rankings: Iterable[Ranking], k: int, depth: int
) -> tuple[Scores, list[QueryHits]]:
    """Return the scores of rankings, and the best ten hits of each query.

    A document is dropped from a ranking where it is the query itself: the same id and the same
    text, or in the sets of ``BEIR_OWN_IDS`` the same id, as BEIR does.

    Parameters
    ----------
    rankings : of each query in ``data``, at least ``depth + 1`` hits where there are so many.
    k : the cut of nDCG and recall.
    depth : how many hits are scored.
    """
    run: dict[str, dict[str, float]] = {}
    shown: list[QueryHits] = []
    itself = 0
    by_id = data.folder.resolve().name in BEIR_OWN_IDS
    for query, found in rankings:
        hits = [hit for hit in found if not _is_query(hit, query, by_id)]
        itself += len(found) - len(hits)
        run[query.query_id] = {hit.doc_id: hit.score for hit in hits[:depth]}
        shown.append(keep_hits(query, hits, run[query.query_id], data.qrels[query.query_id]))
    scores = score_run(data.qrels, run, k)
    ids = [query.query_id for query in data.queries]
    metrics = retrieval_metrics(k)
    items = {name: [scores[name][query_id] for query_id in ids] for name in metrics}
    means = {name: float(np.mean(values)) for name, values in items.items()}
    notes = []
    if itself:
        count = count_noun(itself, "query", "queries")
        notes.append(f"{count} found itself among the documents, which does not count.")
    return Scores(metrics[0], means, ids, items, notes), shown


def _is_query(hit: Hit, query: Query, by_id: bool) -> bool:
    same = hit.doc_id == query.query_id
    return same and (by_id or hit.text.split() == query.text.split())


def keep_hits(
    query: Query, hits: Sequence[Hit], scores: Mapping[str, float], judged: Mapping[str, int]
) -> QueryHits:
    """Return what a result keeps of a ranking: all scores, and title and text of the best ten."""
    best = [
        TopHit(
            hit.doc_id,
            hit.score,
            judged.get(hit.doc_id, 0),
            " ".join(hit.title.split()),
            _shorten(hit.text),
        )
        for hit in hits[:HITS_KEPT]
    ]
    return QueryHits(query.query_id, query.text, best, scores, judged)


def _shorten(text: str) -> str:
    """Return the text on one line, cut between words where it is long."""
    line = " ".join(text[: 20 * SNIPPET_CHARACTERS].split())
    if len(line) <= SNIPPET_CHARACTERS:
        return line
    cut = line[: SNIPPET_CHARACTERS - 1]
    return (cut.rpartition(" ")[0] or cut) + "…"
