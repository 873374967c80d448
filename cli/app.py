"""The ``millpond`` application: global options and the list of commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from cli.commands.bench import bench
from cli.commands.change import add, delete, update
from cli.commands.check import check
from cli.commands.compare import compare
from cli.commands.conform import conform
from cli.commands.convert import export, import_, merge, soup
from cli.commands.distill import distill
from cli.commands.doctor import doctor
from cli.commands.duplicates import duplicates
from cli.commands.embed import embed
from cli.commands.exchange import export_results, import_results
from cli.commands.index import index
from cli.commands.inspect import info, models, variants
from cli.commands.mcp import mcp
from cli.commands.mine import mine
from cli.commands.reindex import reindex
from cli.commands.report import report
from cli.commands.reproduce import reproduce
from cli.commands.search import search
from cli.commands.serve import serve
from cli.commands.study import study
from cli.commands.train import train
from cli.commands.tune import tune
from cli.commands.whiten import whiten
from cli.console import escape_unknown, open_closed_streams
from cli.errors import is_parsing_error, report_error, report_parsing
from cli.options import flag
from retrieval.errors import UsageError


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
        open_closed_streams()
        escape_unknown()
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
            sys.stdout.flush()
        except Exception as error:
            code = report_parsing(error)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; print the line of our own errors and of bugs."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except (typer.Exit, typer.Abort):
            raise
        except (Exception, KeyboardInterrupt) as error:
            if is_parsing_error(error):
                raise
            code = report_error(error, with_traceback=bool(ctx.params.get("traceback")))
            raise typer.Exit(code) from error
        return result


class PanelCommand(TyperCommand):
    """A command that refuses empty names, and whose plain help has panels, as Typer's boxes do."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse an empty value first: it would count as not given, or as the current folder."""
        given, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for parameter in order:
            value = given.get(parameter.name)
            values = value if isinstance(value, list | tuple) else [value]
            if "" in values:
                option = parameter.param_type_name == "option"
                told = parameter.opts[0] if option else parameter.metavar or parameter.name.upper()
                told = f"One of {told}" if parameter.nargs == -1 else told
                raise UsageError(
                    f"{told} is empty; expected a value. If it comes from a variable of the shell, "
                    f"that one is not set."
                )
        return super().parse_args(ctx, args)

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


app = typer.Typer(
    name="millpond",
    cls=MillpondGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: millpond index python-stdlib --out demo-index",
)

COMMANDS = (
    index,
    search,
    add,
    update,
    delete,
    reindex,
    tune,
    info,
    duplicates,
    check,
    serve,
    mcp,
    embed,
    train,
    distill,
    mine,
    merge,
    soup,
    whiten,
    import_,
    export,
    bench,
    compare,
    report,
    reproduce,
    export_results,
    import_results,
    study,
    variants,
    models,
    doctor,
    conform,
)
for command in COMMANDS:
    app.command(command.__name__.removesuffix("_").replace("_", "-"), cls=PanelCommand)(command)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    from cli.console import print_line
    from cli.output import read_version

    print_line(f"millpond {read_version()}")
    raise typer.Exit


@app.callback()
def start(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    traceback: Annotated[
        bool, flag("--traceback", "Print the Python traceback of an error.")
    ] = False,
) -> None:
    """Index, search and compare the embeddings of decoder language models."""


_SPINS = "1000"  # tens of microseconds, about what waking a thread takes


def share_cores() -> bool:
    """Have OpenMP's threads sleep while they wait for one another, instead of spinning.

    A layer is some twenty parallel loops, whose threads wait for the last one at the end of each.
    By default libgomp's spin for milliseconds, and where another process has one of the cores they
    keep it from the thread that they wait for. The number is read when torch is imported. Nothing
    is changed where the environment says what to do.

    Returns
    -------
    Whether it was done.
    """
    chosen = any(map(os.environ.get, ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")))
    if chosen or "torch" in sys.modules:
        return False
    os.environ["GOMP_SPINCOUNT"] = _SPINS
    return True


def main() -> None:
    """Run the command line and exit."""
    share_cores()
    typed = [info for info in app.registered_commands if info.name in sys.argv[1:2]]
    if typed:  # Typer builds the options of every command, which takes 40 ms
        app.registered_commands = typed
    try:
        app(prog_name="millpond")
    except KeyboardInterrupt as error:  # while Typer builds the options
        sys.exit(report_error(error))
