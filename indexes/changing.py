"""Changes an index: adds and replaces documents, embedding only what is new.

The document id decides. Stored shards are never written again: new rows go into new shards, and
the rows that they replace are listed as deleted. One rename of the manifest publishes a change,
so that readers see all of it or nothing, and a killed change goes on like a killed build.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path

import numpy as np

from indexes.backends.backend import Backend
from indexes.change import Change, ChangeConfig, Tally
from indexes.compaction import compact_if_needed
from indexes.folder import Workspace, open_workspace, storage_errors
from indexes.index import StoredIndex
from indexes.opening import open_index
from indexes.publishing import document_key, document_of, publish_change
from indexes.search.selection import IdLookup, Mask
from indexes.storage.manifest import MANIFEST_NAME, Manifest, read_manifest
from indexes.storage.staging import Staging
from indexes.write import check_encoded, read_chunks
from retrieval import Document, Encoder, Progress, Vectors, check_fingerprints
from retrieval.corpus.reading import IdSet
from retrieval.errors import DuplicateIdError, UsageError
from retrieval.passages import Splitter, read_passages

__all__ = ["add_documents", "update_documents"]

BATCH = 256
SHOWN_IDS = 3


def add_documents(
    encoder: Encoder,
    documents: Iterable[Document],
    path: Path | str,
    config: ChangeConfig | None = None,
    *,
    store: Backend | None = None,
    split: Splitter | None = None,
    progress: Progress | None = None,
    resumed: Progress | None = None,
) -> Change:
    """Add documents whose ids the index does not hold, and say what was done.

    A document that is stored already, with the same text and metadata, is left alone.

    Parameters
    ----------
    encoder : must be the one that made the index.
    documents : read once, in bounded memory.
    store : a backend with options of its own; by default the one that the index names.
    split : what cut the documents of this index into passages, if it was cut.
    progress : called with the number of documents read since the last call.
    resumed : called once with the number of documents, or passages, that an earlier run of the
        same change had stored, if any.

    Raises
    ------
    UsageError : a document is stored with another text or other metadata (``update_documents``
        replaces it); the index is cut into passages and ``split`` is None, or the other way round.
    FingerprintError : another model made the index.
    SourceNotFoundError, IndexCorruptError, StorageError, RecordError, DuplicateIdError,
    VectorError : as ``write_corpus`` and ``open_index``.
    """
    change = _Change(Path(path), config or ChangeConfig(), encoder, split, replaces=False)
    return change.run(documents, store, progress, resumed)


def update_documents(
    encoder: Encoder,
    documents: Iterable[Document],
    path: Path | str,
    config: ChangeConfig | None = None,
    *,
    delete_missing: bool = False,
    store: Backend | None = None,
    split: Splitter | None = None,
    progress: Progress | None = None,
    resumed: Progress | None = None,
) -> Change:
    """Add new documents and replace those that differ, and say what was done.

    Where only metadata differs, the stored vector is kept: nothing is embedded whose title and
    text are stored under its id already. With ``delete_missing`` the index holds these
    documents and no others afterwards. Parameters and errors as ``add_documents``.
    """
    change = _Change(
        Path(path),
        config or ChangeConfig(),
        encoder,
        split,
        replaces=True,
        delete_missing=delete_missing,
    )
    return change.run(documents, store, progress, resumed)


@dataclass(frozen=True, slots=True)
class _Step:
    """One row to be stored; ``row`` is where its vector lies already, if it does."""

    document: Document
    row: int | None


@dataclass
class _Change:
    """An ``add`` or ``update`` on its way."""

    folder: Path
    config: ChangeConfig
    encoder: Encoder
    split: Splitter | None
    replaces: bool
    delete_missing: bool = False
    tally: Tally = field(default_factory=Tally)
    dead: set[int] = field(default_factory=set)

    def run(
        self,
        documents: Iterable[Document],
        store: Backend | None,
        progress: Progress | None,
        resumed: Progress | None,
    ) -> Change:
        before = read_manifest(self.folder)
        self._check(before)
        with open_workspace(self.folder, True, restart=self.config.restart) as workspace:
            index = open_index(self.folder)
            self._check(index.manifest)
            everything = index.rows.everything.mask
            lookup = IdLookup(index.documents, everything, document_key(index.manifest))
            seen = _Seen(index, everything) if self.delete_missing else None
            steps = self._steps(documents, index, lookup, seen, progress)
            staging = self._stage(workspace, index, steps, resumed)
            if seen is not None:
                missing = seen.missing(index)
                self.tally.deleted += len({document_of(index, name) for name in missing.values()})
                self.dead.update(missing)
            manifest = publish_change(workspace, index, store, self.dead, staging)
        done = compact_if_needed(self.folder, manifest, self.config, store=store)
        return self.tally.close(done)

    def _check(self, manifest: Manifest) -> None:
        check_fingerprints(manifest.fingerprint, self.encoder.fingerprint)
        if bool(manifest.passages) != (self.split is not None):
            state = "cut into passages" if manifest.passages else "not cut into passages"
            raise UsageError(
                f"{self.folder} is {state}, and so must be what is added to it: pass "
                f"split={'a function' if manifest.passages else 'None'}."
            )

    def _steps(
        self,
        documents: Iterable[Document],
        index: StoredIndex,
        lookup: IdLookup,
        seen: _Seen | None,
        progress: Progress | None,
    ) -> Iterator[_Step]:
        """Yield the rows to be stored; note what they replace."""
        stream, ids = iter(documents), IdSet()
        number = 0
        while batch := list(islice(stream, BATCH)):
            found = lookup.find([document.doc_id for document in batch])
            rows = np.array(sorted(chain.from_iterable(found.values())), dtype=np.int64)
            stored = index.documents.documents(rows)
            for document in batch:
                number += 1
                if not ids.add(document.doc_id):
                    problem = f"id {document.doc_id!r} came before"
                    raise DuplicateIdError(self.config.source, number, problem)
                held = found.get(document.doc_id, [])
                if seen is not None:
                    seen.add(held)
                yield from self._compare(document, [(row, stored[row]) for row in held])
            if progress is not None:
                progress(len(batch))

    def _compare(self, document: Document, held: list[tuple[int, Document]]) -> Iterator[_Step]:
        """Yield what must be stored of a document, of which these rows are stored."""
        rows = self._rows_of(document)
        if [row for _, row in held] == rows:
            self.tally.unchanged += 1
            return
        if held and not self.replaces:
            raise UsageError(
                f"{document.doc_id!r} is in {self.folder} with another text or other metadata. "
                f"Nothing was added. Replace it with: millpond update "
                f"{shlex.quote(str(self.folder))} CORPUS"
            )
        same = [old.content for _, old in held] == [row.content for row in rows]
        if same:
            self.tally.relabelled += 1
        elif held:
            self.tally.replaced += 1
        else:
            self.tally.added += 1
        self.dead.update(row for row, _ in held)
        for number, row in enumerate(rows):
            yield _Step(row, held[number][0] if same else None)

    def _rows_of(self, document: Document) -> list[Document]:
        if self.split is None:
            return [document]
        return list(read_passages([document], self.split))

    def _stage(
        self,
        workspace: Workspace,
        index: StoredIndex,
        steps: Iterator[_Step],
        resumed: Progress | None,
    ) -> Staging:
        """Store every row that is not staged yet, encoding those that have no vector."""
        refusals = partial(storage_errors, self.folder)
        manifest = index.manifest
        plan = {
            **self.encoder.fingerprint.settings,
            "state of the index": _state(self.folder),
            "change": "update" if self.replaces else "add",
            "delete_missing": self.delete_missing,
            "corpus": self.config.corpus_name,
            "batch_documents": self.config.batch_documents,
            **self.config.reading,
        }
        with refusals():
            staging = Staging(
                workspace.staging,
                plan,
                source=self.config.source,
                dimension=manifest.dimension,
                vector_type=manifest.vector_type,
            )
        if resumed is not None and staging.finished_rows:
            resumed(staging.finished_rows)
        for _ in staging.skip(step.document for step in steps):
            pass
        try:
            for chunk in read_chunks(steps, self.config.batch_documents, _length):
                vectors = self._vectors(chunk, index)
                with refusals():
                    staging.append([step.document for step in chunk], vectors)
            with refusals():
                staging.finish()
        except BaseException:
            staging.abandon()
            raise
        return staging

    def _vectors(self, chunk: list[_Step], index: StoredIndex) -> Vectors:
        """Return float32 (n, D): stored vectors where there are any, encoded ones elsewhere."""
        vectors = np.empty((len(chunk), index.dimension), dtype=np.float32)
        new = [number for number, step in enumerate(chunk) if step.row is None]
        if new:
            texts = [chunk[number].document for number in new]
            encoded = self.encoder.encode_documents([text.content for text in texts])
            vectors[new] = check_encoded(encoded, texts, index.dimension)
        known = [(number, step.row) for number, step in enumerate(chunk) if step.row is not None]
        if known:
            rows = np.array([row for _, row in known], dtype=np.int64)
            vectors[[number for number, _ in known]] = index.stored.rows(rows)
        return vectors


class _Seen:
    """The live rows that a corpus has named, one bit short of a byte each."""

    def __init__(self, index: StoredIndex, live: Mask | None) -> None:
        count = len(index.stored)
        self._unseen = np.ones(count, dtype=np.bool_) if live is None else live.copy()

    def add(self, rows: list[int]) -> None:
        self._unseen[rows] = False

    def missing(self, index: StoredIndex) -> dict[int, str]:
        """Return the rows that were not named, with their stored ids."""
        return index.documents.ids(np.flatnonzero(self._unseen))


def _length(step: _Step) -> int:
    return len(step.document.text)


def _state(folder: Path) -> str:
    """Return what tells this state of an index from any other."""
    return hashlib.sha256((folder / MANIFEST_NAME).read_bytes()).hexdigest()[:12]
