"""An opened search, and its hits: lines for people, objects for machines, or a TREC run."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, TYPE_CHECKING

from rich.cells import cell_len

from cli.console import (
    clean,
    collapse,
    message,
    print_json,
    print_line,
    progress,
    stdout_width,
    truncate,
    warn,
    wrap,
    write_utf8,
)
from cli.models import note_untrained
from cli.output import atomic_output
from retrieval.errors import count_noun
from retrieval.runs import RunIds
from retrieval.types import Blend

if TYPE_CHECKING:
    from indexes import Index
    from indexes.group import IndexGroup
    from indexes.search.modes import Searchable
    from retrieval import Hit, Query
    from retrieval.retriever import Retriever

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
        if choices.where is not None and not index.count(choices.where):
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


_SNIPPET_LINES = 2
_PIPED_SNIPPET_CELLS = 160
_INDENT = "    "
_NARROWEST_TITLE = 10
_SENTENCE = re.compile(r"[.!?\u2026]\s+|[\u3002\uff01\uff1f]|\n\s*")
_BEFORE_SNIPPET = 10
_PLACES_COMPARED = 200


def print_hits(
    hits: Sequence[Hit], *, as_json: bool, query: Mapping[str, object] | None = None
) -> None:
    """Print hits; ``query`` goes before the fields of each JSON object."""
    if as_json:
        for hit in hits:
            print_json({**(query or {}), **to_json(hit)})
        return
    width = stdout_width()
    for hit in hits:
        for line in lay_out(hit, width):
            _print_styled(line, hit) if width else print_line(line)


def to_json(hit: Hit) -> dict[str, object]:
    """Return the fields of a hit; those that only some searches give where there are any."""
    data: dict[str, object] = {
        "rank": hit.rank,
        "doc_id": hit.doc_id,
        "score": hit.score,
        "title": hit.title,
        "text": hit.text,
    }
    if hit.metadata:
        data["metadata"] = dict(hit.metadata)
    if hit.passage is not None:
        part = hit.passage
        data["passage"] = {"number": part.number, "start": part.start, "stop": part.stop}
    if hit.arms:
        data["arms"] = {
            name: {"score": arm.score, "rank": arm.rank} for name, arm in hit.arms.items()
        }
    if hit.first_stage is not None:
        first = hit.first_stage
        data["first_stage"] = {"score": first.score, "rank": first.rank}
    if hit.arms or hit.matched:
        data["matched"] = list(hit.matched)
    return data | ({"index": hit.index} if hit.index else {})


def lay_out(hit: Hit, width: int | None) -> Iterator[str]:
    """Yield the lines of one hit: rank, score, id and title, then at most two of its text.

    Between them stands where in its document a passage is, if that is known.
    On a terminal, another line says why it is one. Piped (``width`` None), the text is one line
    that is cut but never wrapped.
    """
    place = f"{clean(hit.index)}: " if hit.index else ""
    head = f"{hit.rank:>2}  {hit.score:.4f}  {place}{clean(hit.doc_id)}"
    title = collapse(hit.title)
    if title and title != hit.doc_id:
        head += "  " + title if width is None else _fit("  " + title, width - cell_len(head))
    yield head.rstrip()
    place = name_place(hit)
    if place:
        yield _INDENT + (place if width is None else truncate(place, width - len(_INDENT)))
    room = (width or _PIPED_SNIPPET_CELLS + len(_INDENT)) - len(_INDENT)
    lines = _SNIPPET_LINES if width else 1
    start = _find_snippet(hit.text, hit.matched, lines * room)
    shown = ("… " if start else "") + collapse(hit.text[start : start + 8 * room])
    for line in wrap(shown, room, lines):
        yield _INDENT + line
    why = explain(hit)
    if width is not None and why:
        yield _INDENT + truncate(why, room)


def _find_snippet(text: str, matched: Sequence[str], room: int) -> int:
    """Return where to begin: at the start, or if that shows none of these words, where most do."""
    words = "|".join(re.escape(word) for word in sorted(matched, key=len, reverse=True))
    places = [(found.start(), found[0]) for found in re.finditer(words, text)] if words else []

    def count(start: int) -> int:
        last = start + room - _BEFORE_SNIPPET
        return len({word.casefold() for place, word in places if start <= place < last})

    if not places or count(0):
        return 0
    starts = []
    for place, _ in places[:_PLACES_COMPARED]:
        before = text[max(0, place - room // 2) : place]
        ends = [end.end() for end in _SENTENCE.finditer(before)]
        starts.append(place - len(before) + (ends[-1] if ends else before.find(" ") + 1))
    return max(starts, key=count)  # the first of equals


def name_place(hit: Hit) -> str:
    """Return where in its document a passage is, as "Guide > Install, page 12"; "" if unknown."""
    if hit.passage is None:
        return ""
    heading, page = hit.metadata.get("heading"), hit.metadata.get("page")
    parts = [collapse(str(heading))] if heading else []
    return ", ".join(parts + ([f"page {page}"] if page is not None else []))


def explain(hit: Hit) -> str:
    """Return what each arm gave a hit and the words that matched; "" where there is nothing.

    A rank is missing where that arm did not return the document and only scored it.
    """
    parts = []
    if hit.first_stage is not None:
        parts.append(f"before {hit.first_stage.score:.4f} (rank {hit.first_stage.rank})")
    for name, arm in hit.arms.items():
        digits = 4 if name == "dense" else 2
        rank = f" (rank {arm.rank})" if arm.rank is not None else ""
        parts.append(f"{name} {arm.score:.{digits}f}{rank}")
    told: dict[str, str] = {}
    for word in map(collapse, hit.matched):  # "Mill" and "mill" once
        told.setdefault(word.casefold(), word)
    words = ", ".join(told.values())
    return ", ".join(parts) + (": " if parts and words else "") + words


def _fit(text: str, room: int) -> str:
    """Return the text cut to the room, "" if the room is too small to be useful."""
    return truncate(text, room) if room >= _NARROWEST_TITLE else ""


def _print_styled(line: str, hit: Hit) -> None:
    """Print a line on a terminal, the document id in bold and the text dim."""
    from rich.console import Console
    from rich.text import Text

    shown = Text(line)
    if line.startswith(_INDENT):
        shown.stylize("dim")
    else:
        start = line.index(clean(hit.doc_id), line.index("  ", 3))
        shown.stylize("bold", start, start + len(clean(hit.doc_id)))
    Console(highlight=False, markup=False, emoji=False).print(shown, soft_wrap=True)
