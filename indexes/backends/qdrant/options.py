"""What a user chooses about a Qdrant index: where it lives, its type, its trade-offs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from urllib.parse import urlsplit

from indexes.storage.manifest import Manifest
from retrieval import Scalar
from retrieval.errors import IndexCorruptError, UsageError

__all__ = ["EMBEDDED", "MEMORY", "QUANTIZATIONS", "SERVER", "Factory", "QdrantOptions"]

EMBEDDED = "embedded"
SERVER = "server"
MEMORY = "memory"
MEMORY_URL = ":memory:"
QUANTIZATIONS = ("none", "int8", "binary")
LARGEST_DIMENSION = 65_536
SEARCH_BREADTH = 128

GRAMMAR = re.compile(r"HNSW(?P<m>[0-9]{1,6})?(?:,ef(?P<ef>[0-9]{1,6}))?")
COLLECTION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


@dataclass(frozen=True, slots=True)
class Factory:
    """An index type of Qdrant: ``Flat``, ``HNSW``, ``HNSW32`` or ``HNSW32,ef200``.

    Attributes
    ----------
    exact : every vector is compared; no graph is built.
    m : edges of a node of the graph; 0 without a graph.
    ef_construct : how many candidates are weighed for each edge.
    """

    exact: bool
    m: int = 0
    ef_construct: int = 0

    @classmethod
    def parse(cls, text: str, dimension: int) -> Factory:
        """Return what ``text`` stands for.

        Raises
        ------
        UsageError : it is none of the accepted forms, or a number is out of range.
        """
        if dimension > LARGEST_DIMENSION:
            raise UsageError(
                f"Qdrant stores vectors of length 1 to {LARGEST_DIMENSION}; these have {dimension}."
            )
        if text == "Flat":
            return cls(exact=True)
        match = GRAMMAR.fullmatch(text)
        if match is None:
            raise _refused(text, "it is none of the accepted types")
        m, ef_construct = int(match["m"] or 16), int(match["ef"] or 100)
        if not 2 <= m <= 256:
            raise _refused(text, f"a node has 2 to 256 edges, not {m}")
        if not 4 <= ef_construct <= 4096:
            raise _refused(text, f"ef is 4 to 4096, not {ef_construct}")
        return cls(exact=False, m=m, ef_construct=ef_construct)

    def settings(self) -> dict[str, Scalar]:
        """Return what the manifest keeps of it."""
        if self.exact:
            return {"exact": True}
        return {
            "exact": False,
            "m": self.m,
            "ef_construct": self.ef_construct,
            "hnsw_ef": SEARCH_BREADTH,
        }


def _refused(text: str, reason: str) -> UsageError:
    return UsageError(
        f"Qdrant cannot make the index {text!r}: {reason}. Accepted: Flat (exact), HNSW, HNSW32 "
        "(edges of a node), HNSW32,ef200 (and candidates while building)."
    )


@dataclass(frozen=True, slots=True)
class QdrantOptions:
    """Where a Qdrant index lives and how it is kept; without ``url`` in the index folder.

    Attributes
    ----------
    url : of a server or cloud, ``http://localhost:6333``; Qdrant's port 6333 is used where none
        is given. ``:memory:`` keeps the vectors in the process that opens the index.
    collection : the name under which the server offers the vectors; required with a server.
    api_key : never stored. Empty: the environment variable MILLPOND_QDRANT_API_KEY, then
        QDRANT_API_KEY.
    overwrite : replace the collection that has this name already, if millpond made it.
    grpc : vectors travel over gRPC (port 6334) instead of HTTP.
    parallel : how many batches are sent at the same time.
    shard_number, replication_factor : of the collection; None leaves them to the server.
    quantization : "none", "int8" (a quarter of the memory) or "binary" (a 32nd); the search then
        asks for twice the candidates and ranks them by the original vectors.
    on_disk_vectors, on_disk_payload, on_disk_graph : keep these on disk and not in memory.
    timeout_seconds : for one request.
    green_seconds : how long to wait after the upload for the server to finish indexing.
    """

    url: str = ""
    collection: str = ""
    api_key: str = field(default="", repr=False)
    overwrite: bool = False
    grpc: bool = False
    parallel: int = 1
    shard_number: int | None = None
    replication_factor: int | None = None
    quantization: str = "none"
    on_disk_vectors: bool = False
    on_disk_payload: bool = False
    on_disk_graph: bool = False
    timeout_seconds: int = 60
    green_seconds: int = 3600

    def __post_init__(self) -> None:
        """Raise UsageError for a value that is never accepted."""
        if self.mode == SERVER:
            _check_url(self.url)
            if COLLECTION.fullmatch(self.collection) is None:
                raise UsageError(
                    f"The collection is {self.collection!r}; a server needs a name of letters, "
                    "digits, '_', '-' and '.', at most 200 long. Type --collection NAME."
                )
        else:
            self._refuse_what_needs_a_server()
        for name in ("parallel", "shard_number", "replication_factor", "timeout_seconds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; it must be 1 or more.")
        if self.quantization not in QUANTIZATIONS:
            raise UsageError(
                f"quantization is {self.quantization!r}; accepted: {', '.join(QUANTIZATIONS)}."
            )

    @property
    def mode(self) -> str:
        """EMBEDDED, SERVER or MEMORY."""
        if not self.url:
            return EMBEDDED
        return MEMORY if self.url == MEMORY_URL else SERVER

    def settings(self) -> dict[str, Scalar]:
        """Return what the manifest keeps: everything but the key and what concerns one run."""
        if self.mode != SERVER:
            return {"mode": self.mode}
        transient = {"api_key", "overwrite", "parallel", "green_seconds"}
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in transient}
        return {"mode": SERVER, **{k: v for k, v in kept.items() if v is not None}}

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> QdrantOptions:
        """Return the options that an index was built with.

        Raises
        ------
        IndexCorruptError : the manifest does not tell them.
        """
        settings = manifest.settings
        mode = settings.get("mode")
        if mode in (EMBEDDED, MEMORY):
            return cls(url="" if mode == EMBEDDED else MEMORY_URL)
        known = {f.name for f in fields(cls)} & set(settings)
        try:
            if mode != SERVER:
                raise UsageError(f"mode is {mode!r}")
            return cls(**{name: settings[name] for name in known})  # type: ignore[arg-type]
        except (UsageError, TypeError) as error:
            raise IndexCorruptError(
                f"The manifest does not say where the vectors are: {error} "
                "Index the corpus again with --overwrite."
            ) from None

    def _refuse_what_needs_a_server(self) -> None:
        for option in fields(self):
            if option.name in ("url", "overwrite"):
                continue
            if getattr(self, option.name) != option.default:
                raise UsageError(
                    f"{option.name} concerns a Qdrant server, and none was named. "
                    "Type --url http://HOST:6333 --collection NAME."
                )


def _check_url(url: str) -> None:
    """Refuse what is no address of a server, and secrets, which would be kept in the manifest."""
    example = "Example: --url http://localhost:6333"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"The Qdrant url cannot be read: {error}. {example}") from None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UsageError(
            "The Qdrant url holds more than an address. Leave out user, password and everything "
            "from '?' or '#' on; put the key in the environment variable QDRANT_API_KEY. "
            f"{example}"
        )
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(
            f"The Qdrant url is {url!r}; it starts with http:// or https://. {example}"
        )
