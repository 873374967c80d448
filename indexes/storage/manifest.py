"""The manifest: what an index folder holds, who made it, and how to tell that it is whole."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from indexes.storage.files import FileEntry, StoredFile, damaged, refuse_links, unreadable
from retrieval import Fingerprint, Scalar
from retrieval.errors import IndexCorruptError, SourceNotFoundError, UsageError
from retrieval.filters import Schema
from retrieval.typed import plain_data, read_stored

FORMAT = "millpond-index"
FORMAT_VERSION = 5
OLDEST_FORMAT = 4
"""The format before 5 had no lexical arm."""
MANIFEST_NAME = "manifest.json"
BUILDING_NAME = ".building"
DOCUMENTS_NAME = "documents"
VECTORS_NAME = "vectors"
LEXICAL_NAME = "lexical"
SHARD_ROLES = (DOCUMENTS_NAME, VECTORS_NAME)
"""What the roles of numbered files begin with, and the folders that hold them."""
METRICS = ("cosine", "inner_product")

_OPTIONAL = ("weight", "blank", "layout", "cut")
"""Fields that JSON holds only where they are not None."""
DIGEST = "digest"
"""The key of the manifest's own checksum, which is its last; the manifest of an index that an
earlier millpond made has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything that is known about an index without opening it.

    Attributes
    ----------
    backend : name in ``indexes.backends.registry.BACKENDS``.
    factory : the backend's own description of the index type (a FAISS factory string).
    metric : "cosine", the inner product of unit vectors, or "inner_product" of others.
    dimension : D.
    documents : how many documents can be found.
    rows : how many are stored; deleted ones are, until the index is compacted.
    fingerprint : of the encoder that made the vectors.
    created : UTC, ISO 8601.
    millpond : the version that wrote the index.
    libraries : version by library name.
    files : by role: "documents/00000" and "vectors/00000" and up, "fields" (typed metadata) and
        "deleted" and "blank" (row numbers) where there are any, those of the lexical arm
        ("lexical/...") and the backend's own ("index").
    corpus_name : as the user named it; may be empty.
    skipped : how many records the corpus reader left out.
    settings : what the backend chose while building (training sample, seed, search breadth).
    fields : the kinds of value of each metadata field; see ``retrieval.filters.Schema``.
    vector_type : what the numbers of a vector are stored as, "float32" or "float16".
    passages : how documents were cut ("tokens", "overlap"), each row being a passage; empty if
        each row is a document.
    lexical : language and version of the analyser of the lexical arm; empty if there is none.
    blank : how many of the documents hold no letter, digit or pictograph, so that no search by
        meaning returns them; None in an index of an earlier millpond, where it does.
    layout : which fields of the records held the id, the title and the text, where they were
        named or guessed; see ``Corpus.layout``.
    cut : of the documents that were embedded whole, how many ("texts") there were, how many were
        longer than the model reads ("cut"), their "tokens", and those that were not read
        ("unread").
    weight : the dense arm's share in hybrid search, which ``millpond tune`` found; None for the
        default.
    """

    backend: str
    factory: str
    metric: str
    dimension: int
    documents: int
    rows: int
    fingerprint: Fingerprint
    files: Mapping[str, FileEntry]
    created: str = ""
    millpond: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)
    corpus_name: str = ""
    skipped: int = 0
    settings: Mapping[str, Scalar] = field(default_factory=dict)
    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)
    vector_type: str = "float32"
    passages: Mapping[str, int] = field(default_factory=dict)
    lexical: Mapping[str, Scalar] = field(default_factory=dict)
    blank: int | None = None
    weight: float | None = None
    layout: Mapping[str, str] | None = None
    cut: Mapping[str, int] | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Raise ValueError for a value that no index can have."""
        if self.metric not in METRICS:
            raise ValueError(f"metric is {self.metric!r}; expected {' or '.join(METRICS)}")
        for name, least in (("dimension", 1), ("documents", 1), ("skipped", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be {least} or more")
        if self.rows < self.documents:
            raise ValueError(f"rows is {self.rows}, less than the {self.documents} documents")
        if self.blank is not None and not 0 <= self.blank <= self.documents:
            raise ValueError(f"blank is {self.blank}, of {self.documents} documents")
        if self.weight is not None and not 0 <= self.weight <= 1:
            raise ValueError(f"weight is {self.weight}; it must be between 0 and 1")

    def place(self, folder: Path, role: str) -> Path:
        """Return the file of a role.

        Raises
        ------
        KeyError : no file has this role.
        """
        return folder / self.files[role].name

    def shards(self, folder: Path, role: str) -> list[StoredFile]:
        """Return the numbered files of "documents" or "vectors", in the order of their rows."""
        listed = sorted(name for name in self.files if name.startswith(f"{role}/"))
        entries = [self.files[name] for name in listed]
        return [StoredFile(folder / entry.name, entry.blocks) for entry in entries]

    @property
    def findable(self) -> int:
        """How many documents a search by meaning can return: those that are not blank."""
        return self.documents - (self.blank or 0)

    @property
    def shard_files(self) -> dict[str, FileEntry]:
        """The files of the vectors and documents, by role."""
        roles = tuple(f"{role}/" for role in SHARD_ROLES)
        return {role: entry for role, entry in self.files.items() if role.startswith(roles)}

    @property
    def lexical_files(self) -> dict[str, FileEntry]:
        """The files of the lexical arm, by role."""
        top = f"{LEXICAL_NAME}/"
        return {role: entry for role, entry in self.files.items() if role.startswith(top)}

    @property
    def arms(self) -> tuple[str, ...]:
        """What the index is searched by: "dense", and "lexical" where there is such an arm."""
        return ("dense", LEXICAL_NAME) if self.lexical else ("dense",)

    @property
    def schema(self) -> Schema:
        """The types of the metadata fields."""
        return Schema.from_json(self.fields)

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary that ``from_json`` reads."""
        plain: dict[str, Any] = plain_data(self)
        kept = {k: v for k, v in plain.items() if k not in _OPTIONAL or v is not None}
        return {"format": FORMAT, **kept, "fingerprint": self.fingerprint.to_json()}

    @property
    def version(self) -> str:
        """A name for this state of the index: the first 12 digits of the manifest's digest."""
        digest: str = json.loads(self.encode())[DIGEST]
        return digest[:12]

    def encode(self) -> bytes:
        """Return the content of the file, with its own digest, that ``read_manifest`` reads."""
        return _sign(self.to_json())

    @classmethod
    def from_json(cls, data: object) -> Manifest:
        """Read what ``to_json`` wrote.

        Raises
        ------
        ValueError : a key is missing or its value is of the wrong type.
        UsageError : a newer millpond wrote it.
        IndexCorruptError : an older one did.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f'it is not an object with "format": "{FORMAT}"')
        missing = {f.name for f in fields(cls)} - {*_OPTIONAL, LEXICAL_NAME} - data.keys()
        if missing:
            raise ValueError(f"key {min(missing)!r} is missing")
        version = data["format_version"]
        if type(version) is not int:
            raise ValueError(f"'format_version' is {version!r}, which is no whole number")
        if version > FORMAT_VERSION:
            raise UsageError(
                f"it has format {version}, written by a newer millpond; this one reads up to "
                f"format {FORMAT_VERSION}. Type: pip install --upgrade millpond"
            )
        if version < OLDEST_FORMAT:
            raise IndexCorruptError(
                f"it has format {version}, written by an older millpond; this one reads format "
                f"{OLDEST_FORMAT} and newer. Index the corpus again with --overwrite."
            )
        if version > OLDEST_FORMAT and LEXICAL_NAME not in data:
            raise ValueError(f"key {LEXICAL_NAME!r} is missing")
        stored = {name: value for name, value in data.items() if name != "format"}
        return read_stored(
            cls, stored | {"fingerprint": Fingerprint.from_json(data["fingerprint"])}
        )


def read_manifest(path: Path | str) -> Manifest:
    """Return the manifest of the index in folder ``path``.

    Raises
    ------
    SourceNotFoundError : there is no such folder, or it holds no index.
    IndexCorruptError : the build was interrupted, the manifest is malformed or a link, or an older
        millpond wrote it.
    UsageError : a newer millpond wrote the index.
    """
    folder = Path(path)
    file = folder / MANIFEST_NAME
    refuse_links([file])
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(folder) from None
    except PermissionError:
        raise unreadable(file) from None
    except OSError as error:
        raise IndexCorruptError(f"{file} cannot be read: {error.strerror}.") from error
    try:
        data = json.loads(content)
        digest = data.pop(DIGEST, None) if isinstance(data, dict) else None
        manifest = Manifest.from_json(data)
        if digest is not None and _sign(data) != content:
            raise ValueError("its digest is not the one of what it holds")
        return manifest
    except (UsageError, IndexCorruptError) as error:
        raise type(error)(f"The index {folder} cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise damaged(file, error) from error


def _sign(data: Mapping[str, Any]) -> bytes:
    """Return a JSON object as it is stored: with the SHA-256 of what it is without."""
    digest = hashlib.sha256(json.dumps(data, indent=2).encode()).hexdigest()
    return (json.dumps({**data, DIGEST: digest}, indent=2) + "\n").encode()


def now_utc() -> str:
    """Return the time as UTC in ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def millpond_version() -> str:
    """Return the installed version, or "not installed" when run from a source folder."""
    try:
        return metadata.version("millpond")
    except metadata.PackageNotFoundError:
        return "not installed"


def base_libraries() -> dict[str, str]:
    """Return the versions of the libraries that every index depends on."""
    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pyarrow": str(pa.__version__),
    }


def _missing(folder: Path) -> SourceNotFoundError | IndexCorruptError:
    if not folder.exists():
        return SourceNotFoundError(
            f"There is no index at {folder}. Make one with: millpond index CORPUS --out {folder}"
        )
    if (folder / BUILDING_NAME).exists():
        return IndexCorruptError(
            f"{folder} holds no finished index: a build is running or was interrupted. "
            f"Wait for it, or run the same command again: it goes on from where it stopped."
        )
    return SourceNotFoundError(
        f"{folder} is not an index: it has no {MANIFEST_NAME}. "
        f"Make an index with: millpond index CORPUS --out FOLDER"
    )
