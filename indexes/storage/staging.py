"""A build in progress: what is embedded so far, shard by shard, so that a killed run goes on.

::

    .building/plan.json             what decides the vectors; another plan is refused
    .building/documents/00000.arrow
    .building/vectors/00000.npy
    .building/done/00000.json       written last: both files of the shard are whole

A shard ends between two chunks, so a run that goes on hands the encoder the same chunks as an
unbroken one, and gets the same vectors.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from indexes.storage.document_writer import ContentDigest, DocumentWriter, make_rows
from indexes.storage.files import FileEntry, find_fault, refuse_links
from indexes.storage.manifest import BUILDING_NAME, DOCUMENTS_NAME, SHARD_ROLES, VECTORS_NAME
from indexes.storage.vectors import VectorWriter
from retrieval import Document, Vectors
from retrieval.disk import replace_file, sync_path
from retrieval.errors import UsageError
from retrieval.typed import load_json, read_stored

PLAN_NAME = "plan.json"
COMPACTION = "compaction"
"""The one key of the plan of a compaction."""
CHANGE = "change"
"""The key that says which change a plan is of; there is none where an index is made."""
DONE_NAME = "done"
SHARD_SECONDS = 30.0
SHARD_BYTES = 256 * 2**20
"""A shard ends with the first chunk after either."""
READ_DOCUMENTS = 1024
"""How many are compared at a time with what is finished."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A finished shard: its rows, a digest of what its documents hold, and its two files."""

    rows: int
    content: str
    documents: FileEntry
    vectors: FileEntry

    def is_whole(self, folder: Path) -> bool:
        """Whether both files are what was written."""
        entries = (self.documents, self.vectors)
        return not any(find_fault(folder, entry, checksum=True) for entry in entries)


class Staging:
    """The staged documents and vectors of one build.

    Parameters
    ----------
    folder : ``.building``; made if missing.
    plan : what decides the vectors, as JSON can hold it.
    source : how messages name the corpus.
    dimension, vector_type : of the vectors; see ``VectorWriter``.

    Raises
    ------
    UsageError : the folder holds finished shards of another plan; names what differs.
    OSError : the disk refuses.
    """

    def __init__(
        self,
        folder: Path,
        plan: Mapping[str, Any],
        *,
        source: str,
        dimension: int,
        vector_type: str = "float32",
    ) -> None:
        self.folder = folder
        self._source, self._dimension = source, dimension
        self._vector_type = vector_type
        _take_up(folder, plan)
        for name in (DOCUMENTS_NAME, VECTORS_NAME, DONE_NAME):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self._done = finished_shards(folder)
        _drop_unfinished(folder, len(self._done))
        self._open: _OpenShard | None = None

    def files(self, first: int = 0) -> dict[str, FileEntry]:
        """Return the files of the finished shards by role, numbered from ``first``.

        Names are relative to the folder above ``folder``.
        """
        found = {}
        for number, shard in enumerate(self._done, start=first):
            for role, entry in zip(SHARD_ROLES, (shard.documents, shard.vectors), strict=True):
                name = f"{self.folder.name}/{entry.name}"
                found[f"{role}/{number:05d}"] = replace(entry, name=name)
        return found

    @property
    def finished_rows(self) -> int:
        """How many documents the finished shards hold."""
        return sum(shard.rows for shard in self._done)

    def skip(self, documents: Iterator[Document]) -> Iterator[int]:
        """Pass over what is embedded already; yield the number of documents of each shard.

        Raises
        ------
        UsageError : these are not the documents that were embedded.
        """
        start = 0
        for shard in self._done:
            rows, content = _read_content(islice(documents, shard.rows))
            if rows < shard.rows or content != shard.content:
                raise UsageError(
                    f"{self._source} has changed since this index was begun: documents "
                    f"{start + 1:,} to {start + shard.rows:,} are different now. Restore the "
                    f"old corpus, or type --restart to embed all of it again."
                )
            start += rows
            yield rows

    def append(self, documents: Sequence[Document], vectors: Vectors) -> None:
        """Write a chunk, and finish the shard if it is large or old enough.

        Raises
        ------
        RecordError : a document cannot be stored.
        VectorError : the vectors are not finite float32 (n, D).
        OSError : the disk refuses.
        """
        if self._open is None:
            writer = partial(VectorWriter, dimension=self._dimension, vector_type=self._vector_type)
            self._open = _OpenShard(
                self.folder, len(self._done), self.finished_rows, self._source, writer
            )
            self._began = time.monotonic()
        self._open.append(documents, vectors)
        if self._open.bytes >= SHARD_BYTES or time.monotonic() - self._began >= SHARD_SECONDS:
            self.finish()

    def finish(self) -> None:
        """Finish the shard in progress, if there is one: from now on it survives a kill."""
        if self._open is not None:
            self._done.append(self._open.finish())
            self._open = None

    def abandon(self) -> None:
        """Close what is open and drop the shard in progress."""
        if self._open is not None:
            self._open.abandon()
            self._open = None
        with suppress(OSError):
            _drop_unfinished(self.folder, len(self._done))


class _OpenShard:
    """The shard that is being written."""

    def __init__(
        self,
        folder: Path,
        number: int,
        first_row: int,
        source: str,
        writer: Callable[[Path], VectorWriter],
    ) -> None:
        self._folder, self._number = folder, number
        self._content = ContentDigest()
        self._names = {
            DOCUMENTS_NAME: f"{DOCUMENTS_NAME}/{number:05d}.arrow",
            VECTORS_NAME: f"{VECTORS_NAME}/{number:05d}.npy",
        }
        paths = {role: folder / name for role, name in self._names.items()}
        self._writers = ExitStack()
        self._documents = self._writers.enter_context(
            DocumentWriter(paths[DOCUMENTS_NAME], source=source, first_row=first_row)
        )
        self._vectors = self._writers.enter_context(writer(paths[VECTORS_NAME]))

    @property
    def bytes(self) -> int:
        """The size of the vectors so far."""
        return 4 * self._vectors.rows * self._vectors.dimension

    def append(self, documents: Sequence[Document], vectors: Vectors) -> None:
        self._content.update(self._documents.extend(documents))
        self._vectors.append(vectors)

    def finish(self) -> Shard:
        """Bring both files to the disk, then say that they are whole."""
        self._writers.close()
        entries = {}
        for role, name in self._names.items():
            sync_path(self._folder / name)
            sync_path((self._folder / name).parent)
            entries[role] = FileEntry.of(self._folder / name, name)
        shard = Shard(self._vectors.rows, self._content.digest(), **entries)
        path = self._folder / DONE_NAME / f"{self._number:05d}.json"
        replace_file(path, json.dumps(asdict(shard)).encode())
        sync_path(path.parent)
        return shard

    def abandon(self) -> None:
        """Close the files of a shard that will not be finished."""
        with suppress(OSError):
            self._writers.__exit__(OSError, OSError(), None)


def has_finished_shards(folder: Path) -> bool:
    """Return whether there is a finished shard that another run could continue from.

    A compaction has none: its rows are copies, which the next compaction makes again.
    """
    if COMPACTION in _read_object(folder / PLAN_NAME):
        return False
    held = all((folder / name).is_dir() for name in (DOCUMENTS_NAME, VECTORS_NAME))
    return held and any((folder / DONE_NAME).glob("*.json"))


def _take_up(folder: Path, plan: Mapping[str, Any]) -> None:
    """Check that the finished shards were made with this plan; without any, begin anew."""
    path = folder / PLAN_NAME
    if not has_finished_shards(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, (json.dumps(plan, indent=1) + "\n").encode())
        return
    before = _read_object(path)
    changed = [
        f"{name} was {before.get(name)!r} and is {plan.get(name)!r}"
        for name in dict.fromkeys([*before, *plan])
        if before.get(name) != plan.get(name)
    ]
    if changed:
        raise UsageError(
            f"{folder.parent} holds an unfinished index that was begun with other settings: "
            f"{'; '.join(changed)}. Go back to those to continue, or type "
            f"--restart to embed the whole corpus again."
        )


def finished_shards(folder: Path) -> list[Shard]:
    """Return the finished shards from the first on, up to one that is damaged or missing."""
    found: list[Shard] = []
    for number, path in enumerate(sorted((folder / DONE_NAME).glob("*.json"))):
        try:
            shard = read_stored(Shard, load_json(path))
        except (ValueError, OSError):
            break
        if path.stem != f"{number:05d}" or not shard.is_whole(folder):
            break
        found.append(shard)
    return found


def _drop_unfinished(folder: Path, finished: int) -> None:
    """Delete everything but the plan and the first so many shards."""
    kept = {f"{number:05d}" for number in range(finished)}
    for entry in folder.iterdir():
        if entry.name in (DOCUMENTS_NAME, VECTORS_NAME, DONE_NAME):
            for path in entry.iterdir():
                if path.stem not in kept:
                    path.unlink()
        elif entry.name != PLAN_NAME:
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def _read_content(documents: Iterator[Document]) -> tuple[int, str]:
    """Return how many documents these are and the digest of what they hold."""
    content, rows = ContentDigest(), 0
    while some := list(islice(documents, READ_DOCUMENTS)):
        try:
            content.update(make_rows(some))
        except (UnicodeEncodeError, TypeError, ValueError):
            return rows, ""  # what cannot be stored is in no shard
        rows += len(some)
    return rows, content.digest()


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What the same command would continue from.

    Attributes
    ----------
    corpus : as the user named it; empty if the plan does not say.
    documents : how many are embedded, in shards whose files are whole.
    shards : how many such shards there are, from the first on.
    change : what was begun: "index", "add", "update" or "compaction".
    """

    corpus: str
    documents: int
    shards: int
    change: str = "index"


def read_unfinished(path: Path | str) -> Unfinished | None:
    """Return what is left of an unfinished build in folder ``path``; None if there is none.

    Reads every finished shard, to compare its checksum.

    Raises
    ------
    IndexCorruptError : a symbolic link is where the build would be.
    """
    staging = Path(path) / BUILDING_NAME
    refuse_links([staging])
    if not staging.is_dir():
        return None
    plan = _read_object(staging / PLAN_NAME)
    shards = finished_shards(staging) if has_finished_shards(staging) else []
    corpus, change = plan.get("corpus"), plan.get(CHANGE, "index")
    return Unfinished(
        corpus if isinstance(corpus, str) else "",
        sum(shard.rows for shard in shards),
        len(shards),
        COMPACTION if COMPACTION in plan else str(change),
    )


def _read_object(path: Path) -> Mapping[str, Any]:
    """Return the JSON object in this file; an empty one if there is none."""
    try:
        data = load_json(path)
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
