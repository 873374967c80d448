"""Qdrant on the command line: ``--url``, ``--store FILE`` and ``--ask-key``."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cli.console import warn
from cli.options import flag, option
from retrieval.errors import UnknownNameError, UsageError
from retrieval.typed import read_dataclass, read_toml

if TYPE_CHECKING:
    from indexes.backends.qdrant import QdrantOptions

PANEL = "Qdrant, with --backend qdrant"
ANY_DIMENSION = 1
"""Stands for D before a model is loaded; every type of Qdrant index takes it."""

EXAMPLE = """\
# For: millpond index CORPUS --out DIR --backend qdrant --store FILE
# Settings behind a "#" are the defaults. The API key never goes in this file: put it
# into the environment variable QDRANT_API_KEY, or type --ask-key.

# Where the index is. Without url, Qdrant's own engine keeps it in DIR; of the other
# settings, only memory can be used then.
url = "http://localhost:6333"  # a server or cloud; --url says the same
collection = "docs"            # what the server calls it; the name of DIR by default
# memory = false               # true, without url: in the process that opens DIR

# How vectors get there.
# grpc = false                 # true: over gRPC (port 6334), not over HTTP
# parallel = 1                 # batches sent at the same time
# timeout_seconds = 60         # for one request
# green_seconds = 3600         # for the server to finish indexing afterwards

# How the server keeps them. It chooses shards and replicas where they are not set.
# shards = 2                   # of the collection
# replicas = 1                 # copies of each shard
# quantization = "none"        # int8 takes a quarter of the memory, binary a 32nd:
                               # search compressed, rank by the originals; needs HNSW
# vectors_on_disk = false      # true: keep the vectors on disk, not in memory
# payload_on_disk = false      # the same for texts, ids and fields of the documents
# graph_on_disk = false        # the same for the graph; needs HNSW

# What other programs find in a point. The names are those that langchain-qdrant reads.
# text_field = "page_content"  # the text
# metadata_field = "metadata"  # the metadata and the title
# store_text = true            # false: leave the texts out
"""


UrlOption = Annotated[
    str | None,
    option(
        "URL",
        "A server or cloud, such as http://localhost:6333. Without it, Qdrant's engine keeps "
        "the index in DIR.",
        "--url",
        panel=PANEL,
        shown=False,
    ),
]
StoreOption = Annotated[
    Path | None,
    option(
        "FILE",
        "A TOML file with further settings, such as the name of the collection; 'millpond "
        "index --store-example' prints one.",
        "--store",
        panel=PANEL,
        shown=False,
    ),
]
AskKeyOption = Annotated[
    bool,
    flag(
        "--ask-key",
        "Prompt for the API key of the server. Without this, it is read from the "
        "environment variable MILLPOND_QDRANT_API_KEY or QDRANT_API_KEY.",
        panel=PANEL,
    ),
]
StoredKeyOption = Annotated[
    bool, flag("--ask-key", "Prompt for the API key of the Qdrant server that holds the vectors.")
]
StoredUrlOption = Annotated[
    str | None,
    option(
        "URL",
        "The Qdrant server that holds the vectors, to confirm that you trust it.",
        "--url",
        shown="MILLPOND_QDRANT_URL, or a server on this machine without a key",
    ),
]


@dataclass(frozen=True)
class QdrantFlags:
    """What was typed of the Qdrant panel."""

    url: str | None = None
    store: Path | None = None
    ask_key: bool = False

    @property
    def typed(self) -> list[str]:
        """The flags that were typed, as they are spelled."""
        typed = {"--url": self.url is not None, "--store": self.store, "--ask-key": self.ask_key}
        return [name for name, value in typed.items() if value]


def read_qdrant_options(
    backend: str, factory: str, flags: QdrantFlags, collection: str
) -> QdrantOptions | None:
    """Return the Qdrant options of the flags and the file; None for another backend.

    Asks no server; may ask for the key.

    Parameters
    ----------
    collection : the name that the server gives the index where the file names none.

    Raises
    ------
    UsageError : flags or settings are wrong or do not go together.
    SourceNotFoundError, StorageError : the file is not there or cannot be read.
    """
    if backend != "qdrant":
        if flags.typed:
            raise UsageError(
                f"Only Qdrant has a use for {' and '.join(flags.typed)}, and the backend is "
                f"{backend!r}. Type --backend qdrant, or leave that out."
            )
        return None
    options = _read_options(flags, collection)
    _check_graph(factory, options)
    if flags.ask_key:
        options = replace(options, api_key=ask_key(options.url))
    return options


def _read_options(flags: QdrantFlags, collection: str) -> QdrantOptions:
    from indexes.backends.qdrant.options import SERVER, refuse_without_server

    typed: dict[str, Any] = {}  # whose types are not checked yet
    if flags.store is not None:
        typed = read_toml(flags.store, f"Type: millpond index --store-example > {flags.store}")
    if flags.url is not None and not flags.url.strip():
        raise UsageError("--url is empty. Type --url http://localhost:6333, or leave it out.")
    if flags.url is not None and flags.url != typed.get("url", flags.url):
        raise UsageError(
            f"--url and the url in {flags.store} are two addresses. Leave one of them out."
        )
    url = typed.get("url") if flags.url is None else flags.url
    values = {"collection": collection, **typed, "url": url} if url else typed
    try:
        options = _build_options(values)
        if options.mode != SERVER:
            needy = [name for name in typed if name not in ("url", "memory")]
            refuse_without_server([*needy, *(["--ask-key"] if flags.ask_key else [])])
    except UsageError as error:
        raise UsageError(f"{flags.store}: {error}" if typed else str(error)) from None
    return options


def _build_options(values: dict[str, Any]) -> QdrantOptions:
    from indexes.backends.qdrant import QdrantOptions

    unknown = ("api_key", "overwrite", "received")
    known = [f.name for f in fields(QdrantOptions) if f.name not in unknown]
    for name in values:
        if name not in known:
            advice = "A key goes in the environment variable QDRANT_API_KEY, or type --ask-key."
            raise UnknownNameError("setting", name, known, advice if "key" in name else "")
    return read_dataclass(QdrantOptions, values)


def _check_graph(factory: str, options: QdrantOptions) -> None:
    """Raise UsageError for settings that have no effect without a graph."""
    if factory != "Flat":
        return
    if options.graph_on_disk:
        raise UsageError(
            "graph_on_disk is about the graph of HNSW, and --factory Flat has none. Type "
            "--factory HNSW, or leave the setting out."
        )
    if options.quantization != "none":
        raise UsageError(
            f"quantization {options.quantization} is for approximate search, and --factory Flat "
            "compares the original vectors. Type --factory HNSW, or leave the setting out."
        )


def use_stored_server(folder: Path, url: str | None, asks_key: bool) -> None:
    """Let this process use the server that holds an index, as far as the user named it.

    ``--url`` names it, and so does a key that is typed for it. Both are put into environment
    variables that every connection reads.

    Raises
    ------
    UsageError : no server holds the vectors, or another than ``url``; there is no terminal, or no
        key was typed.
    SourceNotFoundError, IndexCorruptError : there is no index in the folder.
    """
    typed = [*(["--url"] if url is not None else []), *(["--ask-key"] if asks_key else [])]
    if not typed:
        return
    from indexes import read_manifest
    from indexes.backends.qdrant import QdrantOptions
    from indexes.backends.qdrant.connection import API_KEY_VARIABLES, URL_VARIABLE
    from indexes.backends.qdrant.options import check_url, origin

    manifest = read_manifest(folder)
    stored = QdrantOptions.from_manifest(manifest).url if manifest.backend == "qdrant" else ""
    if not stored:
        raise UsageError(
            f"Only a Qdrant server has a use for {' and '.join(typed)}, and {folder} holds its "
            "vectors itself. Leave it out."
        )
    if url is not None:
        check_url(url)
        if origin(url) != origin(stored):
            raise UsageError(
                f"{folder} has its vectors on the Qdrant server {stored}, not {url}. Type --url "
                f"{stored} if you trust that server."
            )
    owner = os.environ.get(URL_VARIABLE)
    if asks_key:
        os.environ[API_KEY_VARIABLES[0]] = ask_key(stored)
    elif owner and origin(owner) != origin(stored):
        for variable in API_KEY_VARIABLES:
            if os.environ.pop(variable, None):
                warn(f"The key in {variable} belongs to {owner} and is not sent to {stored}.")
    os.environ[URL_VARIABLE] = stored


def use_stored_servers(folders: Sequence[Path], url: str | None, asks_key: bool) -> None:
    """Let this process use the one server that holds some of the indexes, at least one.

    The key is asked for once. ``url`` or ``asks_key`` was typed. Raises as ``use_stored_server``.
    """
    from indexes import read_manifest

    held = [one for one in folders if read_manifest(one).settings.get("mode") == "server"]
    for number, folder in enumerate(held or folders[:1]):
        use_stored_server(folder, url, asks_key and not number)


def ask_key(url: str) -> str:
    """Return the key that is typed at the terminal and not shown there.

    Raises
    ------
    UsageError : there is no terminal, or nothing was typed.
    """
    import getpass

    instead = "put the key into the environment variable QDRANT_API_KEY"
    try:
        with warnings.catch_warnings():
            # Where it cannot hide what is typed, getpass would warn and show it.
            warnings.simplefilter("error", getpass.GetPassWarning)
            key = getpass.getpass(f"API key of {url}: ")
    except (getpass.GetPassWarning, OSError):
        raise UsageError(
            f"--ask-key needs a terminal, and there is none here. Leave it out and {instead}."
        ) from None
    except EOFError:
        key = ""
    if not key:
        raise UsageError(
            f"No key was typed. Type it when asked, or leave --ask-key out and {instead}."
        )
    return key
