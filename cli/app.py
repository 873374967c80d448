"""The ``millpond`` application: global options and the list of commands."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

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
from cli.errors import MillpondGroup, PanelCommand
from cli.options import flag

__all__ = ["app", "main"]

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
    from cli.output import print_line, read_version

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
    app(prog_name="millpond")
