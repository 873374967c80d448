"""``millpond search``: hits for one text, or a TREC run for a file of queries."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer
from rich.cells import cell_len

from cli.console import clean, message, progress, warn
from cli.models import note_untrained
from cli.options import DeviceOption, IndexSpeedOption, JsonOption, SkipBadOption, TrustOption
from cli.output import (
    atomic_output,
    check_output,
    collapse,
    print_json,
    print_line,
    stdout_width,
    truncate,
    wrap,
)
from cli.store import StoredKeyOption, StoredUrlOption, use_stored_server

if TYPE_CHECKING:
    from retrieval import Hit, Query
    from retrieval.filters import Expression
    from retrieval.retriever import Retriever

__all__ = ["search"]

HITS_FOR_TEXT = 10
HITS_FOR_QUERIES = 100
RUN_TAG = "millpond"

_SNIPPET_LINES = 2
_PIPED_SNIPPET_CELLS = 160
_INDENT = "    "
_NARROWEST_TITLE = 10


def search(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The index folder.")],
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="What to look for.")] = None,
    k: Annotated[
        int | None,
        typer.Option(
            "-k",
            metavar="K",
            min=1,
            help="The number of hits.",
            show_default=f"{HITS_FOR_TEXT}, or {HITS_FOR_QUERIES} with --queries",
        ),
    ] = None,
    json: JsonOption = False,
    queries: Annotated[
        str | None,
        typer.Option(
            "--queries", metavar="FILE", help="Answer every query of a .jsonl or .tsv file."
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="OUT", help="The TREC run to write; - for stdout."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", metavar="MODEL", show_default="the model that made the index"
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="FILTER",
            help="Search only the documents whose fields match; 'millpond info' lists the fields.",
        ),
    ] = None,
    skip_bad: SkipBadOption = False,
    device: DeviceOption = None,
    url: StoredUrlOption = None,
    ask_key: StoredKeyOption = False,
    speed: IndexSpeedOption = None,
    trust_remote_code: TrustOption = False,
) -> None:
    """Find the documents of an index that are nearest to a text.

    With --json, one object per hit: rank, doc_id, score, title, text, and metadata if there is any.
    With --queries, a TREC run: query id, Q0, document id, rank from 1, score and tag per line. A
    filter compares fields with ==, !=, <, <=, >, >=, in, not in and contains, joined by and, or,
    not and parentheses.

    \b
    Examples:
      millpond search demo-index "delete a folder and everything in it"
      millpond search my-index "dams and fish" --filter 'year >= 2020 and lang == "en"'
      millpond search my-index --queries queries.jsonl --run run.trec
    """
    _check_request(text, queries, run, json)
    use_stored_server(folder, url, ask_key)
    if text is not None:
        retriever, chosen = _open(
            folder, model, device, speed, where, trust_remote_code, one_text=True
        )
        hits = retriever.search(text, k or HITS_FOR_TEXT, where=chosen)
        _print_hits(hits, as_json=json)
    elif queries is not None and run is not None:
        total = _check_queries(queries, skip_bad)
        if run != "-":
            check_output(Path(run), queries, folder, option="--run")
        retriever, chosen = _open(folder, model, device, speed, where, trust_remote_code)
        _write_run(retriever, queries, run, k or HITS_FOR_QUERIES, chosen, skip_bad, total)


def _check_request(text: str | None, queries: str | None, run: str | None, json: bool) -> None:
    """Raise UsageError unless exactly one of the two kinds of search is asked for."""
    from retrieval.errors import UsageError

    if (text is None) == (queries is None):
        arrived = "neither was given" if text is None else "both were given"
        raise UsageError(
            f"A search needs a text or --queries FILE, and {arrived}. Type: millpond search DIR "
            f'"TEXT", or: millpond search DIR --queries FILE --run OUT'
        )
    if text is not None and run is not None:
        raise UsageError("--run goes with --queries FILE. Leave it out, or add --queries.")
    if text is not None and not text.strip():
        raise UsageError("The text is empty; type what to look for.")
    if queries is not None and run is None:
        raise UsageError("--queries needs --run OUT, the file to write; - writes to stdout.")
    if queries is not None and json:
        raise UsageError("--json goes with a text; --queries writes a TREC run. Leave one out.")


def _open(
    folder: Path,
    model: str | None,
    device: str | None,
    asked_speed: str | None,
    where: str | None,
    trust: bool,
    *,
    one_text: bool = False,
) -> tuple[Retriever, Expression | None]:
    """Return a retriever, by default with the model that made the index, and the filter.

    For ``one_text`` on a CPU it may be one that does without torch, whose import takes longer
    than the search. A filter that cannot be read or does not fit the fields is refused before
    the model is loaded.
    """
    from indexes import Index
    from retrieval.filters import parse_filter
    from retrieval.retriever import Retriever

    index = Index.open(folder)
    chosen = None if where is None else parse_filter(where)
    if not index.count(chosen):
        warn("No document matches the filter.")
    retriever = Retriever.open(
        index,
        model,
        asked_speed,
        device,
        one_text=one_text,
        trust_remote_code=trust,
        notify=message,
    )
    note_untrained(retriever.encoder)
    return retriever, chosen


def _print_hits(hits: list[Hit], *, as_json: bool) -> None:
    if as_json:
        for hit in hits:
            print_json(_to_json(hit))
        return
    width = stdout_width()
    for hit in hits:
        for line in _layout(hit, width):
            _print_styled(line, hit) if width else print_line(line)


def _to_json(hit: Hit) -> dict[str, object]:
    data: dict[str, object] = {
        "rank": hit.rank,
        "doc_id": hit.doc_id,
        "score": hit.score,
        "title": hit.title,
        "text": hit.text,
    }
    return data | ({"metadata": dict(hit.metadata)} if hit.metadata else {})


def _layout(hit: Hit, width: int | None) -> Iterator[str]:
    """Yield the lines of one hit: rank, score, id and title, then at most two of its text.

    Piped (``width`` None), the text is one line that is cut but never wrapped.
    """
    head = f"{hit.rank:>2}  {hit.score:.4f}  {clean(hit.doc_id)}"
    title = collapse(hit.title)
    if title and title != hit.doc_id:
        head += "  " + title if width is None else _fit("  " + title, width - cell_len(head))
    yield head.rstrip()
    room = (width or _PIPED_SNIPPET_CELLS + len(_INDENT)) - len(_INDENT)
    start = collapse(hit.text[: 8 * room])
    for line in wrap(start, room, _SNIPPET_LINES if width else 1):
        yield _INDENT + line


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
        start = line.index("  ", 3) + 2
        shown.stylize("bold", start, start + len(clean(hit.doc_id)))
    Console(highlight=False, markup=False, emoji=False).print(shown, soft_wrap=True)


def _check_queries(source: str, skip_bad: bool) -> int | None:
    """Read the queries before a model is loaded; return their number, None for stdin."""
    if source == "-":
        return None
    from retrieval import read_queries

    queries = read_queries(source, skip_bad=skip_bad)
    total = 0
    for query in queries:
        _check_id("query", query.query_id)
        total += 1
    if queries.skipped:
        warn(f"{queries.skipped:,} bad queries are skipped. The first: {queries.first_skipped[0]}")
    return total


def _write_run(
    retriever: Retriever,
    source: str,
    run: str,
    k: int,
    where: Expression | None,
    skip_bad: bool,
    total: int | None,
) -> None:
    """Write a TREC run, holding one batch of queries in memory."""
    from retrieval import read_queries

    queries = read_queries(source, skip_bad=skip_bad)
    with _open_run(run) as stream, progress("Searching", total, "queries") as advance:
        count = 0
        for query, hits in retriever.search_many(queries, k, where=where):
            stream.writelines(_run_lines(query, hits))
            advance(1)
            count += 1
    message(f"Answered {count:,} {'query' if count == 1 else 'queries'}: {run}")


def _run_lines(query: Query, hits: Iterable[Hit]) -> Iterator[str]:
    """Yield TREC run lines; nine digits keep every float32 score distinct."""
    _check_id("query", query.query_id)
    for hit in hits:
        _check_id("document", hit.doc_id)
        yield f"{query.query_id} Q0 {hit.doc_id} {hit.rank} {hit.score:.9g} {RUN_TAG}\n"


def _check_id(kind: str, identifier: str) -> None:
    """Raise UsageError for an id that a TREC run cannot hold."""
    if identifier.split() != [identifier]:
        from retrieval.errors import UsageError

        raise UsageError(
            f"The {kind} id {identifier!r} contains a space, and the columns of a TREC run are "
            f"separated by spaces. Rename the id, or search one text at a time with --json."
        )


@contextmanager
def _open_run(run: str) -> Iterator[IO[str]]:
    if run == "-":
        yield sys.stdout
        return
    with atomic_output(Path(run)) as path, path.open("w", encoding="utf-8", newline="\n") as stream:
        yield stream
