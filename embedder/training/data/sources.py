"""The pairs of a run: every source is read and checked whole before anything is computed."""

from __future__ import annotations

import json
import tempfile
import weakref
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from embedder.models.cache import file_sha256
from embedder.training.config import DataSource, TrainConfig
from embedder.training.data.known import Keys, KnownPairs, hash_text
from embedder.training.data.layouts import Pair
from embedder.training.data.reading import PairTally, find_pair_files, read_pairs
from retrieval.errors import StorageError, UsageError
from retrieval.plurals import count_noun

__all__ = ["PairSource", "TrainingData", "check_data"]


class PairSource(Sequence[Pair]):
    """The checked pairs of one source.

    They are copied to a private temporary file, so memory holds 24 bytes per pair and later
    changes of the source have no effect.

    Parameters
    ----------
    advance : called with the number of pairs just read.
    skip_bad : True leaves bad records out. False raises and mentions ``--skip-bad``; None raises
        without it, for commands that lack the flag.

    Attributes
    ----------
    negatives : how many negatives the pairs have together.
    skipped : how many bad records were left out.
    notes : what the user should know of the reading, a sentence each.

    Raises
    ------
    RecordError : a bad record; carries file and line.
    UsageError : the source holds no pair.
    StorageError : the source cannot be read, or the temporary folder is full.
    """

    def __init__(
        self,
        config: DataSource,
        advance: Callable[[int], None] | None = None,
        *,
        skip_bad: bool | None = None,
    ) -> None:
        self.config = config
        self.files = tuple(find_pair_files(config.path))
        self.sha256 = {path.name: _hash(path) for path in self.files}
        self.negatives = 0
        self._starts = array("q", [0])
        self._keys = array("Q")
        self._store: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as self
        weakref.finalize(self, self._store.close)
        tally = PairTally()
        try:
            for pair in read_pairs(config.path, tally, skip_bad):
                self._append(pair)
                if advance is not None:
                    advance(1)
            self._store.flush()
        except OSError as error:
            raise StorageError(
                f"{tempfile.gettempdir()}: the checked pairs cannot be kept "
                f"({error.strerror}). Free some space, or name another folder in TMPDIR."
            ) from error
        self.skipped = tally.skipped
        self.notes = tally.sentences(config.path)
        if not len(self):
            left = f" {self.notes[0]}" if self.skipped else ""
            raise UsageError(f"{config.path}: it holds no pair; expected one or more.{left}")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start, end = self._starts[index], self._starts[index + 1]
        self._store.seek(start)
        query, positive, negatives = json.loads(self._store.read(end - start))
        return Pair(query, positive, tuple(negatives))

    @property
    def keys(self) -> Keys:
        """uint64 (N, 2), the hashes of the query and the positive of each pair."""
        return np.frombuffer(self._keys, dtype=np.uint64).reshape(-1, 2)

    def _append(self, pair: Pair) -> None:
        self.negatives += len(pair.negatives)
        data = json.dumps([pair.query, pair.positive, pair.negatives]).encode()
        self._store.write(data)
        self._starts.append(self._starts[-1] + len(data))
        self._keys.extend((hash_text(pair.query), hash_text(pair.positive)))


@dataclass(frozen=True)
class TrainingData:
    """All sources of a run, checked."""

    sources: tuple[PairSource, ...]

    @property
    def pairs(self) -> int:
        """The number of distinct records, whatever their weight."""
        return sum(len(source) for source in self.sources)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the reading, a sentence each."""
        return tuple(note for source in self.sources for note in source.notes)

    @cached_property
    def known(self) -> KnownPairs:
        """Which texts answer which query, over all sources."""
        return KnownPairs(np.concatenate([source.keys for source in self.sources]))

    def record(self) -> list[dict[str, Any]]:
        """Return what identifies the data, ready for JSON."""
        return [
            {
                "path": str(source.config.path),
                "sha256": source.sha256,
                "pairs": len(source),
                "negatives": source.negatives,
                "skipped": source.skipped,
                "weight": source.config.weight,
            }
            for source in self.sources
        ]


def check_data(
    config: TrainConfig,
    *,
    progress: Callable[[int], None] | None = None,
    skip_bad: bool | None = None,
) -> TrainingData:
    """Return the data of a run after reading every record of it.

    Parameters
    ----------
    skip_bad : as for ``PairSource``.

    Raises
    ------
    RecordError : malformed JSON, a wrong type, a pair without positive, an empty side, a negative
        that equals the positive; the first one found, with file and line.
    UsageError : a source without pairs, or a batch that is larger than the data.
    SourceNotFoundError, StorageError, FailureError : a source cannot be read.
    """
    read = (PairSource(source, progress, skip_bad=skip_bad) for source in config.data)
    data = TrainingData(tuple(read))
    batch = config.batch_pairs
    if batch > data.pairs:
        raise UsageError(
            f"batch_pairs is {batch}, but the data holds {count_noun(data.pairs, 'pair')}. Set "
            f"batch_pairs to {data.pairs} or less, or add data."
        )
    if config.loss.one_source_per_batch:
        for source in data.sources:
            if batch > len(source):
                raise UsageError(
                    f"batch_pairs is {batch}, but {source.config.path} holds "
                    f"{count_noun(len(source), 'pair')} and loss.one_source_per_batch is true. Set "
                    f"batch_pairs to {len(source)} or less, or one_source_per_batch to false."
                )
    return data


def _hash(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}).") from error
