"""Text made fit for a terminal: no control characters, no line longer than it."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Sequence

from rich.cells import cell_len, chop_cells, set_cell_size

__all__ = ["clean", "collapse", "format_size", "format_table", "stdout_width", "truncate", "wrap"]

# C0, DEL and C1 controls, line separators, marks that turn the writing direction, lone
# surrogates: what lets the text of a document move the cursor or pretend to be our output.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_GAP = "  "
_NARROWEST = 40


def clean(text: str) -> str:
    """Return the text on one line, each character that could steer a terminal as a blank."""
    return _UNPRINTABLE.sub(" ", text).strip()


def collapse(text: str) -> str:
    """Return the text as ``clean`` does, with single blanks between words."""
    return " ".join(_UNPRINTABLE.sub(" ", text).split())


def stdout_width() -> int | None:
    """Return the columns of the terminal on stdout; None where stdout is no terminal."""
    if not sys.stdout.isatty():
        return None
    return max(_NARROWEST, shutil.get_terminal_size().columns)


def truncate(text: str, width: int) -> str:
    """Return the text in at most ``width`` terminal cells, "…" at the end where it was cut."""
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


def format_size(size_bytes: int) -> str:
    """Return a size such as "93 MB" (1 MB is 10**6 bytes)."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= factor:
            amount = size_bytes / factor
            return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"
    return f"{size_bytes} bytes"
