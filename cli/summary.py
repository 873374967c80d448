"""What is said of an index when it was built or changed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from cli.console import format_seconds, message, warn

if TYPE_CHECKING:
    from indexes import Change, Manifest

__all__ = [
    "RECALL",
    "RECALL_QUERIES",
    "count_rows",
    "describe_recall",
    "report_built",
    "report_change",
    "report_recall",
]

RECALL, RECALL_QUERIES = "recall@10", "recall_queries"
"""A test holds the first equal to ``indexes.building.RECALL``."""
GOOD_RECALL = 0.9
ADVICE = {
    "faiss": "a type that looks at more (HNSW64, IVF256,Flat for IVF256,PQ32), or Flat",
    "qdrant": "a denser graph (HNSW64,ef400), or Flat",
}


def count_rows(manifest: Manifest) -> str:
    """Return how many documents, or passages, can be found."""
    noun = "passage" if manifest.passages else "document"
    return f"{manifest.documents:,} {noun}{'' if manifest.documents == 1 else 's'}"


def describe_recall(manifest: Manifest) -> str:
    """Return the measured recall of an approximate index, "" of an exact one."""
    recall = manifest.settings.get(RECALL)
    if not isinstance(recall, int | float):
        return ""
    queries = manifest.settings.get(RECALL_QUERIES)
    return f"{recall:.2f} against exact search ({queries} stored vectors as queries)"


def report_built(manifest: Manifest, folder: Path) -> None:
    """Say where a server keeps a new index, and what an approximate one finds."""
    place = manifest.settings
    if place.get("mode") == "server":
        message(f"The collection {place['collection']!r} at {place['url']} holds the vectors.")
    report_recall(manifest, folder)


def report_recall(manifest: Manifest, folder: Path) -> None:
    """Say what an approximate index finds; a warning with advice where that is too little."""
    found = describe_recall(manifest)
    if not found:
        return
    recall = manifest.settings[RECALL]
    assert isinstance(recall, int | float)
    if recall >= GOOD_RECALL:
        message(f"{RECALL} {found}")
        return
    advice = ADVICE.get(manifest.backend, "another type, or Flat")
    warn(
        f"{RECALL} {found}: {manifest.factory} misses {1 - recall:.0%} of the best documents. "
        f"Try {advice}: millpond reindex {shlex.quote(str(folder))} --factory TYPE"
    )


def report_change(change: Change, folder: Path, seconds: float) -> None:
    """Say in one line what a change did, and what recall is now."""
    counts = {
        "added": change.added,
        "replaced": change.replaced,
        "relabelled": change.relabelled,
        "deleted": change.deleted,
        "kept": change.unchanged,
        "not found": change.missing,
    }
    done = [f"{name} {count:,}" for name, count in counts.items() if count] or ["changed nothing"]
    if change.compacted:
        done.append("compacted")
    text = ", ".join(done)
    message(
        f"{text[0].upper()}{text[1:]} in {format_seconds(seconds)}: {folder} holds "
        f"{count_rows(change.manifest)}."
    )
    if change.added or change.replaced or change.relabelled or change.deleted:
        report_recall(change.manifest, folder)
