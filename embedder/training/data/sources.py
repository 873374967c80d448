"""The pairs of a run: every source is read and checked whole before anything is computed."""

from __future__ import annotations

import json
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from embedder.models.bases import file_sha256
from embedder.training.config import DataSource, TrainConfig
from embedder.training.data.layouts import Pair
from embedder.training.data.reading import (
    PairTally,
    find_pair_files,
    find_text_files,
    holds_pairs,
    read_pairs,
    read_texts,
)
from retrieval.errors import StorageError, UsageError, count_noun

Keys = npt.NDArray[np.uint64]
"""Hashes of texts, as ``hash_text`` makes them."""


def hash_text(text: str) -> int:
    """Return 64 bits that are equal for texts that differ in case and blanks only."""
    plain = " ".join(text.split()).casefold()
    return int.from_bytes(blake2b(plain.encode(), digest_size=8).digest(), "little")


class KnownPairs:
    """Which texts answer which query, over all pairs; 16 bytes per pair.

    Texts are compared without regard to case and blanks, by 64-bit hashes. Two texts that share
    a hash by chance would cost one negative, never make a wrong one.

    Parameters
    ----------
    keys : (N, 2), the hashes of the query and the positive of each pair.
    """

    def __init__(self, keys: Keys) -> None:
        order = np.argsort(keys[:, 0], kind="stable")
        self._queries = keys[order, 0]
        self._positives = keys[order, 1]

    @classmethod
    def of(cls, pairs: Iterable[Pair]) -> KnownPairs:
        """Return what is known from these pairs."""
        texts = (text for pair in pairs for text in (pair.query, pair.positive))
        return cls(np.fromiter(map(hash_text, texts), np.uint64).reshape(-1, 2))

    def positives(self, query: int) -> Keys:
        """Return the hashes of every positive of a query, itself named by its hash."""
        key = np.uint64(query)
        start = np.searchsorted(self._queries, key, side="left")
        end = np.searchsorted(self._queries, key, side="right")
        found: Keys = self._positives[start:end]
        return found


class PairSource(Sequence[Pair]):
    """The checked pairs of one source.

    They are copied to a private temporary file, so memory holds 32 bytes per pair and later
    changes of the source have no effect.

    Parameters
    ----------
    advance : called with the number of pairs just read.
    skip_bad : True leaves bad records out. False raises and mentions ``--skip-bad``; None raises
        without it, for commands that lack the flag.
    texts : whether texts alone will do, as for a teacher; each is then a pair without a query.

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
        texts: bool = False,
    ) -> None:
        self.config = config
        self.files = tuple((find_text_files if texts else find_pair_files)(config.path))
        self.sha256 = {
            _short(path, config.path) if texts else path.name: _hash(path) for path in self.files
        }
        read = read_texts if texts and not holds_pairs(config.path) else read_pairs
        self.negatives = 0
        self._starts = array("q", [0])
        self._keys = array("Q")
        self._store: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as self
        weakref.finalize(self, self._store.close)
        tally = PairTally()
        try:
            for pair in read(config.path, tally, skip_bad):
                self._append(pair)
                if advance is not None:
                    advance(1)
            self._store.flush()
        except OSError as error:
            raise StorageError(
                f"{tempfile.gettempdir()}: the checked pairs cannot be kept "
                f"({error.strerror}). Free some space, or name another folder in TMPDIR."
            ) from error
        self._kept = np.arange(len(self._starts) - 1)
        self.skipped = tally.skipped
        self.notes = tally.sentences(config.path)
        if not len(self):
            left = f" {self.notes[0]}" if self.skipped else ""
            raise UsageError(f"{config.path}: it holds no pair; expected one or more.{left}")

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = int(self._kept[index])
        start, end = self._starts[place], self._starts[place + 1]
        self._store.seek(start)
        query, positive, negatives = json.loads(self._store.read(end - start))
        return Pair(query, positive, tuple(negatives))

    @property
    def keys(self) -> Keys:
        """uint64 (N, 2), the hashes of the query and the positive of each pair."""
        return np.frombuffer(self._keys, dtype=np.uint64).reshape(-1, 2)[self._kept]

    def hold_out(self, below: int) -> list[str]:
        """Take out the pairs whose positive has a hash below a number; return these texts."""
        out = self.keys[:, 1] < np.uint64(below)
        texts = [self[int(place)].positive for place in np.flatnonzero(out)]
        self._kept = self._kept[~out]
        return texts

    def _append(self, pair: Pair) -> None:
        self.negatives += len(pair.negatives)
        data = json.dumps([pair.query, pair.positive, pair.negatives]).encode()
        self._store.write(data)
        self._starts.append(self._starts[-1] + len(data))
        self._keys.extend((hash_text(pair.query), hash_text(pair.positive)))


@dataclass(frozen=True)
class TrainingData:
    """All sources of a run, checked.

    Attributes
    ----------
    held_out : distinct texts that no source gives, to compare a student with its teacher.
    """

    sources: tuple[PairSource, ...]
    held_out: tuple[str, ...] = ()

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
    teacher = config.teacher
    texts = teacher is not None and not teacher.needs_pairs
    read = (PairSource(source, progress, skip_bad=skip_bad, texts=texts) for source in config.data)
    data = TrainingData(tuple(read))
    if teacher is not None and teacher.held_out:
        data = _hold_out(data, teacher.held_out)
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


def _hold_out(data: TrainingData, count: int) -> TrainingData:
    """Return the data less about ``count`` texts, those of the lowest hashes; a tenth at most.

    A text that several pairs hold is taken out of all of them, whatever the order of the sources.
    """
    keys = np.unique(np.concatenate([source.keys[:, 1] for source in data.sources]))
    count = min(count, len(keys) // 10)
    if not count:
        return data
    texts = [text for source in data.sources for text in source.hold_out(int(keys[count]))]
    for source in data.sources:
        if not len(source):
            raise UsageError(
                f"{source.config.path}: too few texts to hold any out; set teacher.held_out = 0."
            )
    distinct = {hash_text(text): text for text in texts}
    return TrainingData(data.sources, tuple(distinct[key] for key in sorted(distinct)))


def _short(path: Path, source: Path) -> str:
    """Return the name of a file of a source, which tells it from the others there."""
    return str(path.relative_to(source)) if source.is_dir() else path.name


def _hash(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}).") from error
