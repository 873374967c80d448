"""Several indexes of one model, searched as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from indexes.index import Index
from indexes.search.hybrid import Part
from indexes.search.modes import Searchable
from retrieval import Fingerprint, Vectors
from retrieval.errors import FingerprintError, UsageError


class IndexGroup(Searchable):
    """Indexes of one model, searched as one; a ``VectorIndex``. Each hit names its index.

    Hits are merged by score. A dense search finds what one index of all the documents would; a
    hybrid one normalises over the candidates of all, and differs from that index only in BM25,
    whose statistics are those of each index. Texts are searched in mode "lexical" alone, since no
    encoder is here, and a weight that was tuned is used where all of the indexes keep the same.

    Parameters
    ----------
    named : the indexes by the names that hits carry, at least one.

    Raises
    ------
    FingerprintError : two of them were made by different models.
    UsageError : none arrived, or one folder twice.
    """

    def __init__(self, named: Sequence[tuple[str, Index]]) -> None:
        if not named:
            raise UsageError("No index arrived; name at least one.")
        self.indexes = dict(named)
        names = Counter(name for name, _ in named)
        twice, count = names.most_common(1)[0]
        if count > 1:
            raise UsageError(f"{twice} arrived {count} times; name every index once.")
        folders: dict[Path, str] = {}
        for name, index in named:  # by their names: a client of a server may not know the folders
            same = folders.setdefault(index.folder.resolve(), name)
            if same != name:
                raise UsageError(f"{same} and {name} are the same index; name every index once.")
        first, *others = named
        for name, index in others:
            _check_same_model(first, (name, index))

    def close(self) -> None:
        """Let go of the files; they are opened again when they are needed."""
        for index in self.indexes.values():
            index.close()

    @property
    def dimension(self) -> int:
        """D, the length of every stored vector."""
        return self._first.dimension

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the encoder that made the stored vectors."""
        return self._first.fingerprint

    def __len__(self) -> int:
        """Return how many documents, or passages, can be found."""
        return sum(map(len, self.indexes.values()))

    @property
    def _first(self) -> Index:
        return next(iter(self.indexes.values()))

    @property
    def parts(self) -> list[Part]:
        """The indexes, each with all of its rows."""
        return [Part.of(name, one.folder, one.snapshot) for name, one in self.indexes.items()]

    def _encode(self, texts: Sequence[str]) -> Vectors:
        raise UsageError(
            "Texts need the model that made the indexes: Retriever.open([...]) loads it."
        )


def _check_same_model(first: tuple[str, Index], other: tuple[str, Index]) -> None:
    mine, theirs = first[1].fingerprint, other[1].fingerprint
    if mine.digest != theirs.digest:
        raise FingerprintError(
            f"{first[0]} was made with {mine.model!r} and {other[0]} with {theirs.model!r}: "
            f"{'; '.join(mine.differences(theirs))}. Their scores cannot be compared. Search one "
            "at a time, or index both corpora with one model."
        )


def open_group(folders: Sequence[Index | Path | str]) -> IndexGroup:
    """Return indexes as one, named after their folders: by their last part where that is enough.

    Raises
    ------
    SourceNotFoundError, IndexCorruptError : as ``Index.open``.
    FingerprintError, UsageError : as ``IndexGroup``.
    """
    opened = [one if isinstance(one, Index) else Index.open(one) for one in folders]
    short = [index.folder.resolve().name for index in opened]
    if len(set(short)) < len(short):
        short = [str(index.folder) for index in opened]
    return IndexGroup(list(zip(short, opened, strict=True)))
