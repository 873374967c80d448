"""Tab-separated files with a header that names the columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval.corpus.formats import open_bytes, read_lines
from retrieval.errors import RecordError, UsageError

__all__ = ["Table", "read_header", "read_table"]

_KEPT = 5


@dataclass(frozen=True)
class Table:
    """The good rows of a file.

    Attributes
    ----------
    rows : the columns that were asked for, in that order.
    lines : the 1-based line of each row.
    skipped : how many bad rows were left out.
    first_skipped : what was wrong with the first of them.
    """

    rows: Sequence[tuple[str, ...]]
    lines: Sequence[int]
    skipped: int
    first_skipped: Sequence[str]

    def notes(self, path: Path) -> tuple[str, ...]:
        """Return a sentence on the bad rows that were left out, if any."""
        if not self.skipped:
            return ()
        rows = "1 bad row was" if self.skipped == 1 else f"{self.skipped:,} bad rows were"
        return (f"{rows} left out of {path.name}; the first: {self.first_skipped[0]}.",)


def read_header(path: Path) -> tuple[str, ...]:
    """Return the cells of a file's first line; empty where it is not text."""
    with open_bytes(path, str(path)) as stream:
        line = next(read_lines(stream), None)
    return () if line is None or line.problem else _split(line.text)


def read_table(
    path: Path,
    columns: Sequence[str],
    check: Callable[[Sequence[str]], str],
    *,
    skip_bad: bool,
    positional: bool = False,
) -> Table:
    """Return the named columns of every row. A quote is text, a row is a line.

    Parameters
    ----------
    check : returns what is wrong with a row's columns, "" for nothing.
    skip_bad : leave bad rows out, instead of raising.
    positional : the columns are the first ones, and a first line whose last cell is not
        "score" is a row.

    Raises
    ------
    RecordError : the header lacks a column, or a row is bad.
    UsageError : no row is left.
    StorageError : the file cannot be read.
    """
    source = str(path)
    places: list[int] | None = None
    width, kept, lines, problems = 0, [], [], []
    with open_bytes(path, source) as stream:
        for line in read_lines(stream):
            cells = _split(line.text)
            if places is None and positional:
                places, width = list(range(len(columns))), len(columns)
                if not line.problem and cells[-1].strip().lower() == "score":
                    continue
            if places is None:
                places, width = _find_columns(source, cells, columns), len(cells)
                continue
            if not line.text.strip() and not line.problem:
                continue
            row, problem = _pick(cells, places, width)
            problem = line.problem or problem or check(row)
            if not problem:
                kept.append(row)
                lines.append(line.number)
            elif skip_bad:
                problems.append(f"line {line.number}: {problem}")
            else:
                raise RecordError(
                    source,
                    line.number,
                    f"{problem}. Fix it, or pass --skip-bad to count such rows and go on",
                )
    if not kept:
        raise UsageError(f"{source}: no row is left; one or more is accepted.")
    return Table(kept, lines, len(problems), problems[:_KEPT])


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.rstrip("\r\n").split("\t"))


def _find_columns(source: str, header: Sequence[str], columns: Sequence[str]) -> list[int]:
    missing = [name for name in columns if name not in header]
    if missing:
        raise RecordError(
            source, 1, f"the header has no {missing[0]!r}; accepted: {', '.join(columns)}, by tabs"
        )
    return [header.index(name) for name in columns]


def _pick(cells: Sequence[str], places: Sequence[int], width: int) -> tuple[tuple[str, ...], str]:
    if len(cells) != width:
        noun = "column" if len(cells) == 1 else "columns"
        return (), f"the row has {len(cells)} {noun}; accepted are {width}, by tabs"
    return tuple(cells[place] for place in places), ""
