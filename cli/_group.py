"""The command group that turns every error into one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from cli._console import write_error
from cli._errors import report

__all__ = ["MillpondGroup"]


class MillpondGroup(TyperGroup):
    """A group whose ``main`` always exits, and never with a traceback nobody asked for."""

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
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
            sys.stdout.flush()
        except Exception as error:
            code = _report_parsing(error)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error that is ours or a bug prints its line here."""
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
"""What newer Typer puts before a refusal, from the library that it checks values with."""


def _is_parsing_error(error: BaseException) -> bool:
    """Whether Typer raised this itself about what was typed; the class has moved over time."""
    return any(kind.__name__ == "ClickException" for kind in type(error).__mro__)


def _report_parsing(error: Exception) -> int:
    """Print what Typer found wrong with the command line, on one line."""
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
    write_error(f"{text}{end} Type '{command} --help' for what is accepted.")
    return int(shown.exit_code)
