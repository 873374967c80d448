"""The terminal: lines and tables of results on stdout, messages and progress on stderr."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, chop_cells, set_cell_size

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_PLAIN_INTERVAL_SECONDS = 5.0

# C0, DEL and C1 controls, line separators, marks that turn the writing direction, lone
# surrogates: what lets the text of a document move the cursor or pretend to be our output.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def open_closed_streams() -> None:
    """Put the null device in place of each standard stream that the caller has closed.

    Its descriptor would otherwise go to the next file that is opened, such as one of an index,
    and whatever a library prints would be written into that file.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # descriptors 0, 1, 2
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def escape_unknown() -> None:
    """Let stdout and stderr escape the characters that their encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def write_utf8(stream: TextIOWrapper) -> None:
    """Let a stream of data be UTF-8 with plain line feeds, whatever the system's encoding is."""
    if (stream.encoding or "").lower() not in ("utf-8", "utf8"):
        stream.reconfigure(encoding="utf-8", newline="\n")


def clean(text: str) -> str:
    """Return the text on one line, with a space for each character that could steer a terminal."""
    return _UNPRINTABLE.sub(" ", text).strip()


def message(text: str) -> None:
    """Print one line to stderr."""
    _print("", "", text)


def warn(text: str) -> None:
    """Print one line to stderr that begins with "Warning: "."""
    _print("Warning: ", "yellow", text)


def write_error(text: str) -> None:
    """Print one line to stderr that begins with "Error: "."""
    _print("Error: ", "bold red", text)


def _print(label: str, style: str, text: str) -> None:
    """Print one line; on a terminal it is wrapped between words."""
    if not sys.stderr.isatty():
        print(label + clean(text), file=sys.stderr, flush=True)
        return
    from rich.text import Text

    _stderr_console().print(Text.assemble((label, style), clean(text)))


def _stderr_console() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, emoji=False)


_GAP = "  "
_NARROWEST = 40


def collapse(text: str) -> str:
    """Return the text as ``clean`` does, with single blanks between words."""
    return " ".join(clean(text).split())


def stdout_width() -> int | None:
    """Return the columns of the terminal on stdout; None if stdout is not a terminal."""
    if not sys.stdout.isatty():
        return None
    return max(_NARROWEST, shutil.get_terminal_size().columns)


def truncate(text: str, width: int) -> str:
    """Return the text in at most ``width`` terminal cells, with "…" at the end if it was cut."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)).rstrip() + "…"


def wrap(text: str, width: int, max_lines: int) -> list[str]:
    """Return the words in lines of at most ``width`` cells, the last one cut if need be."""
    lines: list[str] = []
    for line in _fill(text, width):
        if len(lines) == max_lines:
            lines[-1] = truncate(lines[-1] + " " + line, width)
            break
        lines.append(line)
    return lines


def _fill(text: str, width: int) -> Iterator[str]:
    """Yield lines of whole words; a word wider than a line is broken."""
    line = ""
    for word in text.split():
        if line and cell_len(line) + 1 + cell_len(word) <= width:
            line = f"{line} {word}"
            continue
        if line:
            yield line
        *full, line = chop_cells(word, width)
        yield from full
    if line:
        yield line


def format_table(rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """Yield lines with aligned columns; the last column wraps inside ``width``, if given."""
    if not rows:
        return
    fixed = [max(cell_len(cell) for cell in column) for column in list(zip(*rows, strict=True))]
    indent = sum(fixed[:-1]) + len(_GAP) * (len(fixed) - 1)
    for *cells, last in rows:
        padded = [set_cell_size(cell, size) for cell, size in zip(cells, fixed, strict=False)]
        head = _GAP.join([*padded, ""])
        lines = [last] if width is None else list(_fill(last, max(_NARROWEST // 2, width - indent)))
        yield (head + (lines[0] if lines else "")).rstrip()
        yield from (" " * indent + line for line in lines[1:])


def print_table(rows: Sequence[Sequence[str]], header: Sequence[str] = ()) -> None:
    """Print aligned columns; a cell may begin with blanks, as an indentation."""
    cells = [[clean(cell) if cell.strip() == cell else cell for cell in row] for row in rows]
    for line in format_table([header, *cells] if header else cells, stdout_width()):
        print_line(line)


def format_size(size_bytes: int) -> str:
    """Return a size such as "93 MB" (1 MB is 10**6 bytes)."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            amount = size_bytes / factor
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return f"{size_bytes} bytes"


def print_line(line: str = "") -> None:
    """Print one line of results."""
    sys.stdout.write(line + "\n")


def print_json(value: Any) -> None:
    """Print one JSON value as one line: in UTF-8, on a terminal in the characters that it has."""
    if isinstance(sys.stdout, TextIOWrapper) and not sys.stdout.isatty():
        write_utf8(sys.stdout)
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print_line(json.dumps(value, ensure_ascii=not utf8))


@contextmanager
def progress(label: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Show progress; gives a function to call with the number of items just finished.

    Shows a bar with rate and time left on a terminal, else one plain line every 5 seconds.

    Parameters
    ----------
    label : what is being done, such as "Indexing".
    total : the number of items; None if unknown.
    unit : what the items are, such as "documents".
    """
    console = _stderr_console() if sys.stderr.isatty() else None
    if console is None or console.is_dumb_terminal:
        yield PlainProgress(label, total, unit, message)
        return
    bar = _build_bar(console, unit)
    with bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


class PlainProgress:
    """Prints progress as plain lines, one every few seconds.

    Parameters
    ----------
    label, total, unit : as in ``progress``.
    show : receives each line.
    clock : returns seconds that never decrease.
    """

    def __init__(
        self,
        label: str,
        total: int | None,
        unit: str,
        show: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._total = total
        self._unit = unit
        self._show = show
        self._clock = clock
        self._done = 0
        self._first: tuple[float, int] | None = None
        self._shown = clock()

    def __call__(self, count: int) -> None:
        """Count finished items; print a line if the last one is 5 seconds old."""
        self._done += count
        now = self._clock()
        if self._first is None:  # until here a model may have been loaded, which is no rate
            self._first = now, self._done
        if now - self._shown >= _PLAIN_INTERVAL_SECONDS:
            self._shown = now
            self._show(self._line(now))

    def _line(self, now: float) -> str:
        """Return the line; rate and time left are known once something was done twice."""
        total = "" if self._total is None else f" of {self._total:,}"
        line = f"{self._label}: {self._done:,}{total} {self._unit}"
        start, before = self._first or (now, self._done)
        if now <= start or self._done <= before:
            return line
        rate = (self._done - before) / (now - start)
        line += f", {rate:,.1f}/s"
        if self._total is None:
            return line
        return f"{line}, {format_seconds(max(0, self._total - self._done) / rate)} left"


def format_seconds(seconds: float) -> str:
    """Return a duration such as "4.2 s", "75 s" or "12 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 180 else f"{seconds / 60:.0f} min"


def _build_bar(console: Console, unit: str) -> Progress:
    """Return a bar: label, bar, count, rate, time left."""
    from rich import progress as rich_progress
    from rich.text import Text

    class RateColumn(rich_progress.ProgressColumn):
        """Finished items, and the rate per second."""

        def render(self, task: rich_progress.Task) -> Text:
            total = "" if task.total is None else f"/{task.total:,.0f}"
            rate = "" if task.speed is None else f", {task.speed:,.1f}/s"
            return Text(f"{task.completed:,.0f}{total} {unit}{rate}")

    return rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(bar_width=None),
        RateColumn(),
        rich_progress.TimeRemainingColumn(compact=True),
        console=console,
        expand=True,
        transient=True,
    )
