"""One table from error class to exit code, and the one line that each error prints.

Exit codes: 0 success, 2 the request cannot be carried out as typed, 1 the request was sound but
the machine or the data was not (or a bug), 130 interrupted, 141 the reader of a pipe left.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from cli.console import escape_unknown, message, write_error
from retrieval.errors import MillpondError, UsageError

__all__ = [
    "EXIT_INTERRUPTED",
    "EXIT_PIPE",
    "EXIT_USAGE",
    "report",
    "silence_stdout",
    "MillpondGroup",
    "PanelCommand",
]

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


def report(error: BaseException, *, with_traceback: bool = False) -> int:
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


class MillpondGroup(TyperGroup):
    """A group whose ``main`` always exits, and shows no traceback unless asked to."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command and exit; the arguments are Typer's own."""
        escape_unknown()
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
            sys.stdout.flush()
        except Exception as error:
            code = _report_parsing(error)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; print the line of our own errors and of bugs."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if _is_parsing_error(error):
                raise
            code = report(error, with_traceback=bool(ctx.params.get("traceback")))
            raise typer.Exit(code) from error
        return result


_CHECKED_BY = ": Value error, "
"""A prefix that newer versions of Typer put before their messages."""


def _is_parsing_error(error: BaseException) -> bool:
    """Return whether Typer rejected the command line; the class has moved between versions."""
    return any(kind.__name__ == "ClickException" for kind in type(error).__mro__)


def _report_parsing(error: Exception) -> int:
    """Print on one line why Typer rejected the command line."""
    if not _is_parsing_error(error):
        return report(error)
    shown: Any = error
    if type(error).__name__ == "NoArgsIsHelpError":
        shown.show()
        return int(shown.exit_code)
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "millpond"
    text = " ".join(str(shown.format_message()).split()).replace(_CHECKED_BY, ": ")
    end = "" if text.endswith((".", "?")) else "."
    write_error(f"{text}{end} Type '{command} --help' for its options.")
    return int(shown.exit_code)


class PanelCommand(TyperCommand):
    """A command whose plain help honours ``rich_help_panel``, which Typer does in boxes only."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, options, and then each panel in the order of its first option."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
            heading = getattr(parameter, "rich_help_panel", None) or usual
            sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
