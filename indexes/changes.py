"""What a change does to the rows of an index: which are new, which are kept, which are deleted.

The document id decides. Stored shards are never written again: new rows go into new shards, and
the rows that they replace are listed as deleted.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from indexes.backends.registry import backend_of
from indexes.build import build_index
from indexes.search.ids import IdLookup, document_ids, rows_of_files, stored_files
from indexes.search.selection import Where
from indexes.snapshot import verify_files
from indexes.storage.manifest import MANIFEST_NAME, VECTORS_NAME, Manifest
from indexes.storage.staging import CHANGE, Staging
from indexes.transaction import Transaction
from indexes.writing import Encoded, IndexConfig, check_encoded, plan_of, stage_rows
from retrieval import Document, Encoder, Progress, Scalar, check_fingerprints
from retrieval.corpus.reading import IdSet
from retrieval.corpus.values import StoredFiles
from retrieval.errors import DuplicateIdError, UsageError
from retrieval.filters.schema import write_list
from retrieval.passages import Splitter, plain_passage_id, read_passages
from retrieval.protocols import Mask, no_progress

BATCH = 256
SHOWN_IDS = 3


@dataclass
class Change:
    """What a change did, counted in documents.

    Attributes
    ----------
    manifest : of the index as it is now.
    added, replaced : embedded.
    relabelled : only metadata changed; the vectors were kept.
    unchanged : left alone.
    deleted : taken out.
    missing : ids to be deleted that were not there.
    compacted : whether deleted rows were cleared away afterwards.
    postponed : why deleted rows that should have been cleared away stay for now; "" if none do.
    """

    manifest: Manifest
    added: int = 0
    replaced: int = 0
    relabelled: int = 0
    unchanged: int = 0
    deleted: int = 0
    missing: int = 0
    compacted: bool = False
    postponed: str = ""

    @property
    def count(self) -> int:
        """How many documents are not as they were."""
        return self.added + self.replaced + self.relabelled + self.deleted


def find_ids(transaction: Transaction, where: Where) -> list[str]:
    """Return the ids of the documents that a filter lets through."""
    snapshot = transaction.snapshot
    mask = snapshot.rows.select(where).mask
    rows = np.arange(snapshot.manifest.rows) if mask is None else np.flatnonzero(mask)
    return document_ids(snapshot, rows)


def delete_rows(
    transaction: Transaction,
    doc_ids: Iterable[str],
    *,
    ignore_missing: bool = False,
) -> Change:
    """List the rows of these documents as deleted; see ``Index.delete``."""
    snapshot = transaction.snapshot
    lookup = IdLookup(snapshot)
    done = Change(snapshot.manifest)
    dead: set[int] = set()
    missing: list[str] = []
    stream = iter(dict.fromkeys(doc_ids))
    while batch := list(islice(stream, BATCH)):
        found = lookup.find(batch)
        dead.update(chain.from_iterable(found.values()))
        done.deleted += len(found)
        missing += [doc_id for doc_id in batch if doc_id not in found]
    done.missing = len(missing)
    if missing and not ignore_missing:
        count = "1 of the ids is" if len(missing) == 1 else f"{len(missing):,} of the ids are"
        shown = ", ".join(map(repr, missing[:SHOWN_IDS]))
        raise UsageError(
            f"{count} not in {transaction.folder}: {shown}"
            f"{', ...' if len(missing) > SHOWN_IDS else ''}. Nothing was deleted. Take them "
            f"out, or type --ignore-missing."
        )
    done.manifest = _publish(transaction, dead, None)
    return done


@dataclass
class Merge:
    """Brings the documents of a corpus into an index: an add or an update.

    Attributes
    ----------
    transaction : on the index.
    encoder : the one that made the index.
    config : see ``IndexConfig``.
    split : what cut the documents of this index into passages, if it was cut.
    replaces : whether a document that is stored with other content is replaced, or refused.
    delete_missing : whether documents that the corpus does not hold are deleted; those of files
        that cannot be read stay.
    """

    transaction: Transaction
    encoder: Encoder
    config: IndexConfig
    split: Splitter | None = None
    replaces: bool = False
    delete_missing: bool = False
    _dead: set[int] = field(default_factory=set)
    _kept: dict[str, int] = field(default_factory=dict)
    _verified: bool = False

    def run(
        self,
        documents: Iterable[Document],
        *,
        progress: Progress,
        resumed: Progress,
    ) -> Change:
        """Store what is new or differs, publish it, say what was done; see ``Index.update``."""
        snapshot = self.transaction.snapshot
        manifest = snapshot.manifest
        check_fit(self.transaction.folder, manifest, self.encoder, self.split)
        self._done = Change(manifest)
        self._embedded = getattr(documents, "count_embedded", None)
        live = snapshot.rows.everything.mask
        unseen = np.ones(manifest.rows, np.bool_) if live is None else live.copy()
        files = StoredFiles(stored_files(snapshot))
        since = getattr(documents, "since", None)
        stream = iter(documents) if since is None else since(files)
        staging = self.transaction.stage(
            self._plan(),
            source=self.config.source,
            dimension=manifest.dimension,
            vector_type=manifest.vector_type,
        )
        stage_rows(
            self.transaction,
            staging,
            self._new_rows(stream, unseen, progress),
            self._encode,
            self.config,
            progress=no_progress,
            resumed=resumed,
        )
        unread = rows_of_files(snapshot, files.unread)
        self._done.unchanged += len(document_ids(snapshot, np.flatnonzero(unread)))
        if self.delete_missing:
            unseen &= ~(unread | rows_of_files(snapshot, files.failed))
            missing = np.flatnonzero(unseen)
            self._done.deleted += len(document_ids(snapshot, missing))
            self._dead.update(missing.tolist())
        self._done.manifest = _publish(
            self.transaction, self._dead, staging, _describe(manifest, documents)
        )
        return self._done

    def _plan(self) -> dict[str, Scalar]:
        state = (self.transaction.folder / MANIFEST_NAME).read_bytes()
        return {
            "state of the index": hashlib.sha256(state).hexdigest()[:12],
            CHANGE: "update" if self.replaces else "add",
            "delete_missing": self.delete_missing,
            **plan_of(self.encoder, self.config),
        }

    def _new_rows(
        self, stream: Iterator[Document], unseen: Mask, progress: Progress
    ) -> Iterator[Document]:
        """Yield the rows to be stored; note what they replace, and which rows were named."""
        snapshot = self.transaction.snapshot
        stored_documents, lookup = snapshot.documents, IdLookup(snapshot)
        ids = IdSet()
        number = 0
        while batch := list(islice(stream, BATCH)):
            found = lookup.find([document.doc_id for document in batch])
            rows = np.array(sorted(chain.from_iterable(found.values())), dtype=np.int64)
            unseen[rows] = False
            stored = stored_documents.documents(rows)
            for document in batch:
                number += 1
                if not ids.add(document.doc_id):
                    problem = f"id {document.doc_id!r} came before"
                    raise DuplicateIdError(self.config.source, number, problem)
                held = found.get(document.doc_id, [])
                yield from self._compare(document, [(row, stored[row]) for row in held])
            progress(len(batch))

    def _compare(self, document: Document, held: list[tuple[int, Document]]) -> Iterator[Document]:
        """Yield the new rows of a document; ``held`` are those that are stored of it."""
        rows = [document] if self.split is None else [*read_passages([document], self.split)]
        if [_stored_form(row) for _, row in held] == [_stored_form(row) for row in rows]:
            self._done.unchanged += 1
            return
        if held and not self.replaces:
            folder = self.transaction.folder
            raise UsageError(
                f"{document.doc_id!r} is in {folder} with another text or other metadata. "
                f"Nothing was added. Replace it with: millpond update "
                f"{shlex.quote(str(folder))} CORPUS"
            )
        self._dead.update(row for row, _ in held)
        if [old.content for _, old in held] == [row.content for row in rows]:
            self._done.relabelled += 1
            self._kept.update(zip((r.doc_id for r in rows), (r for r, _ in held), strict=True))
        else:
            self._done.replaced += bool(held)
            self._done.added += not held
            if self._embedded is not None:
                self._embedded(document)
        yield from rows

    def _encode(self, chunks: Iterator[list[Document]]) -> Encoded:
        """Yield each chunk with its vectors, stored ones if the content did not change."""
        stored = self.transaction.snapshot.stored
        for chunk in chunks:
            vectors = np.empty((len(chunk), stored.dimension), dtype=np.float32)
            kept = [self._kept.pop(document.doc_id, -1) for document in chunk]
            rows = np.array(kept, dtype=np.int64)
            if (rows >= 0).any():
                self._verify_vectors()
                vectors[rows >= 0] = stored.rows(rows[rows >= 0])
            new = [document for document, row in zip(chunk, kept, strict=True) if row < 0]
            if new:
                encoded = self.encoder.encode_documents([document.content for document in new])
                vectors[rows < 0] = check_encoded(encoded, new, stored.dimension)
            yield chunk, vectors

    def _verify_vectors(self) -> None:
        """Compare the checksums of the stored vectors once, before the first is copied."""
        if not self._verified:
            verify_files(self.transaction.folder, self.transaction.snapshot.manifest, VECTORS_NAME)
            self._verified = True


def check_fit(folder: Path, manifest: Manifest, encoder: Encoder, split: Splitter | None) -> None:
    """Raise FingerprintError or UsageError unless these two made the rows of the index."""
    check_fingerprints(manifest.fingerprint, encoder.fingerprint)
    if bool(manifest.passages) != (split is not None):
        state = "cut into passages" if manifest.passages else "not cut into passages"
        raise UsageError(
            f"{folder} is {state}, and so must be what is added to it: pass "
            f"split={'a function' if manifest.passages else 'None'}."
        )


def _describe(manifest: Manifest, documents: Iterable[Document]) -> Manifest:
    """Return the manifest with what a corpus adds to how it was read, and to what was not read."""
    layout = {**(manifest.layout or {}), **(getattr(documents, "layout", None) or {})}
    cut, more = manifest.cut, getattr(documents, "cut", None) or {}
    if cut is not None:
        cut = {name: count + more.get(name, 0) for name, count in cut.items()}
    return replace(manifest, layout=layout or None, cut=cut)


def _publish(
    transaction: Transaction,
    dead: set[int],
    staging: Staging | None,
    described: Manifest | None = None,
) -> Manifest:
    """Make the staged rows and the deletions the index; return the manifest that holds then."""
    snapshot = transaction.snapshot
    manifest = snapshot.manifest
    staged = staging.finished_rows if staging is not None else 0
    if not dead and not staged:
        return manifest
    deleted = np.array(sorted(dead.union(snapshot.rows.deleted.tolist())), dtype=np.int64)
    if len(deleted) == manifest.rows + staged:
        raise UsageError(
            f"No document would be left in {transaction.folder}; an index needs one. Delete the "
            f"folder instead, or index another corpus with --overwrite."
        )
    shards = len(manifest.shard_files) // 2
    new = {} if staging is None else staging.files(shards)
    return build_index(
        transaction,
        backend_of(manifest),
        replace(
            described or manifest,
            files={**manifest.shard_files, **new},
        ),
        deleted=deleted,
        previous=manifest,
    )


def _stored_form(document: Document) -> tuple[str, str, str, str]:
    """Return what tells two documents apart; to Python, 1 would equal True and 1.0.

    A list is the same as its JSON text, as which earlier versions stored it.
    """
    values = {name: write_list(value) for name, value in document.metadata.items()}
    metadata = json.dumps(values, sort_keys=True)
    return plain_passage_id(document.doc_id), document.title, document.text, metadata
