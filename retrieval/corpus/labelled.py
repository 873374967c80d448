"""Tab-separated files of labelled texts: any named columns, and pairs of sentences with a score."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval.corpus.lines import open_bytes, read_lines
from retrieval.errors import RecordError, UsageError, count_noun

STS_COLUMNS = ("score", "sentence1", "sentence2")

_SKIP_ADVICE = ". Fix it, or pass --skip-bad to count such rows and go on"
_JOINTS = re.compile(r"[\s_\-.]+")


@dataclass(frozen=True)
class Table:
    """The good rows of a file.

    Attributes
    ----------
    rows : the columns that were asked for, in that order.
    lines : the 1-based line of each row.
    notes : a sentence on the bad rows that were left out, if there were any.
    """

    rows: Sequence[tuple[str, ...]]
    lines: Sequence[int]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class StsPairs:
    """Pairs of sentences with the similarity that people gave them.

    Attributes
    ----------
    first, second : the two sentences of each pair.
    scores : one finite number per pair; a higher one means more alike.
    notes : as of ``Table``.
    """

    first: Sequence[str]
    second: Sequence[str]
    scores: Sequence[float]
    notes: tuple[str, ...] = ()


Find = Callable[[int, Sequence[str]], list[int] | None]
"""The number of the first line and its cells to the places of the columns, None for no header."""


def plain_name(cell: str) -> str:
    """Return a column's name without case and joints: "queryid" of "Query-ID" and "query_id"."""
    return _JOINTS.sub("", cell.strip().strip('"')).lower()


def match_columns(
    cells: Sequence[str], columns: Sequence[Collection[str]]
) -> tuple[int | None, ...]:
    """Return the place of each column in a header, None where no cell names it.

    Parameters
    ----------
    columns : the names that each column may have, as ``plain_name`` gives them.
    """
    plain = [plain_name(cell) for cell in cells]
    return tuple(
        next((place for place, name in enumerate(plain) if name in names), None)
        for names in columns
    )


def read_header(path: Path) -> tuple[str, ...]:
    """Return the cells of a file's first line, as names; empty where it is not text."""
    with open_bytes(path, str(path)) as stream:
        line = next(read_lines(stream), None)
    return () if line is None or line.problem else tuple(map(plain_name, _split(line.text)))


def read_table(
    path: Path,
    columns: Sequence[str],
    check: Callable[[Sequence[str]], str],
    *,
    skip_bad: bool | None = None,
    find: Find | None = None,
    blanks: bool = False,
) -> Table:
    """Return the named columns of every row. A quote is text, a row is a line.

    Parameters
    ----------
    columns : their names in the header, in any case.
    check : returns what is wrong with a row's columns, "" for nothing.
    skip_bad : True leaves bad rows out. False raises and mentions ``--skip-bad``; None raises
        without it, for commands that lack the flag.
    find : finds the columns where the names may be others, or where a file without a header has
        the columns in this order.
    blanks : columns are separated by blanks, not by tabs.

    Raises
    ------
    RecordError : the header lacks a column or has it twice, or a row is bad.
    UsageError : no row is left.
    StorageError : the file cannot be read.
    """
    source = str(path)
    places: list[int] | None = None
    width, rows, lines, problems = 0, [], [], []
    with open_bytes(path, source) as stream:
        for line in read_lines(stream):
            cells = tuple(line.text.split()) if blanks else _split(line.text)
            if places is None:
                if line.problem:
                    raise RecordError(source, line.number, line.problem)
                found = (find or _by_name(source, columns))(line.number, cells)
                places = list(range(len(columns))) if found is None else found
                width = len(columns) if found is None else len(cells)
                if found is not None:
                    continue
            if not line.text.strip() and not line.problem:
                continue
            row, problem = _pick(cells, places, width, "blanks" if blanks else "tabs")
            problem = line.problem or problem or check(row)
            if not problem:
                rows.append(row)
                lines.append(line.number)
            elif skip_bad:
                problems.append(f"line {line.number}: {problem}")
            else:
                advice = "" if skip_bad is None else _SKIP_ADVICE
                raise RecordError(source, line.number, problem + advice)
    if not rows:
        raise UsageError(f"{source}: no row is left; expected one or more.")
    return Table(rows, lines, _notes(path, problems))


def read_sts(path: Path, *, skip_bad: bool | None = None) -> StsPairs:
    """Return the pairs of a file whose header names score, sentence1 and sentence2.

    Parameters
    ----------
    skip_bad : as for ``read_table``.

    Raises
    ------
    RecordError : the header lacks a column, or a row is bad: its score is no finite number, say.
    UsageError : fewer than two pairs.
    StorageError : the file cannot be read.
    """
    table = read_table(path, STS_COLUMNS, _check_score, skip_bad=skip_bad)
    if len(table.rows) < 2:
        raise UsageError(f"{path}: it holds 1 pair; expected 2 or more.")
    scores, first, second = zip(*table.rows, strict=True)
    return StsPairs(first, second, [float(score) for score in scores], table.notes)


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.rstrip("\r\n").split("\t"))


def _by_name(source: str, columns: Sequence[str]) -> Find:
    """Return what finds the columns by their names, and refuses a header that lacks one."""

    def find(number: int, header: Sequence[str]) -> list[int]:
        expected = f"{', '.join(columns)}, separated by tabs"
        plain = [plain_name(cell) for cell in header]
        for name in columns:
            if plain.count(name) != 1:
                state = "has two columns" if name in plain else "has no"
                raise RecordError(
                    source, number, f"the header {state} {name!r}; expected {expected}"
                )
        return [plain.index(name) for name in columns]

    return find


def _pick(
    cells: Sequence[str], places: Sequence[int], width: int, apart: str
) -> tuple[tuple[str, ...], str]:
    if len(cells) != width:
        found = count_noun(len(cells), "column")
        return (), f"the row has {found}; expected {width}, separated by {apart}"
    return tuple(cells[place] for place in places), ""


def _notes(path: Path, problems: Sequence[str]) -> tuple[str, ...]:
    if not problems:
        return ()
    rows = count_noun(len(problems), "bad row was", "bad rows were")
    return (f"{rows} left out of {path.name}; the first: {problems[0]}.",)


def _check_score(row: Sequence[str]) -> str:
    try:
        if math.isfinite(float(row[0])):
            return ""
    except ValueError:
        pass
    return f"the score is {row[0][:40]!r}; expected a number"
