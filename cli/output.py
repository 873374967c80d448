"""Text made fit for a terminal: no control characters, no line longer than it."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.cells import cell_len, chop_cells, set_cell_size

__all__ = [
    "read_version",
    "clean",
    "collapse",
    "format_size",
    "format_table",
    "stdout_width",
    "truncate",
    "wrap",
    "atomic_output",
    "check_output",
    "print_json",
    "print_line",
    "layout_scores",
]


def read_version() -> str:
    """Return the installed version, or "(not installed)" where a checkout runs as it is."""
    try:
        return version("millpond")
    except PackageNotFoundError:
        return "(not installed)"


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


def print_line(line: str = "") -> None:
    """Print one line of results; what stdout's encoding lacks is escaped."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def print_json(value: Any) -> None:
    """Print one JSON value as one line."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print_line(json.dumps(value, ensure_ascii=not utf8))


def check_output(path: Path) -> None:
    """Check what can be checked before the work that fills the file.

    Raises
    ------
    UsageError : the path is a folder, or its folder does not exist.
    StorageError : the folder cannot be written.
    """
    from retrieval.errors import StorageError, UsageError

    if path.is_dir():
        raise UsageError(f"{path}: this is a folder; accepted is the name of a file to write.")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UsageError(
            f"{path}: the folder {str(folder)!r} does not exist. Type: mkdir -p {folder}"
        )
    if not _is_special(path) and not os.access(folder, os.W_OK):
        raise StorageError(
            f"{path}: the folder {str(folder)!r} may not be written. Name another one."
        )


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes the place of ``path`` when the block ends well.

    Devices and named pipes are written directly.

    Raises
    ------
    StorageError : writing failed; what ``path`` held before is still there.
    """
    from retrieval.errors import StorageError

    try:
        if _is_special(path):
            yield path
            return
        target = path.resolve()
        beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            yield beside
            with beside.open("rb+") as written:
                os.fsync(written.fileno())
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}). Free some space or name "
            f"another place, and run the command again."
        ) from error


def _is_special(path: Path) -> bool:
    """Whether this exists and is neither file nor folder, as /dev/stdout is."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


_COLUMN = 8
_LONGEST_TASK = 36


def layout_scores(
    models: Sequence[str],
    tasks: Sequence[tuple[str, str]],
    scores: Mapping[tuple[str, str], float],
    width: int,
) -> Iterator[str]:
    """Yield the lines of a table, in blocks where there are more models than fit side by side.

    Parameters
    ----------
    tasks : name and main metric of each row.
    scores : model and task to score; NaN is shown as "undef.", a missing one as "-".
    width : cells in a line; names are cut to fit, scores never.
    """
    metric = max(cell_len(name) for _, name in tasks)
    room = max(12, min(_LONGEST_TASK, width - metric - 2 - _COLUMN))
    left = min(room, max(cell_len(clean(name)) for name, _ in tasks))
    each = max(1, (width - left - metric - 2) // _COLUMN)
    for start in range(0, len(models), each):
        numbers = range(start, min(start + each, len(models)))
        heads = "".join(f"{number + 1:>{_COLUMN}}" for number in numbers)
        yield f"{'task':<{left}}  {'metric':<{metric}}{heads}"
        for task, name in tasks:
            shown = truncate(clean(task), left)
            shown += " " * (left - cell_len(shown))
            row = "".join(
                f"{_format(scores.get((models[number], task))):>{_COLUMN}}" for number in numbers
            )
            yield f"{shown}  {name:<{metric}}{row}"
        yield ""
    for number, model in enumerate(models, start=1):
        yield truncate(f"{number:>2}  {clean(model)}", max(width, 24))


def _format(score: float | None) -> str:
    if score is None:
        return "-"
    return "undef." if math.isnan(score) else f"{score:.3f}"
