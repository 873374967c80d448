"""One table from error class to exit code, and the one line that each error prints.

Exit codes: 0 success, 2 the request cannot be carried out as typed, 1 the request was sound but
the machine or the data was not (or a bug), 130 interrupted, 141 the reader of a pipe left.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Any

from cli.console import message, write_error
from retrieval.errors import MillpondError, UsageError

EXIT_USAGE = 2
EXIT_FAILURE = 1
EXIT_INTERRUPTED = 130
EXIT_PIPE = 141

_OS_ADVICE = {
    errno.ENOSPC: "Free some space or name a place on another disk, and run the command again.",
    errno.EDQUOT: "Free some of your quota or name another place, and run the command again.",
    errno.EFBIG: "Name a place that holds larger files, and run the command again.",
    errno.EACCES: "Name a place that you may read and write, or change its permissions.",
    errno.EPERM: "Name a place that you may read and write, or change its permissions.",
    errno.EROFS: "Name a place that can be written.",
}
"""What to do about errors of the operating system that are not our bugs."""


def report_error(error: BaseException, *, with_traceback: bool = False) -> int:
    """Print the line that an error deserves on stderr; return the exit code."""
    if isinstance(error, BrokenPipeError):
        silence_stdout()
        return EXIT_PIPE
    if isinstance(error, KeyboardInterrupt):
        message("Interrupted.")
        return EXIT_INTERRUPTED
    if with_traceback:
        traceback.print_exception(error, file=sys.stderr)
    text, code = _describe(error)
    write_error(text)
    return code


def _describe(error: BaseException) -> tuple[str, int]:
    if isinstance(error, MillpondError):
        return str(error), EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILURE
    if isinstance(error, OSError) and error.errno in _OS_ADVICE:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}. {_OS_ADVICE[error.errno]}", EXIT_FAILURE
    if isinstance(error, MemoryError):
        return "Out of memory. Close other programs, or use a smaller base.", EXIT_FAILURE
    detail = f": {error}" if str(error) else ""
    return (
        f"millpond failed unexpectedly ({type(error).__name__}{detail}). This is a bug; run it "
        f"again as 'millpond --traceback COMMAND ...' and report what it prints.",
        EXIT_FAILURE,
    )


def silence_stdout() -> None:
    """Discard unwritten output, so that Python does not complain at exit."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


_CHECKED_BY = ": Value error, "
"""A prefix that newer versions of Typer put before their messages."""


_MISPLACED = ("NoSuchOption", "MissingParameter", "UsageError")
"""What Typer raises for an option or argument in a wrong place, or for one that is missing."""


def is_parsing_error(error: BaseException) -> bool:
    """Return whether Typer rejected the command line; the class has moved between versions."""
    return any(kind.__name__ == "ClickException" for kind in type(error).__mro__)


def report_parsing(error: Exception) -> int:
    """Print on one line why Typer rejected the command line."""
    if not is_parsing_error(error):
        return report_error(error)
    shown: Any = error
    if type(error).__name__ == "NoArgsIsHelpError":
        shown.show()
        return int(shown.exit_code)
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "millpond"
    text = " ".join(str(shown.format_message()).split()).replace(_CHECKED_BY, ": ")
    end = "" if text.endswith((".", "?")) else "."
    type_ = "Type"
    if type(error).__name__ in _MISPLACED and command != "millpond":
        type_ = f"Type: {_form(context)}; or"
    write_error(f"{text}{end} {type_} '{command} --help' for its options.")
    return int(shown.exit_code)


def _form(context: Any) -> str:
    """Return how a command is typed: its name, its arguments and the options that it needs.

    Of a command that names none of these, as what it needs can be given in several ways, it is the
    first of its examples.
    """
    parts = [context.command_path]
    for one in context.command.params:
        value = one.metavar or one.name.upper()
        if one.param_type_name == "argument":
            parts.append(value if one.required else f"[{value}]")
        elif one.required:
            parts += [one.opts[0], value]
    if len(parts) > 1:
        return " ".join(parts)
    lines = [line.strip() for line in str(context.command.help).splitlines()]
    return next((line for line in lines if line.startswith(parts[0])), parts[0])
