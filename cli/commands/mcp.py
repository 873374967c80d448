"""``millpond mcp``: indexes as tools for an assistant."""

from __future__ import annotations

import importlib.util
from typing import Annotated

import typer

from cli.console import message
from cli.models import note_untrained
from cli.options import DeviceOption, TrustOption
from cli.output import read_version
from cli.searching import warn_of_missing_words

__all__ = ["mcp"]

HOST = "127.0.0.1"


def mcp(
    places: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR...", help="Index folders, or NAME=DIR; the first is the default one."
        ),
    ],
    http: Annotated[
        int | None,
        typer.Option(
            "--http",
            metavar="PORT",
            min=1,
            max=65535,
            help=f"Serve streamable HTTP at http://{HOST}:PORT/mcp in place of stdin and stdout.",
        ),
    ] = None,
    rerank: Annotated[
        str | None,
        typer.Option(
            "--rerank",
            metavar="MODEL",
            help="A CrossEncoder that reads the best hits again, each with the query.",
        ),
    ] = None,
    device: DeviceOption = None,
    trust_remote_code: TrustOption = False,
) -> None:
    """Serve indexes to assistants over MCP.

    The tools are search, fetch (a whole document by its id) and list_indexes. Assistants start the
    command themselves and talk to it over stdin and stdout; with --http it waits for them on this
    machine alone.

    \b
    Examples:
      millpond mcp my-index
      millpond mcp manuals=index-1 tickets=index-2
      millpond mcp my-index --http 8500
    """
    from retrieval.errors import MissingDependencyError

    if importlib.util.find_spec("mcp") is None:
        raise MissingDependencyError("mcp", "millpond mcp", 'pip install "millpond[mcp]"')
    from cli.commands.serve import open_indexes
    from cli.mcp_server import build_server
    from retrieval.errors import UsageError
    from retrieval.retriever import Retriever

    retrievers: dict[str, Retriever] = {}
    loaded: dict[str, Retriever] = {}
    for name, index in open_indexes(places):
        if name in retrievers:
            raise UsageError(f"Two indexes are called {name!r}. Give one a name, as in NAME=DIR.")
        warn_of_missing_words(index)
        same = loaded.get(index.fingerprint.digest)
        if same is not None:  # one model, loaded once
            retrievers[name] = Retriever(same.encoder, index, reranker=same.reranker)
            continue
        first = next(iter(loaded.values()), None)
        opened = Retriever.open(
            index,
            device=device,
            reranker=rerank if first is None else None,
            trust_remote_code=trust_remote_code,
            notify=message,
        )
        if first is not None:
            opened.reranker = first.reranker
        note_untrained(opened.encoder)
        retrievers[name] = loaded[index.fingerprint.digest] = opened
    server = build_server(retrievers, read_version())
    if http is None:
        server.run()
    else:
        message(f"Serving {', '.join(retrievers)} at http://{HOST}:{http}/mcp")
        server.run("streamable-http", host=HOST, port=http)
