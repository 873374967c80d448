"""How far a build got that was killed, or is running: read without touching it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indexes.manifest import BUILDING_NAME
from indexes.staging import PLAN_NAME, finished_shards

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
    shards = finished_shards(staging)
    corpus = _read_object(staging / PLAN_NAME).get("corpus")
    documents = sum(shard.rows for shard in shards)
    return Unfinished(corpus if isinstance(corpus, str) else "", documents, len(shards))


def _read_object(path: Path) -> Mapping[str, Any]:
    """Return the JSON object in this file; an empty one where there is none."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
