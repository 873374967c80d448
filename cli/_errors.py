"""One table from error class to exit code, and the one line that each error prints.

Exit codes: 0 success, 2 the request cannot be carried out as typed, 1 the request was sound but
the machine or the data was not (or a bug), 130 interrupted, 141 the reader of a pipe left.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback

from cli._console import message, write_error

__all__ = ["EXIT_INTERRUPTED", "EXIT_PIPE", "EXIT_USAGE", "report", "silence_stdout"]

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
"""Errors of the operating system that are no bug of ours: what to do next."""


def _exit_codes() -> tuple[tuple[type[BaseException], int], ...]:
    """Return the table; the first class that fits counts."""
    from retrieval.errors import FailureError, MillpondError, UsageError

    return (
        (UsageError, EXIT_USAGE),
        (FailureError, EXIT_FAILURE),
        (MillpondError, EXIT_FAILURE),
    )


def report(error: BaseException, *, with_traceback: bool = False) -> int:
    """Print what the user has to know about an error on stderr; return the exit code."""
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
    for kind, code in _exit_codes():
        if isinstance(error, kind):
            return str(error), code
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
    """Send what is still unwritten nowhere, so that Python does not complain at exit."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
