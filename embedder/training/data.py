"""Training pairs: every source is read and checked whole before anything is computed."""

from __future__ import annotations

import json
import tempfile
import weakref
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from embedder.models.cache import file_sha256
from embedder.training.config import DataSource, TrainConfig
from retrieval import read_corpus, read_queries
from retrieval.corpus.formats import jsonl_rows, parquet_rows
from retrieval.corpus.qrels import Judgement, find_beir, read_qrels
from retrieval.corpus.records import Fields, Row, find_unwritable, type_name
from retrieval.errors import RecordError, SourceNotFoundError, StorageError, UsageError

__all__ = ["Pair", "PairSource", "TrainingData", "check_data"]

_NEGATIVE_FIELDS = ("negatives", "negative")
_SPLIT = "train"
_EXPECTED = (
    "a .jsonl, .jsonl.gz or .parquet file of query, positive and negatives, or a BEIR folder "
    "with qrels/train.tsv"
)


@dataclass(frozen=True, slots=True)
class Pair:
    """One query, a text that answers it, and texts that do not."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()


class PairSource(Sequence[Pair]):
    """The checked pairs of one source.

    They are copied to a private temporary file, so memory holds 8 bytes per pair and later changes
    of the source have no effect.

    Raises
    ------
    RecordError : a bad record; carries file and line.
    UsageError : the source holds no pair.
    StorageError : the source cannot be read, or the temporary folder is full.
    """

    def __init__(self, config: DataSource, advance: Callable[[int], None] | None = None) -> None:
        self.config = config
        self.files = tuple(_files(config.path))
        self.sha256 = {path.name: _hash(path) for path in self.files}
        self.negatives = 0
        self._starts = array("q", [0])
        self._store: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as self
        weakref.finalize(self, self._store.close)
        try:
            for pair in _read(config.path):
                self._append(pair)
                if advance is not None:
                    advance(1)
            self._store.flush()
        except OSError as error:
            raise StorageError(
                f"{tempfile.gettempdir()}: the checked pairs cannot be kept "
                f"({error.strerror}). Free some space, or name another folder in TMPDIR."
            ) from error
        if not len(self):
            raise UsageError(f"{config.path}: it holds no pair; expected one or more.")

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start, end = self._starts[index], self._starts[index + 1]
        self._store.seek(start)
        query, positive, negatives = json.loads(self._store.read(end - start))
        return Pair(query, positive, tuple(negatives))

    def _append(self, pair: Pair) -> None:
        self.negatives += len(pair.negatives)
        data = json.dumps([pair.query, pair.positive, pair.negatives]).encode()
        self._store.write(data)
        self._starts.append(self._starts[-1] + len(data))


@dataclass(frozen=True)
class TrainingData:
    """All sources of a run, checked."""

    sources: tuple[PairSource, ...]

    @property
    def pairs(self) -> int:
        """The number of distinct records, whatever their weight."""
        return sum(len(source) for source in self.sources)

    def record(self) -> list[dict[str, Any]]:
        """Return what identifies the data, ready for JSON."""
        return [
            {
                "path": str(source.config.path),
                "sha256": source.sha256,
                "pairs": len(source),
                "negatives": source.negatives,
                "weight": source.config.weight,
            }
            for source in self.sources
        ]


def check_data(
    config: TrainConfig, *, progress: Callable[[int], None] | None = None
) -> TrainingData:
    """Return the data of a run after reading every record of it.

    Raises
    ------
    RecordError : malformed JSON, a wrong type, a pair without positive, an empty side, a negative
        that equals the positive; the first one found, with file and line.
    UsageError : a source without pairs, or a batch that is larger than the data.
    SourceNotFoundError, StorageError, FailureError : a source cannot be read.
    """
    data = TrainingData(tuple(PairSource(source, progress) for source in config.data))
    batch = config.batch_pairs
    if batch > data.pairs:
        raise UsageError(
            f"batch_pairs is {batch}, but the data holds {data.pairs} pairs. Set batch_pairs to "
            f"{data.pairs} or less, or add data."
        )
    if config.loss.one_source_per_batch:
        for source in data.sources:
            if batch > len(source):
                raise UsageError(
                    f"batch_pairs is {batch}, but {source.config.path} holds {len(source)} pairs "
                    f"and loss.one_source_per_batch is true. Set batch_pairs to {len(source)} or "
                    f"less, or one_source_per_batch to false."
                )
    return data


def _files(path: Path) -> list[Path]:
    """Return the files that a source consists of."""
    if path.is_dir():
        found = find_beir(path, _SPLIT)
        return [found.corpus, found.queries, found.qrels]
    if not path.exists():
        raise SourceNotFoundError(f"{path}: there is no such file or folder; see data.path.")
    if not path.name.lower().endswith((".jsonl", ".jsonl.gz", ".parquet")):
        raise UsageError(f"{path}: expected {_EXPECTED}.")
    return [path]


def _hash(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}).") from error


def _read(path: Path) -> Iterator[Pair]:
    if path.is_dir():
        yield from _beir_pairs(path)
        return
    for row in _rows(path):
        if isinstance(row, RecordError):
            raise row
        yield _to_pair(row)


def _beir_pairs(folder: Path) -> Iterator[Pair]:
    """Yield a pair for each document judged above 0; the others judged for its query are negatives.

    Only judged documents are kept in memory.
    """
    path = find_beir(folder, _SPLIT).qrels
    judged = read_qrels(path).judgements
    wanted = {judgement.doc_id for judgement in judged}
    documents = {d.doc_id: d.content for d in read_corpus(folder) if d.doc_id in wanted}
    queries = {query.query_id: query.text for query in read_queries(folder)}
    wrong: dict[str, list[Judgement]] = {}
    for judgement in judged:
        for kind, identifier, texts in (
            ("query", judgement.query_id, queries),
            ("document", judgement.doc_id, documents),
        ):
            if not texts.get(identifier, "").strip():
                state = "is empty" if identifier in texts else "does not exist"
                problem = f"the {kind} {identifier!r} {state}"
                raise RecordError(str(path), judgement.line, problem)
        if judgement.score <= 0:
            wrong.setdefault(judgement.query_id, []).append(judgement)
    for judgement in judged:
        if judgement.score <= 0:
            continue
        positive = documents[judgement.doc_id]
        others = wrong.get(judgement.query_id, [])
        for other in others:
            if documents[other.doc_id].strip() == positive.strip():
                problem = f"the negative {other.doc_id!r} equals the positive"
                raise RecordError(str(path), other.line, problem)
        negatives = tuple(documents[other.doc_id] for other in others)
        yield Pair(queries[judgement.query_id], positive, negatives)


def _rows(path: Path) -> Iterator[Row | RecordError]:
    if path.suffix.lower() != ".parquet":
        yield from jsonl_rows(path, str(path))
        return
    try:
        yield from parquet_rows(path, str(path), Fields(("query",), ("positive",)))
    except RecordError as error:
        if error.line is not None:
            raise
        raise RecordError(
            str(path), None, "the columns query and positive are needed; negatives is optional"
        ) from error


def _to_pair(row: Row) -> Pair:
    """Return the record as a Pair, or raise RecordError with what is wrong."""
    query, positive = (_text(row, name, row.values.get(name)) for name in ("query", "positive"))
    named = [name for name in _NEGATIVE_FIELDS if row.values.get(name) is not None]
    if len(named) > 1:
        raise row.error("'negative' and 'negatives' are both given; expected one of them")
    found = row.values[named[0]] if named else []
    if isinstance(found, str):
        found = [found]
    if not isinstance(found, list):
        raise row.error(
            f"{named[0]!r} is {type_name(found)}; expected a string or a list of strings"
        )
    negatives = tuple(_text(row, f"{named[0]}[{i}]", text) for i, text in enumerate(found))
    for index, text in enumerate(negatives):
        if text.strip() == positive.strip():
            raise row.error(f"negative {index + 1} equals the positive: {positive[:60]!r}")
    return Pair(query, positive, negatives)


def _text(row: Row, name: str, value: object) -> str:
    if value is None:
        keys = ", ".join(repr(key) for key in list(row.values)[:8]) or "nothing"
        raise row.error(f"the pair has no {name!r}; it has {keys}")
    if not isinstance(value, str):
        raise row.error(f"{name!r} is {type_name(value)}; expected a string")
    if not value.strip():
        raise row.error(f"{name!r} is empty; expected text")
    problem = find_unwritable(value)
    if problem:
        raise row.error(f"{name!r} holds {problem}")
    return value
