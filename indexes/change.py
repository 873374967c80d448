"""What is asked of a change to an index, and what is said of it afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from indexes.storage.manifest import Manifest
from retrieval import Scalar
from retrieval.errors import UsageError

__all__ = ["Change", "ChangeConfig", "Tally"]


@dataclass(frozen=True)
class ChangeConfig:
    """How an index is changed.

    Attributes
    ----------
    corpus_name, reading, restart, batch_documents : as in ``WriteConfig``.
    compact_share : when more than this share of the stored rows is deleted, 0 to 1, the index is
        written again without them.
    """

    corpus_name: str = ""
    reading: Mapping[str, Scalar] = field(default_factory=dict)
    restart: bool = False
    batch_documents: int = 1024
    compact_share: float = 0.25

    def __post_init__(self) -> None:
        """Raise UsageError for a value that is never accepted."""
        if self.batch_documents < 1:
            raise UsageError(f"batch_documents is {self.batch_documents}; it must be 1 or more.")
        if not 0 <= self.compact_share <= 1:
            raise UsageError(f"compact_share is {self.compact_share}; accepted is 0 to 1.")

    @property
    def source(self) -> str:
        """How messages name the corpus."""
        return self.corpus_name or "corpus"


@dataclass(frozen=True, slots=True)
class Change:
    """What a change did, in documents.

    Attributes
    ----------
    added, replaced : embedded.
    relabelled : of which only metadata changed; their vectors were kept.
    unchanged : left alone.
    deleted : taken out.
    missing : ids to be deleted that were not there.
    compacted : whether deleted rows were cleared away afterwards.
    manifest : of the index as it is now.
    """

    added: int
    replaced: int
    relabelled: int
    unchanged: int
    deleted: int
    missing: int
    compacted: bool
    manifest: Manifest


@dataclass
class Tally:
    """Counts what a change does; see ``Change``."""

    added: int = 0
    replaced: int = 0
    relabelled: int = 0
    unchanged: int = 0
    deleted: int = 0
    missing: int = 0

    def close(self, done: tuple[Manifest, bool]) -> Change:
        """Return the counts with the manifest that holds now, and whether it was compacted."""
        manifest, compacted = done
        return Change(
            self.added,
            self.replaced,
            self.relabelled,
            self.unchanged,
            self.deleted,
            self.missing,
            compacted,
            manifest,
        )
