"""Deletes documents from an index: their rows are listed as deleted, nothing is written again."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from pathlib import Path

from indexes.backends.backend import Backend
from indexes.change import Change, ChangeConfig, Tally
from indexes.compaction import compact_if_needed
from indexes.folder import open_workspace
from indexes.opening import open_index
from indexes.publishing import document_key, publish_change
from indexes.search.selection import IdLookup
from indexes.storage.manifest import read_manifest
from retrieval.errors import UsageError

__all__ = ["delete_documents"]

BATCH = 256
SHOWN_IDS = 3


def delete_documents(
    path: Path | str,
    doc_ids: Iterable[str],
    config: ChangeConfig | None = None,
    *,
    ignore_missing: bool = False,
    store: Backend | None = None,
) -> Change:
    """Delete documents by id, and say what was done.

    Raises
    ------
    UsageError : an id is not in the index and ``ignore_missing`` is false, or no document would
        be left.
    SourceNotFoundError, IndexCorruptError, StorageError : as ``open_index``.
    """
    folder = Path(path)
    chosen = config or ChangeConfig()
    tally = Tally()
    read_manifest(folder)  # a folder without an index is not touched
    with open_workspace(folder, True, restart=True) as workspace:
        index = open_index(folder)
        lookup = IdLookup(index.documents, index.rows.everything.mask, document_key(index.manifest))
        dead: set[int] = set()
        missing: list[str] = []
        stream = iter(dict.fromkeys(doc_ids))
        while batch := list(islice(stream, BATCH)):
            found = lookup.find(batch)
            dead.update(chain.from_iterable(found.values()))
            tally.deleted += len(found)
            missing += [doc_id for doc_id in batch if doc_id not in found]
        tally.missing = len(missing)
        if missing and not ignore_missing:
            shown = ", ".join(map(repr, missing[:SHOWN_IDS]))
            raise UsageError(
                f"{_count(missing)} not in {folder}: {shown}"
                f"{', ...' if len(missing) > SHOWN_IDS else ''}. Nothing was deleted. Take them "
                f"out, or type --ignore-missing."
            )
        manifest = publish_change(workspace, index, store, dead, None)
    return tally.close(compact_if_needed(folder, manifest, chosen, store=store))


def _count(missing: list[str]) -> str:
    return "1 of the ids is" if len(missing) == 1 else f"{len(missing):,} of the ids are"
