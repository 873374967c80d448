"""How far a build got that was killed, or is running: read without touching it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexes.manifest import BUILDING_NAME, FileEntry
from indexes.staging import DOCUMENTS_NAME, DONE_NAME, PLAN_NAME, VECTORS_NAME

__all__ = ["Unfinished", "read_unfinished"]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What the same command would go on from.

    Attributes
    ----------
    corpus : as the user named it; empty where the plan does not tell.
    documents : how many are embedded, in shards whose files are whole.
    shards : how many such shards there are, from the first on.
    """

    corpus: str
    documents: int
    shards: int


def read_unfinished(path: Path | str) -> Unfinished | None:
    """Return what is left of an unfinished build in folder ``path``; None if there is none.

    Reads every finished shard, to compare its checksum.
    """
    staging = Path(path) / BUILDING_NAME
    if not staging.is_dir():
        return None
    shards = documents = 0
    while (rows := _rows_of(staging, shards)) is not None:
        documents += rows
        shards += 1
    corpus = _read_object(staging / PLAN_NAME).get("corpus")
    return Unfinished(corpus if isinstance(corpus, str) else "", documents, shards)


def _rows_of(staging: Path, number: int) -> int | None:
    """Return how many documents this shard holds, None if it is not finished or damaged."""
    data = _read_object(staging / DONE_NAME / f"{number:05d}.json")
    try:
        entries = [FileEntry(**data[role]) for role in (DOCUMENTS_NAME, VECTORS_NAME)]
        whole = all(FileEntry.of(staging / entry.name, entry.name) == entry for entry in entries)
        return int(data["rows"]) if whole else None
    except (OSError, KeyError, TypeError, ValueError):
        return None


def _read_object(path: Path) -> Mapping[str, Any]:
    """Return the JSON object in this file; an empty one where there is none."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
