"""``millpond mcp``: indexes as tools for an assistant."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Annotated

from cli.commands.serve import bind, listen, open_indexes
from cli.console import message
from cli.models import note_untrained
from cli.options import DeviceOption, TrustOption, argument, option
from cli.output import read_version
from cli.searching import warn_of_missing_words
from cli.store import StoredKeyOption, StoredUrlOption
from retrieval.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from indexes import Index
    from retrieval.retriever import Retriever

HOST = "127.0.0.1"


def mcp(
    places: Annotated[
        list[str], argument("DIR...", "Index folders, or NAME=DIR; the first is the default one.")
    ],
    http: Annotated[
        int | None,
        option(
            "PORT",
            f"Serve streamable HTTP at http://{HOST}:PORT/mcp in place of stdin and stdout; "
            "0 for any free port.",
            "--http",
            min=0,
            max=65535,
        ),
    ] = None,
    rerank: Annotated[
        str | None,
        option(
            "MODEL",
            "A CrossEncoder that reads the best hits again, each with the query.",
            "--rerank",
        ),
    ] = None,
    device: DeviceOption = None,
    url: StoredUrlOption = None,
    ask_key: StoredKeyOption = False,
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
    if importlib.util.find_spec("mcp") is None:
        raise MissingDependencyError("mcp", "millpond mcp", 'pip install "millpond[mcp]"')
    from cli.mcp_server import build_server

    with bind(HOST, http) if http is not None else nullcontext() as listener:
        retrievers = _open(open_indexes(places, url, ask_key), rerank, device, trust_remote_code)
        server = build_server(retrievers, read_version())
        if listener is None:
            server.run()
            return
        import uvicorn

        message(f"Serving {', '.join(retrievers)} at {listen(listener)}/mcp")
        config = uvicorn.Config(server.streamable_http_app(host=HOST), log_level="warning")
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def _open(
    indexes: Sequence[tuple[str, Index]], rerank: str | None, device: str | None, trust: bool
) -> dict[str, Retriever]:
    """Return what searches each index, by name; every model is loaded once."""
    from retrieval.retriever import Retriever

    retrievers: dict[str, Retriever] = {}
    loaded: dict[str, Retriever] = {}
    for name, index in indexes:
        if name in retrievers:
            raise UsageError(f"Two indexes are called {name!r}. Give one a name, as in NAME=DIR.")
        warn_of_missing_words(index)
        same = loaded.get(index.fingerprint.digest)
        if same is not None:
            retrievers[name] = Retriever(same.encoder, index, reranker=same.reranker)
            continue
        first = next(iter(loaded.values()), None)
        opened = Retriever.open(
            index,
            device=device,
            reranker=rerank if first is None else None,
            trust_remote_code=trust,
            notify=message,
        )
        if first is not None:
            opened.reranker = first.reranker
        note_untrained(opened.encoder)
        retrievers[name] = loaded[index.fingerprint.digest] = opened
    return retrievers
