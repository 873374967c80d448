"""From stored rows to a published index: typed fields, the backend's files, the manifest, recall.

Everything here copies or keeps vectors; nothing is embedded.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np

from indexes.backends.backend import Backend, BuildRequest, BuildResult
from indexes.backends.registry import BACKENDS, backend_of
from indexes.lexical.build import arm_libraries, build_arm, check_arms, plan_arm
from indexes.search.selection import live_rows
from indexes.snapshot import Snapshot, damaged, read_row_numbers, verify_files
from indexes.storage.document_writer import (
    BLANK_NAME,
    DELETED_NAME,
    FIELDS_NAME,
    check_unique_ids,
    infer_fields,
    write_fields,
)
from indexes.storage.documents import DocumentStore
from indexes.storage.files import FileEntry, find_fault
from indexes.storage.manifest import (
    BUILDING_NAME,
    SHARD_ROLES,
    Manifest,
    base_libraries,
    millpond_version,
    now_utc,
    read_manifest,
)
from indexes.storage.staging import COMPACTION
from indexes.storage.vectors import Shards
from indexes.transaction import Transaction, storage_errors
from retrieval import Document, Scalar, Vectors
from retrieval.disk import link_or_copy
from retrieval.errors import StorageError
from retrieval.protocols import Rows

RECALL = "recall@10"
RECALL_K = 10
RECALL_QUERIES = 200
RECALL_BATCH = 50
SHARE_ATTEMPTS = 3


def build_index(
    change: Transaction,
    backend: Backend,
    draft: Manifest,
    *,
    deleted: Rows | None = None,
    previous: Manifest | None = None,
    arm: tuple[Path, Manifest] | None = None,
) -> Manifest:
    """Build the backend's files in the staging folder, publish everything, return the manifest.

    Parameters
    ----------
    draft : what is known of the index to be; ``files`` are its shards, staged ones under their
        present names. Counts, fields and settings are filled in here, and the language of the
        lexical arm, if that is to be detected.
    deleted : row numbers, rising.
    previous : the manifest of the index whose rows come first and whose file of the same backend
        and factory may be extended.
    arm : folder and manifest of an index whose lexical arm may be gone on from; by default the
        previous one.

    Raises
    ------
    DuplicateIdError : two documents share an id.
    UsageError : there are too few documents for this factory.
    StorageError : the disk refuses.
    """
    with storage_errors(change.folder):
        change.staging.mkdir(exist_ok=True)
        documents = DocumentStore(draft.shards(change.folder, "documents"))
        vectors = Shards(draft.shards(change.folder, "vectors"), draft.dimension)
        gone = np.zeros(0, np.int64) if deleted is None else deleted
        live = None
        if len(gone):
            live = live_rows(len(documents), gone)
            np.save(change.staging / DELETED_NAME, gone)
        blank = _find_blank(change.folder, documents, previous)
        if len(blank):
            np.save(change.staging / BLANK_NAME, blank)
        check_unique_ids(documents, source=draft.corpus_name or "corpus", live=live)
        schema = infer_fields(documents, live)
        write_fields(documents, live, schema, change.staging / FIELDS_NAME)
        if previous is not None:
            arm = (change.folder, previous)
        lexical, kept_arm = build_arm(change.staging, draft.lexical, documents, live, arm)
        hidden = np.union1d(gone, blank)
        extends = None
        if previous is not None and "index" in previous.files:
            extends = partial(_verified_index, change.folder, previous)
        request = BuildRequest(
            change.staging,
            draft.factory,
            vectors,
            documents,
            fingerprint=draft.fingerprint,
            schema=schema,
            live=live_rows(len(documents), hidden) if len(hidden) else None,
            previous=extends,
        )
        result, carried = _run_backend(backend, request, previous)
        kept = previous.settings if extends and previous is not None else {}
        built = replace(
            draft,
            documents=len(documents) - len(gone),
            rows=len(documents),
            blank=len(np.setdiff1d(blank, gone)),
            created=now_utc(),
            millpond=millpond_version(),
            libraries={**base_libraries(), **arm_libraries(lexical), **result.libraries},
            settings={**kept, **result.settings},
            fields=schema.to_json(),
            files={**draft.files, **carried, **kept_arm, **change.staged_files()},
            lexical=lexical,
        )
        if not result.exact:
            recall = _measure(Snapshot.of(change.folder, built, backend))
            built = replace(built, settings={**built.settings, **recall})
        return change.publish(built)


def _find_blank(folder: Path, documents: DocumentStore, previous: Manifest | None) -> Rows:
    """Return the rows, rising, without a word; those that are not new are known from before."""
    if previous is None or previous.blank is None:
        return documents.find_blank()
    known = read_row_numbers(folder, previous, "blank")
    return np.concatenate([known, documents.find_blank(previous.rows)])


def _verified_index(folder: Path, manifest: Manifest) -> Path:
    verify_files(folder, manifest, "index")
    return manifest.place(folder, "index")


def _run_backend(
    backend: Backend, request: BuildRequest, previous: Manifest | None
) -> tuple[BuildResult, dict[str, FileEntry]]:
    """Return what was built, and the published files that serve the new index as they are."""
    deletions_only = previous is not None and previous.rows == len(request.documents)
    if previous is None or not (deletions_only and backend.keeps_deleted):
        return backend.build(request), {}
    result = BuildResult({}, previous.libraries, exact=RECALL not in previous.settings)
    return result, {role: previous.files[role] for role in backend.files}


def _measure(snapshot: Snapshot) -> dict[str, Scalar]:
    """Return the recall of an approximate index, to be kept in its manifest."""
    queries = min(RECALL_QUERIES, snapshot.manifest.findable)
    return {RECALL: round(measure_recall(snapshot), 4), "recall_queries": queries}


def measure_recall(snapshot: Snapshot) -> float:
    """Return recall@10 against exact search, 0 to 1, with stored vectors as queries.

    A document is no answer to itself, so 11 are asked for and it is left out. What ties with the
    10th best score counts as found. Documents are easier queries than questions are, so this is
    an upper bound for most users.
    """
    live = np.arange(len(snapshot.stored), dtype=np.int64)
    if snapshot.rows.meaningful.mask is not None:
        live = live[snapshot.rows.meaningful.mask]
    if len(live) < 2:
        return 1.0
    count = min(RECALL_QUERIES, len(live))
    asked = np.sort(np.random.default_rng(0).choice(live, count, replace=False))
    k = min(RECALL_K + 1, len(live))
    exact, found_all = snapshot.as_exact(), 0
    for start in range(0, count, RECALL_BATCH):
        rows = asked[start : start + RECALL_BATCH]
        vectors = snapshot.stored.rows(rows)
        truth, answers = exact.find(vectors, k), snapshot.find(vectors, k)
        for row, (scores, of), (given, places) in zip(rows, truth, answers, strict=True):
            threshold = np.sort(scores[of != row])[-(k - 1)]
            others = given[places != row]
            found_all += min(k - 1, int(np.count_nonzero(others >= threshold)))
    return found_all / (count * (k - 1))


def compact(change: Transaction) -> None:
    """Write the index again without its deleted rows, if it has any; see ``Index.compact``."""
    snapshot = change.snapshot
    manifest = snapshot.manifest
    if manifest.rows == manifest.documents:
        return
    verify_files(change.folder, manifest, *SHARD_ROLES)
    staging = change.stage(
        {COMPACTION: manifest.created},
        source=str(change.folder),
        dimension=manifest.dimension,
        vector_type=manifest.vector_type,
    )
    with storage_errors(change.folder):
        for documents, vectors in _live_rows(snapshot):
            staging.append(documents, vectors)
        staging.finish()
    build_index(change, backend_of(manifest), replace(manifest, files=staging.files()))


def _live_rows(snapshot: Snapshot) -> Iterator[tuple[list[Document], Vectors]]:
    """Yield documents and vectors of the rows that are not deleted, a batch at a time."""
    mask, start = snapshot.rows.everything.mask, 0
    for batch in snapshot.documents.iterate():
        rows = np.arange(start, start + len(batch), dtype=np.int64)
        start += len(batch)
        kept = rows if mask is None else rows[mask[rows]]
        if len(kept):
            yield [batch[row - rows[0]] for row in kept.tolist()], snapshot.stored.rows(kept)


def retarget(
    manifest: Manifest,
    backend: str | None,
    factory: str | None,
    store: Backend | None,
    arms: Sequence[str] | None,
    language: str | None,
) -> tuple[Manifest, Backend]:
    """Return the manifest of what an index is to become, and the backend that builds it.

    None keeps what there is; see ``Index.reindex``.

    Raises
    ------
    UsageError : no index has such arms or such a language, or a language is named and the index is
        to have no lexical arm.
    """
    check_arms(arms, language)
    name = backend or manifest.backend
    same = name == manifest.backend
    chosen = store or (backend_of(manifest) if same else BACKENDS[name])
    lexical = manifest.lexical
    if arms is not None or language is not None:
        wanted = arms or manifest.arms
        check_arms(wanted, language)
        lexical = plan_arm(wanted, language, manifest.lexical)
    factory = factory or (manifest.factory if same else "Flat")
    return replace(manifest, backend=name, factory=factory, lexical=lexical), chosen


Retarget: TypeAlias = Callable[[Manifest], tuple[Manifest, Backend]]
"""``retarget`` with all but the manifest."""


def rebuild(change: Transaction, target: Retarget, source: Path | None = None) -> Manifest:
    """Build another index of the same vectors; see ``Index.reindex``.

    ``source`` is the index folder that the vectors come from, if it is another one. Vectors and
    documents are compared with their checksums first.
    """
    if source is None:
        snapshot = change.snapshot
        files = snapshot.manifest.shard_files
        verify_files(change.folder, snapshot.manifest, *SHARD_ROLES)
    else:
        snapshot, files = _share_shards(source, change)
    draft, backend = target(snapshot.manifest)
    return build_index(
        change,
        backend,
        replace(draft, files=files),
        deleted=snapshot.rows.deleted,
        arm=(source or change.folder, snapshot.manifest),
    )


def _share_shards(source: Path, change: Transaction) -> tuple[Snapshot, dict[str, FileEntry]]:
    """Return a state of the index in ``source``, and its shards as they are staged here.

    The source is not locked. What was staged is one state of it if its manifest is the same
    before and after: a writer publishes by the manifest and never changes a published file.
    """
    for _ in range(SHARE_ATTEMPTS):
        snapshot = Snapshot.open(source)
        files = snapshot.manifest.shard_files
        for name in SHARD_ROLES:
            shutil.rmtree(change.staging / name, ignore_errors=True)
        with storage_errors(change.folder), suppress(FileNotFoundError):
            shared = {role: _share(source, change, role, files[role]) for role in files}
            if read_manifest(source) == snapshot.manifest:
                _verify_shared(source, files, change.folder, shared)
                return snapshot, shared
    raise StorageError(
        f"{source} was changed by another process while it was read. Type the command again when "
        "that process has ended."
    )


def _verify_shared(
    source: Path, files: Mapping[str, FileEntry], folder: Path, shared: Mapping[str, FileEntry]
) -> None:
    """Raise IndexCorruptError, naming the file in ``source``, for a shard that was damaged."""
    for role, entry in shared.items():
        fault = find_fault(folder, entry, checksum=True)
        if fault:
            raise damaged(source / files[role].name, fault)


def _share(source: Path, change: Transaction, role: str, entry: FileEntry) -> FileEntry:
    """Show a shard in another index: by a link where that works, else by a copy."""
    found = source / entry.name
    name = f"{role}{found.suffix}"
    target = change.staging / name
    target.parent.mkdir(parents=True, exist_ok=True)
    link_or_copy(found, target)
    return replace(entry, name=f"{BUILDING_NAME}/{name}")
