"""The prompt of ``millpond search DIR``: type, see hits, type again, with the model loaded once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cli.console import format_table, message, print_line, stdout_width
from cli.errors import report_error
from cli.searching import print_hits
from retrieval.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from cli.searching import Choices, Search

PROMPT = "search> "
HISTORY_NAME = "search-history"
HISTORY_LENGTH = 1000

HELP = (
    (":k 20", "the number of hits"),
    (":mode lexical", "hybrid, dense or lexical; alone: the index's default"),
    (":fusion rrf", "convex or rrf"),
    (":weight 0.5", "of the dense arm, 0 to 1; alone: the index's default"),
    (":filter year >= 2020", "search only what matches; alone: everything"),
    (":help", "this list, and what is set"),
    (":quit", "ends; so does Ctrl-D. Ctrl-C clears the line"),
)


def run_prompt(search: Search) -> None:
    """Ask for texts and print their hits until Ctrl-D; what goes wrong is said and ends nothing."""
    message(f"Type what to look for; {HELP[-2][0]} lists more, Ctrl-D ends.")
    with _history():
        while True:
            try:
                line = input(PROMPT).strip()
            except EOFError:
                print_line()
                return
            except KeyboardInterrupt:
                print_line()
                continue
            if line in (":quit", ":q"):
                return
            if line:
                _try(search, line)


def _try(search: Search, line: str) -> None:
    """Do what a line says; an error is one line, and Ctrl-C stops this search alone."""
    try:
        _obey(search, line)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        message("Interrupted.")
    except Exception as error:
        report_error(error)


def _obey(search: Search, line: str) -> None:
    if not line.startswith(":"):
        print_hits(search.answer(line), as_json=False)
        return
    name, _, value = line[1:].partition(" ")
    if name == "help":
        _print_help(search.choices)
        return
    search.choose(_change(search.choices, name, value.strip()))


def _change(choices: Choices, name: str, value: str) -> Choices:
    """Return the choices with one of them replaced.

    Raises
    ------
    UsageError : the command is unknown, or the value is no number where one is needed.
    """
    if name == "k":
        return replace(choices, k=int(_read_number(int, value, "a whole number from 1")))
    if name == "mode":
        weight = choices.weight if value in ("", "hybrid") else None
        return replace(choices, mode=value or None, weight=weight)
    if name == "fusion":
        weight = choices.weight if value in ("", "convex") else None
        return replace(choices, fusion=value or "convex", weight=weight)
    if name == "weight":
        share = _read_number(float, value, "a number from 0 to 1") if value else None
        return replace(choices, weight=share)
    if name == "filter":
        return replace(choices, where=value or None)
    known = [shown.split()[0] for shown, _ in HELP]
    raise UnknownNameError("command", f":{name}", known)


def _read_number(kind: type[int] | type[float], value: str, expected: str) -> float:
    with suppress(ValueError):
        number = kind(value)
        if kind is float or number >= 1:
            return number
    raise UsageError(f"{value!r} arrived; expected {expected}.")


def _print_help(choices: Choices) -> None:
    for line in format_table(HELP, stdout_width()):
        print_line(line)
    shown = {
        "k": choices.k,
        "mode": choices.mode,
        "fusion": choices.fusion,
        "weight": choices.weight,
        "filter": choices.where,
    }
    print_line("Now: " + ", ".join(f"{n} {v}" for n, v in shown.items() if v is not None))


@contextmanager
def _history() -> Iterator[None]:
    """Let the arrow keys bring back what was typed, here and in earlier prompts."""
    try:
        import readline
    except ImportError:  # Windows has a history of its own
        yield
        return
    from embedder.models.bases import cache_folder

    path = cache_folder() / HISTORY_NAME
    with suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(HISTORY_LENGTH)
    try:
        yield
    finally:
        with suppress(OSError):
            _keep(path, readline.write_history_file)


def _keep(path: Path, write: Callable[[Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)  # nobody else's to read
    write(path)
