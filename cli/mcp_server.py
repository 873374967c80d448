"""An MCP server over indexes: tools that an assistant can call.

The tools are ``search``, ``fetch`` and ``list_indexes``; https://modelcontextprotocol.io has the
protocol, and the package ``mcp`` speaks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.tools import Tool
from mcp_types import ToolAnnotations
from pydantic import Field

from cli.searching import to_json
from retrieval.errors import MillpondError
from retrieval.types import check_fingerprints

if TYPE_CHECKING:
    from indexes import Index
    from retrieval.retriever import Retriever

MOST_HITS = 50
MOST_CHARACTERS = 20_000
"""The longest part of a document that ``fetch`` returns at a time."""
_HIT_CHARACTERS = 2_000
"""The longest text of one hit."""
_QUERY_CHARACTERS = 20_000

INSTRUCTIONS = (
    "Searches documents of the user by meaning and by words. Call search first; a hit shows the "
    "beginning of its text or passage, and fetch returns the whole document by its doc_id. "
    "list_indexes says what there is and which fields a filter can name."
)

Name = Annotated[
    str | None, Field(description="An index, as list_indexes names it; else the first")
]


def build_server(retrievers: Mapping[str, Retriever], version: str = "") -> MCPServer[Any]:
    """Return a server whose tools search and read these indexes, the first one by default."""
    tools = _Tools(retrievers)
    return MCPServer(
        "millpond",
        instructions=INSTRUCTIONS,
        version=version,
        log_level="WARNING",
        tools=[_make_tool(one) for one in (tools.search, tools.fetch, tools.list_indexes)],
    )


def _make_tool(function: Callable[..., dict[str, Any]]) -> Tool:
    """Return a tool that refuses an argument it does not have; the package would leave it out."""
    reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
    tool = Tool.from_function(function, annotations=reads)
    arguments = tool.fn_metadata.arg_model
    arguments.model_config["extra"] = "forbid"
    arguments.model_config["strict"] = True
    arguments.model_rebuild(force=True)
    return tool.model_copy(update={"parameters": arguments.model_json_schema(by_alias=True)})


class _Tools:
    """What an assistant can call; one call at a time, since a model computes for one.

    Each call sees what other processes have made of an index since.
    """

    def __init__(self, retrievers: Mapping[str, Retriever]) -> None:
        from indexes.following import Follower

        self._retrievers = retrievers
        self._followers = {
            name: Follower(
                _index_of(retriever),
                partial(check_fingerprints, query=retriever.encoder.fingerprint),
            )
            for name, retriever in retrievers.items()
        }
        self._lock = Lock()

    def search(
        self,
        query: Annotated[
            str, Field(min_length=1, max_length=_QUERY_CHARACTERS, description="What to look for")
        ],
        k: Annotated[int, Field(ge=1, le=MOST_HITS, description="The number of hits")] = 10,
        filter: Annotated[
            str | None, Field(description='Such as: year >= 2020 and lang in ["en", "de"]')
        ] = None,
        mode: Annotated[
            str | None, Field(description="hybrid, dense or lexical; by default the best there is")
        ] = None,
        index: Name = None,
    ) -> dict[str, Any]:
        """Find the documents that answer a query best."""
        name, retriever = self._find(index)
        with self._lock, _tool_errors():
            self._renew(name)
            hits = retriever.search(query, k, where=filter, mode=mode)
        return {"index": name, "hits": [_shorten(to_json(hit)) for hit in hits]}

    def fetch(
        self,
        doc_id: Annotated[str, Field(description="The doc_id of a hit")],
        start: Annotated[int, Field(ge=0, description="The first character of the text")] = 0,
        index: Name = None,
    ) -> dict[str, Any]:
        """Return a document; a long one in parts, next_start says where the next begins."""
        name, retriever = self._find(index)
        with self._lock, _tool_errors():
            self._renew(name)
            found = _index_of(retriever).fetch([doc_id])
        if doc_id not in found:
            raise ToolError(f"The index {name} has no document {doc_id!r}. Send a doc_id of a hit.")
        document = found[doc_id]
        stop = start + MOST_CHARACTERS
        return {
            "index": name,
            "doc_id": doc_id,
            "title": document.title,
            "text": document.text[start:stop],
            "metadata": dict(document.metadata),
            "next_start": stop if stop < len(document.text) else None,
        }

    def list_indexes(self) -> dict[str, Any]:
        """Return the indexes that can be searched, the default one first."""
        with self._lock, _tool_errors():
            for name in self._retrievers:
                self._renew(name)
        return {
            "indexes": [
                {
                    "name": name,
                    "documents": len(_index_of(retriever)),
                    "model": retriever.index.fingerprint.model,
                    "modes": list(retriever.index.modes),
                    "fields": _index_of(retriever).manifest.schema.type_names,
                }
                for name, retriever in self._retrievers.items()
            ]
        }

    def _renew(self, name: str) -> None:
        newer = self._followers[name].look()
        if newer is not None:
            self._retrievers[name].index = newer

    def _find(self, name: str | None) -> tuple[str, Retriever]:
        if name is None:
            return next(iter(self._retrievers.items()))
        if name not in self._retrievers:
            known = ", ".join(self._retrievers)
            raise ToolError(f"There is no index {name!r} here. Indexes: {known}.")
        return name, self._retrievers[name]


@contextmanager
def _tool_errors() -> Iterator[None]:
    """Turn our errors into those that the assistant reads."""
    try:
        yield
    except MillpondError as error:
        raise ToolError(str(error)) from error


def _index_of(retriever: Retriever) -> Index:
    from indexes import Index

    assert isinstance(retriever.index, Index)
    return retriever.index


def _shorten(hit: dict[str, object]) -> dict[str, object]:
    """Return a hit whose text is no longer than an assistant should read to choose."""
    text = str(hit["text"])
    if len(text) <= _HIT_CHARACTERS:
        return hit
    return {**hit, "text": text[:_HIT_CHARACTERS], "truncated": True}
