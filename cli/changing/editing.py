"""Changes of an index that clients of ``millpond serve`` ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.models import load_splitter
from retrieval.errors import UsageError

if TYPE_CHECKING:
    from embedder.loading import LoadedEncoder
    from indexes import Change
    from retrieval import Document, Encoder

__all__ = ["IndexEdit"]


@dataclass(frozen=True)
class IndexEdit:
    """Changes the index in a folder and publishes it; an ``embedder.serving.served.Edit``.

    Attributes
    ----------
    name : what clients call the index.
    model : the one that made it, which counts tokens for passages.
    encoder : the same one, as the server lets it embed.
    """

    folder: Path
    name: str
    model: LoadedEncoder
    encoder: Encoder

    def put(self, documents: Sequence[Document]) -> Mapping[str, int]:
        """Add documents, or replace those with their ids; see ``Index.update``."""
        from indexes import Index, IndexConfig

        with self._without_place():
            index = Index.open(self.folder, self.encoder)
            split = load_splitter(self.model, index.manifest.passages)
            config = IndexConfig(corpus_name="documents")
            return _count(index.update(documents, config, split=split))

    def delete(self, doc_ids: Sequence[str], ignore_missing: bool) -> Mapping[str, int]:
        """Delete documents; see ``Index.delete``."""
        from indexes import Index

        with self._without_place():
            index = Index.open(self.folder)
            return _count(index.delete(doc_ids, ignore_missing=ignore_missing))

    @contextmanager
    def _without_place(self) -> Iterator[None]:
        """Let messages call the index as clients do, not by its place on this machine."""
        try:
            yield
        except UsageError as error:
            raise UsageError(str(error).replace(str(self.folder), self.name)) from None


def _count(change: Change) -> Mapping[str, int]:
    names = ("added", "replaced", "relabelled", "unchanged", "deleted", "missing")
    return {name: getattr(change, name) for name in names}
