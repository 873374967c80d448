"""Retrieval: BEIR folders, their judgements, and the scores of a ranking."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.scoring.metrics import retrieval_metrics, score_run
from benchmarks.scoring.results import QueryHits, TopHit
from benchmarks.tasks.task import Scores, Task
from retrieval import Corpus, Hit, Query, read_corpus, read_queries
from retrieval.corpus.qrels import Judgement, find_beir, read_qrels
from retrieval.errors import RecordError, UsageError

__all__ = [
    "PROTOCOL",
    "RetrievalData",
    "load_retrieval",
    "retrieval_files",
    "score_retrieval",
]

PROTOCOL = 1
HITS_KEPT = 10
SNIPPET_CHARACTERS = 200

_NAMED = 5

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

    Queries with no relevant document are left out, and a note says how many.

    Raises
    ------
    RecordError : a bad record, or judgements of queries or documents that are not there, unless
        ``skip_bad``.
    UsageError : no query with a relevant document is left.
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
            count = _count(reader.skipped, one, several)
            notes.append(f"{count} left out; the first: {reader.first_skipped[0]}.")
    kept, dropped = _drop_unknown(qrels, judged, set(asked), present, skip_bad)
    notes += dropped
    rows: dict[str, dict[str, int]] = {}
    for row in kept:
        rows.setdefault(row.query_id, {})[row.doc_id] = max(row.score, 0)  # no gain is below 0
    relevant = {query: row for query, row in rows.items() if any(row.values())}
    judged_at_all = {row.query_id for row in judged} & set(asked)
    if missing := len(judged_at_all) - len(relevant):
        count = _count(missing, "judged query has", "judged queries have")
        notes.append(f"{count} no relevant document and had to be left out.")
    if not relevant:
        raise UsageError(f"{qrels}: no query has a relevant document; expected one or more.")
    chosen = [query for query in asked.values() if query.query_id in relevant]
    return RetrievalData(task.path, chosen, relevant, documents, skip_bad, notes)


def score_retrieval(
    data: RetrievalData, rankings: Iterable[Ranking], k: int, depth: int
) -> tuple[Scores, list[QueryHits]]:
    """Return the scores of rankings, and the best ten hits of each query.

    A document is dropped from a ranking where it is the query itself, as in ArguAna: the same id
    and the same text.

    Parameters
    ----------
    rankings : of each query in ``data``, at least ``depth + 1`` hits where there are so many.
    k : the cut of nDCG and recall.
    depth : how many hits are scored.
    """
    run: dict[str, dict[str, float]] = {}
    shown: list[QueryHits] = []
    itself = 0
    for query, found in rankings:
        hits = [hit for hit in found if not _is_query(hit, query)]
        itself += len(found) - len(hits)
        run[query.query_id] = {hit.doc_id: hit.score for hit in hits[:depth]}
        shown.append(_keep_hits(query, hits[:HITS_KEPT], data.qrels[query.query_id]))
    scores = score_run(data.qrels, run, k)
    ids = [query.query_id for query in data.queries]
    metrics = retrieval_metrics(k)
    items = {name: [scores[name][query_id] for query_id in ids] for name in metrics}
    means = {name: float(np.mean(values)) for name, values in items.items()}
    notes = []
    if itself:
        count = _count(itself, "query", "queries")
        notes.append(f"{count} found itself among the documents, which does not count.")
    return Scores(metrics[0], means, ids, items, notes), shown


def _is_query(hit: Hit, query: Query) -> bool:
    return hit.doc_id == query.query_id and hit.text.split() == query.text.split()


def _keep_hits(query: Query, hits: Sequence[Hit], judged: Mapping[str, int]) -> QueryHits:
    return QueryHits(
        query.query_id,
        query.text,
        [
            TopHit(
                hit.doc_id,
                hit.score,
                judged.get(hit.doc_id, 0),
                " ".join(hit.title.split()),
                _shorten(hit.text),
            )
            for hit in hits
        ],
    )


def _count(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _shorten(text: str) -> str:
    """Return the text on one line, cut between words where it is long."""
    line = " ".join(text[: 20 * SNIPPET_CHARACTERS].split())
    if len(line) <= SNIPPET_CHARACTERS:
        return line
    cut = line[: SNIPPET_CHARACTERS - 1]
    return (cut.rpartition(" ")[0] or cut) + "…"


def _drop_unknown(
    path: Path, judged: Sequence[Judgement], queries: set[str], documents: set[str], skip_bad: bool
) -> tuple[list[Judgement], list[str]]:
    """Return the judgements of queries and documents that are there, and a note on the others."""
    kept, unknown = [], []
    for row in judged:
        if row.query_id not in queries:
            unknown.append((row.line, f"query {row.query_id!r}"))
        elif row.doc_id not in documents:
            unknown.append((row.line, f"document {row.doc_id!r}"))
        else:
            kept.append(row)
    if not unknown:
        return kept, []
    listing = ", ".join(f"{what} (line {line})" for line, what in unknown[:_NAMED])
    more = ", ..." if len(unknown) > _NAMED else ""
    count = len(unknown)
    if not skip_bad:
        rows = _count(count, "row names", "rows name")
        raise RecordError(
            str(path),
            unknown[0][0],
            f"{rows} a query or document that does not exist: {listing}{more}. Fix the file, or "
            f"pass --skip-bad to leave such rows out",
        )
    rows = _count(count, "judgement was", "judgements were")
    return kept, [f"{rows} left out, of a query or document that does not exist: {listing}{more}."]
