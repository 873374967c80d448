"""The ``millpond`` application: global options and the list of commands."""

from __future__ import annotations

from typing import Annotated

import typer

from cli._group import MillpondGroup
from cli._panels import PanelCommand
from cli.add import add
from cli.bench import bench
from cli.check import check
from cli.compare import compare
from cli.delete import delete
from cli.embed import embed
from cli.index import index
from cli.inspect import doctor, info, models, variants
from cli.merge import merge, soup
from cli.mine import mine
from cli.reindex import reindex
from cli.report import report
from cli.search import search
from cli.serve import serve
from cli.study import study
from cli.train import train
from cli.update import update
from cli.whiten import whiten

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
    info,
    check,
    serve,
    embed,
    train,
    mine,
    merge,
    soup,
    whiten,
    bench,
    compare,
    report,
    study,
    variants,
    models,
    doctor,
)
for command in COMMANDS:
    app.command(cls=PanelCommand)(command)


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    from cli._output import print_line
    from cli._version import read_version

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
        bool, typer.Option("--traceback", help="Print where in the code an error arose.")
    ] = False,
) -> None:
    """Index, search and compare the embeddings of decoder language models."""


def main() -> None:
    """Run the command line and exit."""
    app(prog_name="millpond")
