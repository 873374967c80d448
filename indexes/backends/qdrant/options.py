"""The choices for a Qdrant index: where it is, its type, its trade-offs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from indexes.storage.manifest import Manifest
from retrieval import Scalar
from retrieval.errors import IndexCorruptError, UsageError, import_optional

EMBEDDED = "embedded"
SERVER = "server"
MEMORY = "memory"
QUANTIZATIONS = ("none", "int8", "binary")
LARGEST_DIMENSION = 65_536
SEARCH_BREADTH = 128
INSTALL = "pip install 'millpond[qdrant]'"

GRAMMAR = re.compile(r"HNSW(?P<m>[0-9]{1,6})?(?:,ef(?P<ef>[0-9]{1,6}))?")
COLLECTION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")

ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OWN_ENTRIES = ("doc_id", "row", "fields")

ADDRESS = re.compile(
    r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~-]+)*/?",
    re.IGNORECASE,
)
"""Nothing that another parser could read as another host, as qdrant-client does with a path of
``//host``: who may get the key is decided by the address."""

DEFAULT_PORT = 6333
TRANSIENT = ("memory", "api_key", "overwrite", "received", "parallel", "green_seconds")
"""Options of a single run, which the manifest does not keep and could not set."""


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
        """Return the index type that ``text`` names.

        Raises
        ------
        UsageError : it is none of these forms, or a number is out of range.
        """
        if dimension > LARGEST_DIMENSION:
            raise UsageError(
                f"Qdrant stores vectors of length 1 to {LARGEST_DIMENSION}; these have {dimension}."
            )
        if text == "Flat":
            return cls(exact=True)
        match = GRAMMAR.fullmatch(text)
        if match is None:
            raise _refused(text, "there is no such type")
        m, ef_construct = int(match["m"] or 16), int(match["ef"] or 100)
        if not 2 <= m <= 256:
            raise _refused(text, f"a node has 2 to 256 edges, not {m}")
        if not 4 <= ef_construct <= 4096:
            raise _refused(text, f"ef is 4 to 4096, not {ef_construct}")
        return cls(exact=False, m=m, ef_construct=ef_construct)

    def settings(self) -> dict[str, Scalar]:
        """Return the settings for the manifest."""
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
        f"Qdrant cannot make the index {text!r}: {reason}. Expected: Flat (exact), HNSW, HNSW32 "
        "(edges of a node) or HNSW32,ef200 (and candidates while building)."
    )


@dataclass(frozen=True, slots=True)
class QdrantOptions:
    """Where a Qdrant index lives and how it is kept; without ``url`` in the index folder.

    Attributes
    ----------
    url : of a server or cloud, ``http://localhost:6333``; Qdrant's port 6333 where none is given.
    memory : the vectors lie in the process that opens the index; instead of ``url``.
    collection : the name under which the server offers the vectors; required with a server.
    api_key : never stored. Empty: the environment variable MILLPOND_QDRANT_API_KEY, then
        QDRANT_API_KEY. Sent over TLS or to this machine, and only to a server that the user named.
    received : a manifest states the url, and the user may not know it.
    overwrite : replace the collection that has this name already, if millpond made it.
    grpc : vectors travel over gRPC (port 6334) instead of HTTP.
    parallel : how many batches are sent at the same time.
    shards, replicas : of the collection; None leaves them to the server.
    quantization : "none", "int8" (a quarter of the memory) or "binary" (a 32nd); the search then
        asks for twice the candidates and ranks them by the original vectors.
    vectors_on_disk, payload_on_disk, graph_on_disk : keep these on disk and not in memory.
    text_field, metadata_field : the payload entries in which other programs find a document's text
        and metadata; the names are LangChain's.
    store_text : whether the payload holds the text.
    timeout_seconds : for one request.
    green_seconds : how long to wait after the upload for the server to finish indexing.
    """

    url: str = ""
    memory: bool = False
    collection: str = ""
    api_key: str = field(default="", repr=False)
    overwrite: bool = False
    received: bool = field(default=False, repr=False, compare=False)
    grpc: bool = False
    parallel: int = 1
    shards: int | None = None
    replicas: int | None = None
    quantization: str = "none"
    vectors_on_disk: bool = False
    payload_on_disk: bool = False
    graph_on_disk: bool = False
    text_field: str = "page_content"
    metadata_field: str = "metadata"
    store_text: bool = True
    timeout_seconds: int = 60
    green_seconds: int = 3600

    def __post_init__(self) -> None:
        """Raise UsageError for values that no Qdrant takes, alone or together."""
        if self.memory and self.url:
            raise UsageError(
                "memory keeps the vectors in the process that opens the index, and url names a "
                "Qdrant server. Leave one or the other out."
            )
        if self.mode == SERVER:
            check_url(self.url)
            if COLLECTION.fullmatch(self.collection) is None:
                raise UsageError(
                    f"The collection is {self.collection!r}; expected a name of letters, digits, "
                    "'_', '-' and '.', at most 200 long. Name it in the --store file."
                )
        else:
            places = ("url", "memory", "overwrite", "received")
            changed = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
            refuse_without_server([name for name in changed if name not in places])
        for name in ("parallel", "shards", "replicas", "timeout_seconds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}; it must be 1 or more.")
        if self.quantization not in QUANTIZATIONS:
            raise UsageError(
                f"quantization is {self.quantization!r}; expected {', '.join(QUANTIZATIONS)}."
            )
        _check_entries(self.text_field, self.metadata_field)

    @property
    def mode(self) -> str:
        """EMBEDDED, SERVER or MEMORY."""
        if self.memory:
            return MEMORY
        return SERVER if self.url else EMBEDDED

    def settings(self) -> dict[str, Scalar]:
        """Return the settings for the manifest: all but the key and those of a single run."""
        if self.mode != SERVER:
            return {"mode": self.mode}
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in TRANSIENT}
        return {"mode": SERVER, **{k: v for k, v in kept.items() if v is not None}}

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> QdrantOptions:
        """Return the options that an index was built with, marked as ``received``.

        Raises
        ------
        IndexCorruptError : the manifest does not tell them.
        """
        settings = manifest.settings
        mode = settings.get("mode")
        if mode in (EMBEDDED, MEMORY):
            return cls(memory=mode == MEMORY)
        known = {f.name for f in fields(cls)} & settings.keys() - {*TRANSIENT}
        try:
            if mode != SERVER:
                raise UsageError(f"mode is {mode!r}.")
            if "metadata_field" not in settings:
                raise UsageError("An earlier millpond made it, with another payload.")
            kept: dict[str, Any] = {name: settings[name] for name in known}
            return cls(**kept, received=True)
        except (UsageError, TypeError, AttributeError) as error:
            raise IndexCorruptError(
                f"The manifest does not say where the vectors are: {error} "
                "Index the corpus again with --overwrite."
            ) from None


def _check_entries(text: str, metadata: str) -> None:
    """Raise UsageError for names of payload entries that cannot be used."""
    for name, value in (("text_field", text), ("metadata_field", metadata)):
        if not ENTRY.fullmatch(value) or value in OWN_ENTRIES:
            raise UsageError(
                f"{name} is {value!r}; expected letters, digits and '_', not beginning with a "
                f"digit, and not {', '.join(OWN_ENTRIES)}, which hold something else."
            )
    if text == metadata:
        raise UsageError(f"text_field and metadata_field are both {text!r}; expected two names.")


def refuse_without_server(names: Sequence[str]) -> None:
    """Raise UsageError for options that only a server has a use for, if there are any."""
    if names:
        raise UsageError(
            f"No Qdrant server is named, and only a server has a use for {', '.join(names)}. Type "
            "--url http://localhost:6333, or leave out what needs it."
        )


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an address that ``check_url`` accepts."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or DEFAULT_PORT


def is_loopback(url: str) -> bool:
    """Return whether an address is on this machine, whatever its network is."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def check_url(url: str) -> None:
    """Raise UsageError for a bad address, and for secrets, which the manifest would keep."""
    example = "Example: http://localhost:6333"
    if url == ":memory:":
        example = "For an index in memory: memory = true in the --store file"
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
    if parts.scheme not in ("http", "https") or not host or not ADDRESS.fullmatch(url):
        raise UsageError(
            f"The Qdrant url is {url!r}; expected one that starts with http:// or https://, "
            f"then a host in ASCII letters, and a port or path if needed. {example}"
        )


def load_client() -> Any:
    """Return the qdrant_client module, or raise MissingDependencyError."""
    return import_optional("qdrant_client", "A Qdrant server", INSTALL, "qdrant-client")


def load_edge() -> Any:
    """Return the qdrant_edge module, or raise MissingDependencyError."""
    return import_optional("qdrant_edge", "The Qdrant index in a folder", INSTALL, "qdrant-edge-py")
