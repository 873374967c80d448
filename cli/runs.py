"""The hits of many queries: a TREC run, or JSON lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cli.console import message, progress, warn, write_utf8
from cli.hits import print_hits
from cli.output import atomic_output
from retrieval.plurals import count_noun
from retrieval.runs import RunIds

if TYPE_CHECKING:
    from cli.searching import Search
    from retrieval import Hit, Query

__all__ = ["RUN_TAG", "check_queries", "print_answers", "write_run"]

RUN_TAG = "millpond"


def check_queries(source: str, skip_bad: bool) -> int | None:
    """Read the queries before a model is loaded; return their number, None for stdin."""
    if source == "-":
        return None
    from retrieval import read_queries

    queries = read_queries(source, skip_bad=skip_bad)
    total = sum(1 for _ in queries)
    if queries.skipped:
        count = count_noun(queries.skipped, "bad query is", "bad queries are")
        warn(f"{count} skipped. The first: {queries.first_skipped[0]}")
    return total


def write_run(search: Search, source: str, run: str, skip_bad: bool, total: int | None) -> None:
    """Write a TREC run, holding one batch of queries in memory."""
    ids = RunIds()
    with _open_run(run) as stream, progress("Searching", total, "queries") as advance:
        count = 0
        for query, hits in _answer_all(search, source, skip_bad, with_text=False):
            stream.writelines(_run_lines(query, hits, ids))
            advance(1)
            count += 1
    if ids.first is not None:
        warn(ids.describe())
    search.note_cut_pairs()
    message(f"Answered {count_noun(count, 'query', 'queries')}: {run}")


def print_answers(search: Search, source: str, skip_bad: bool) -> None:
    """Print every hit of every query as a JSON object that begins with the query's id."""
    for query, hits in _answer_all(search, source, skip_bad, with_text=True):
        print_hits(hits, as_json=True, query={"query_id": query.query_id})
    search.note_cut_pairs()


def _answer_all(
    search: Search, source: str, skip_bad: bool, *, with_text: bool
) -> Iterator[tuple[Query, list[Hit]]]:
    from retrieval import read_queries

    asked = search.choices
    return search.retriever.search_many(
        read_queries(source, skip_bad=skip_bad),
        asked.k,
        with_text=with_text,
        where=search.where,
        mode=asked.mode,
        fusion=asked.fusion,
        weight=asked.weight,
        distinct=asked.distinct,
    )


def _run_lines(query: Query, hits: Iterable[Hit], ids: RunIds) -> Iterator[str]:
    """Yield TREC run lines; nine digits keep every float32 score distinct."""
    query_id = ids(query.query_id)
    best = {hit.doc_id: hit for hit in reversed(list(hits))}  # one id in several indexes: the best
    for rank, hit in enumerate(reversed(best.values()), start=1):
        yield f"{query_id} Q0 {ids(hit.doc_id)} {rank} {hit.score:.9g} {RUN_TAG}\n"


@contextmanager
def _open_run(run: str) -> Iterator[IO[str]]:
    if run == "-":
        if isinstance(sys.stdout, TextIOWrapper):
            write_utf8(sys.stdout)
        yield sys.stdout
        return
    with atomic_output(Path(run)) as path, path.open("w", encoding="utf-8", newline="\n") as stream:
        yield stream
