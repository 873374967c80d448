"""The options of ``millpond index --backend qdrant``, and the store that they describe."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import ask_key

if TYPE_CHECKING:
    from indexes.backends.backend import Backend

__all__ = [
    "ANY_DIMENSION",
    "AskKeyOption",
    "CollectionOption",
    "GraphOnDiskOption",
    "GreenSecondsOption",
    "GrpcOption",
    "MemoryOption",
    "ParallelOption",
    "PayloadOnDiskOption",
    "QdrantFlags",
    "Quantization",
    "QuantizationOption",
    "ReplicasOption",
    "ShardsOption",
    "TimeoutSecondsOption",
    "UrlOption",
    "VectorsOnDiskOption",
    "choose_store",
]

QDRANT = "qdrant"
PANEL = "Qdrant, with --backend qdrant (all but --memory need --url)"
SERVER_EXAMPLE = "--url http://localhost:6333 --collection NAME"
ANY_DIMENSION = 1
"""Stands for D before a model is loaded; every type of Qdrant index takes it."""


class Quantization(StrEnum):
    """How a server compresses vectors; a test holds it equal to ``QUANTIZATIONS``."""

    NONE = "none"
    INT8 = "int8"
    BINARY = "binary"


def _option(name: str, help_text: str, metavar: str | None = None, **rest: Any) -> Any:
    """Return an option of the Qdrant panel; what is taken without it stands in its help."""
    return typer.Option(
        name, metavar=metavar, help=help_text, rich_help_panel=PANEL, show_default=False, **rest
    )


UrlOption = Annotated[
    str | None,
    _option(
        "--url",
        "A server or cloud, http://localhost:6333. Without it, Qdrant's engine in DIR.",
        "URL",
    ),
]
MemoryOption = Annotated[
    bool,
    _option("--memory", "Neither: whoever opens DIR loads the vectors into its memory. For tests."),
]
CollectionOption = Annotated[
    str | None, _option("--collection", "What the server calls the index.", "NAME")
]
AskKeyOption = Annotated[
    bool,
    _option(
        "--ask-key",
        "Ask for the API key, unseen. Else it is what the environment variable "
        "MILLPOND_QDRANT_API_KEY or QDRANT_API_KEY holds.",
    ),
]
GrpcOption = Annotated[
    bool, _option("--grpc", "Send vectors over gRPC (port 6334), not over HTTP.")
]
ParallelOption = Annotated[
    int | None, _option("--parallel", "Batches sent at the same time; else 1.", "N", min=1)
]
ShardsOption = Annotated[
    int | None,
    _option("--shards", "Shards of the collection; else the server decides.", "N", min=1),
]
ReplicasOption = Annotated[
    int | None, _option("--replicas", "Copies of a shard; else the server decides.", "N", min=1)
]
QuantizationOption = Annotated[
    Quantization | None,
    _option(
        "--quantization",
        "none, or search compressed vectors and rank by the originals: int8 takes a quarter of "
        "the memory, binary a 32nd. Needs HNSW.",
        "TYPE",
    ),
]
VectorsOnDiskOption = Annotated[
    bool, _option("--vectors-on-disk", "Keep the vectors on the server's disk, not in memory.")
]
PayloadOnDiskOption = Annotated[
    bool, _option("--payload-on-disk", "The same for the ids of the documents.")
]
GraphOnDiskOption = Annotated[
    bool, _option("--graph-on-disk", "The same for the graph. Needs HNSW.")
]
TimeoutSecondsOption = Annotated[
    int | None, _option("--timeout-seconds", "For one request; else 60.", "N", min=1)
]
GreenSecondsOption = Annotated[
    int | None,
    _option(
        "--green-seconds",
        "For the server to finish indexing after the last batch; else 3600.",
        "N",
        min=1,
    ),
]


@dataclass(frozen=True)
class QdrantFlags:
    """What was typed, one field a flag; None and False where it was not."""

    url: str | None
    memory: bool
    collection: str | None
    ask_key: bool
    grpc: bool
    parallel: int | None
    shards: int | None
    replicas: int | None
    quantization: Quantization | None
    vectors_on_disk: bool
    payload_on_disk: bool
    graph_on_disk: bool
    timeout_seconds: int | None
    green_seconds: int | None

    @property
    def typed(self) -> list[str]:
        """The flags that were typed, as they are spelled."""
        names = [f.name for f in fields(self) if getattr(self, f.name) not in (None, False)]
        return ["--" + name.replace("_", "-") for name in names]


def choose_store(backend: str, factory: str, overwrite: bool, flags: QdrantFlags) -> Backend | None:
    """Return the store that was described; None where the backend needs no description.

    Reads no file and asks no server; may ask for the key.

    Raises
    ------
    UsageError : the flags do not go together.
    """
    if backend != QDRANT:
        _refuse_without_qdrant(backend, flags)
        return None
    _check_place(flags)
    _check_graph(factory, flags)
    from indexes.backends.qdrant import QdrantOptions, configured_backend

    asked = {
        "grpc": flags.grpc,
        "parallel": flags.parallel,
        "shard_number": flags.shards,
        "replication_factor": flags.replicas,
        "quantization": flags.quantization.value if flags.quantization else None,
        "on_disk_vectors": flags.vectors_on_disk,
        "on_disk_payload": flags.payload_on_disk,
        "on_disk_graph": flags.graph_on_disk,
        "timeout_seconds": flags.timeout_seconds,
        "green_seconds": flags.green_seconds,
    }
    chosen: dict[str, Any] = {name: value for name, value in asked.items() if value}
    options = QdrantOptions(
        url=":memory:" if flags.memory else flags.url or "",
        collection=flags.collection or "",
        overwrite=overwrite,
        **chosen,
    )
    if flags.ask_key:
        options = replace(options, api_key=ask_key(options.url))
    return configured_backend(options)


def _refuse_without_qdrant(backend: str, flags: QdrantFlags) -> None:
    from retrieval.errors import UsageError

    if flags.typed:
        raise UsageError(
            f"{_list(flags.typed)} {_concern(flags.typed)} Qdrant, and the backend is "
            f"{backend!r}. Type --backend qdrant, or leave {_it(flags.typed)} out."
        )


def _check_place(flags: QdrantFlags) -> None:
    """Raise UsageError unless there is one place, and a server where one is needed."""
    from retrieval.errors import UsageError

    others = [flag for flag in flags.typed if flag not in ("--url", "--memory")]
    if flags.memory and len(flags.typed) > 1:
        rest = [flag for flag in flags.typed if flag != "--memory"]
        raise UsageError(
            f"--memory keeps the vectors in the process that opens the index, and "
            f"{_list(rest)} {_concern(rest)} a Qdrant server. Leave one or the other out."
        )
    if flags.url is not None and not flags.url.strip():
        raise UsageError(f"--url is empty. Type {SERVER_EXAMPLE}, or leave it out.")
    if flags.url is not None and flags.url.startswith(":memory"):
        raise UsageError("--url takes the address of a server. For an index in memory: --memory")
    if flags.url is None and not flags.memory and others:
        raise UsageError(
            f"{_list(others)} {_concern(others)} a Qdrant server, and none was named. Type "
            f"{SERVER_EXAMPLE}, or leave {_it(others)} out to keep the index in its folder."
        )


def _check_graph(factory: str, flags: QdrantFlags) -> None:
    """Raise UsageError for what would have no effect without a graph."""
    from retrieval.errors import UsageError

    if factory != "Flat":
        return
    if flags.graph_on_disk:
        raise UsageError(
            "--graph-on-disk concerns the graph of HNSW, and --factory Flat has none. Type "
            "--factory HNSW, or leave it out."
        )
    if flags.quantization not in (None, Quantization.NONE):
        raise UsageError(
            f"--quantization {flags.quantization} concerns approximate search, and --factory Flat "
            "compares the original vectors. Type --factory HNSW, or leave it out."
        )


def _list(flags: list[str]) -> str:
    *head, last = flags
    return f"{', '.join(head)} and {last}" if head else last


def _concern(flags: list[str]) -> str:
    return "concerns" if len(flags) == 1 else "concern"


def _it(flags: list[str]) -> str:
    return "it" if len(flags) == 1 else "them"
