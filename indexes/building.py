"""From stored rows to a published index: typed fields, the backend's files, the manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from indexes.backends.backend import Backend, BuildRequest, BuildResult
from indexes.folder import Workspace
from indexes.index import StoredIndex
from indexes.recall import RECALL_QUERIES, measure_recall
from indexes.search.selection import (
    DELETED_NAME,
    FIELDS_NAME,
    Rows,
    infer_fields,
    live_rows,
    write_fields,
)
from indexes.storage.documents import DocumentStore, check_unique_ids
from indexes.storage.manifest import (
    BUILDING_NAME,
    FileEntry,
    Manifest,
    base_libraries,
    millpond_version,
    now_utc,
)
from indexes.storage.staging import DONE_NAME, PLAN_NAME, SHARD_ROLES
from indexes.storage.vectors import Shards
from retrieval import Fingerprint, Scalar

__all__ = ["RECALL", "Origin", "StoredRows", "build_index"]

RECALL = "recall@10"


@dataclass(frozen=True, kw_only=True)
class StoredRows:
    """All rows of an index to be.

    Attributes
    ----------
    files : "documents/00000" and "vectors/00000" and up; paths relative to the index folder, those
        of new shards below ``.building``.
    dimension, vector_type : of the vectors.
    deleted : row numbers, rising.
    """

    files: Mapping[str, FileEntry]
    dimension: int
    vector_type: str = "float32"
    deleted: Rows = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What the manifest says of where the rows come from; see ``Manifest``."""

    fingerprint: Fingerprint
    corpus_name: str = ""
    skipped: int = 0
    passages: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest) -> Origin:
        """Return the origin of an index that is built again."""
        return cls(
            fingerprint=manifest.fingerprint,
            corpus_name=manifest.corpus_name,
            skipped=manifest.skipped,
            passages=manifest.passages,
        )


def build_index(
    workspace: Workspace,
    backend: Backend,
    stored: StoredRows,
    origin: Origin,
    *,
    name: str,
    factory: str,
    previous: Manifest | None = None,
) -> Manifest:
    """Build the backend's files in the staging folder, publish everything, return the manifest.

    ``previous`` is the manifest of the index whose rows come first and whose file of the same
    backend and factory may be extended.

    Raises
    ------
    DuplicateIdError : two documents share an id.
    UsageError : there are too few documents for this factory.
    OSError : the disk refuses.
    """
    documents = DocumentStore(_paths(workspace.folder, stored, "documents"))
    vectors = Shards(_paths(workspace.folder, stored, "vectors"), stored.dimension)
    live = live_rows(len(documents), stored.deleted)
    if live is not None:
        np.save(workspace.staging / DELETED_NAME, stored.deleted)
    check_unique_ids(documents, source=origin.corpus_name or "corpus", live=live)
    schema = infer_fields(documents, live)
    write_fields(documents, live, schema, workspace.staging / FIELDS_NAME)
    old = None
    if previous is not None and "index" in previous.files:
        old = previous.place(workspace.folder, "index")
    request = BuildRequest(
        workspace.staging,
        factory,
        vectors,
        documents,
        fingerprint=origin.fingerprint,
        schema=schema,
        live=live,
        previous=old,
    )
    carried: dict[str, FileEntry] = {}
    if previous is not None and backend.keeps_deleted and previous.rows == len(documents):
        # Only deletions: what the backend wrote is right as it is.
        result = BuildResult({}, previous.libraries, exact=RECALL not in previous.settings)
        carried = {role: previous.files[role] for role in backend.files}
    else:
        result = backend.build(request)
    kept = previous.settings if old is not None and previous is not None else {}
    draft = Manifest(
        backend=name,
        factory=factory,
        metric=_metric(origin.fingerprint),
        dimension=stored.dimension,
        documents=len(documents) - len(stored.deleted),
        rows=len(documents),
        skipped=origin.skipped,
        corpus_name=origin.corpus_name,
        fingerprint=origin.fingerprint,
        created=now_utc(),
        millpond=millpond_version(),
        libraries={**base_libraries(), **result.libraries},
        settings={**kept, **result.settings},
        fields=schema.to_json(),
        vector_type=stored.vector_type,
        passages=origin.passages,
        files={**stored.files, **carried, **_staged_files(workspace)},
    )
    settings = dict(draft.settings)
    if not result.exact:
        settings |= _measure(workspace.folder, draft, backend)
    files = {role: _published(workspace, entry) for role, entry in draft.files.items()}
    manifest = replace(draft, settings=settings, files=files)
    workspace.publish(json.dumps(manifest.to_json(), indent=2) + "\n")
    return manifest


def _measure(folder: Path, draft: Manifest, backend: Backend) -> dict[str, Scalar]:
    """Return the recall of an approximate index, to be kept in its manifest."""
    index = StoredIndex.open(folder, draft, backend)
    queries = min(RECALL_QUERIES, draft.documents)
    return {RECALL: round(measure_recall(index), 4), "recall_queries": queries}


def _metric(fingerprint: Fingerprint) -> str:
    """Inner products of unit vectors are cosines; a model may say that its are none."""
    return "inner_product" if fingerprint.settings.get("normalize") is False else "cosine"


def _paths(folder: Path, stored: StoredRows, role: str) -> list[Path]:
    return [folder / stored.files[n].name for n in sorted(stored.files) if n.startswith(role + "/")]


def _staged_files(workspace: Workspace) -> dict[str, FileEntry]:
    """Return the entry of every staged file, shards apart, by role, under its present name."""
    entries: dict[str, FileEntry] = {}
    for path in sorted(workspace.staging.rglob("*")):
        name = path.relative_to(workspace.staging).as_posix()
        top = name.partition("/")[0]
        if path.is_file() and top not in (*SHARD_ROLES, DONE_NAME, PLAN_NAME):
            role = name.partition(".")[0]
            role = name if role in entries else role
            entries[role] = FileEntry.of(path, f"{BUILDING_NAME}/{name}")
    return entries


def _published(workspace: Workspace, entry: FileEntry) -> FileEntry:
    """Return the entry under the name that it is published as."""
    top, _, name = entry.name.partition("/")
    return replace(entry, name=workspace.published_name(name)) if top == BUILDING_NAME else entry
