"""An opened search, and its hits for a text, for many queries, or as a TREC run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cli.console import message, progress, warn, write_utf8
from cli.hits import print_hits
from cli.models import note_untrained
from cli.output import atomic_output
from retrieval.blend import Blend
from retrieval.plurals import count_noun
from retrieval.runs import RunIds

if TYPE_CHECKING:
    from indexes import Index
    from indexes.group import IndexGroup
    from indexes.search.modes import Searchable
    from retrieval import Hit, Query
    from retrieval.retriever import Retriever

__all__ = [
    "CANDIDATES",
    "RUN_TAG",
    "Choices",
    "Search",
    "check_queries",
    "print_answers",
    "warn_of_missing_words",
    "write_run",
]

RUN_TAG = "millpond"
CANDIDATES = 50
"""How many hits a reranker reads; a test holds it equal to ``retrieval.retriever.CANDIDATES``."""


@dataclass(frozen=True)
class Choices:
    """How texts are asked for: what ``Retriever.search`` takes, as it was typed."""

    k: int
    where: str | None = None
    mode: str | None = None
    fusion: str = "convex"
    weight: float | None = None
    distinct: bool = False


class Search:
    """Answers texts from an index with choices that were checked.

    What does not fit the index is refused before its model is loaded. In mode "lexical" none is.

    Parameters
    ----------
    retriever : of an index, or of several as one; opened as for mode "lexical".
    label : how messages name the index.

    Raises
    ------
    UsageError, UnknownNameError : as ``choose``.
    MillpondError : the model cannot be loaded.
    """

    def __init__(self, retriever: Retriever, label: str, choices: Choices) -> None:
        self.retriever = retriever
        self.label = label
        self._noted = False
        self.choose(choices)
        if choices.mode is None and self.blend.mode == "dense":
            warn_of_missing_words(self._index)
        self._load()

    @property
    def _index(self) -> Index | IndexGroup:
        from indexes import Index
        from indexes.group import IndexGroup

        assert isinstance(self.retriever.index, Index | IndexGroup)
        return self.retriever.index

    def choose(self, choices: Choices) -> None:
        """Check the choices against the index and take them.

        Raises
        ------
        UsageError, UnknownNameError : they do not fit the index; what was chosen before stays.
        """
        index = self._index
        self.blend = index.choose(Blend(choices.mode, choices.fusion, choices.weight), self.label)
        if not index.count(choices.where):
            warn("No document matches the filter.")
        self.choices = choices

    def _load(self) -> None:
        """Load the model, if the mode needs it and it is not loaded yet."""
        if self.blend.mode != "lexical" and not self._noted:
            note_untrained(self.retriever.encoder)
            self._noted = True

    def answer(self, text: str) -> list[Hit]:
        """Return the hits of a text, and say where they are fewer or otherwise than expected."""
        self._load()
        hits = self.retriever.search(text, **vars(self.choices))
        if not hits and self.blend.mode == "lexical":
            message("No document has a word of the text. Another mode looks for its meaning.")
        elif hits and hits[0].arms and not any(hit.arms["lexical"].score for hit in hits):
            message("No document has a word of the text: its meaning alone decides.")
        self.note_cut_pairs()
        return hits

    def note_cut_pairs(self) -> None:
        """Say how many documents the reranker did not read to their end since this was asked."""
        reranker = self.retriever.reranker
        if reranker is not None and (cut := reranker.take_cut()):
            warn(
                f"{reranker.name} read {count_noun(cut, 'candidate')} to token "
                f"{reranker.max_tokens} and no further. Passages are short enough: index with "
                f"--passages."
            )


def warn_of_missing_words(opened: Searchable) -> None:
    """Say of which indexes the words cannot be searched, where nobody asked for that."""
    from indexes.search.modes import describe_lacking

    for part in opened.parts:
        tell = warn if part.snapshot.lexical_fault else message
        if part.snapshot.lexical is None:
            tell(f"The search is by meaning alone. {describe_lacking([part])}")


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

    queries = read_queries(source, skip_bad=skip_bad)
    return search.retriever.search_many(queries, with_text=with_text, **vars(search.choices))


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
