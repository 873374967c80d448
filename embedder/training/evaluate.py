"""Scores on held-out data while training: Spearman on STS, nDCG@10 on a BEIR folder."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedder.embedder import Embedder
from embedder.training.beir import beir_files, read_qrels
from embedder.training.config import EvaluateConfig
from retrieval import read_corpus, read_queries
from retrieval.errors import RecordError, SourceNotFoundError, StorageError, UsageError

__all__ = ["DevSets", "ndcg_at_10", "spearman"]

_CUTOFF = 10


@dataclass(frozen=True)
class _Sts:
    first: list[str]
    second: list[str]
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Retrieval:
    documents: list[str]
    queries: list[str]
    judged: list[dict[int, int]]


class DevSets:
    """The held-out data of a run, read and checked when this is made.

    Raises
    ------
    RecordError, UsageError, SourceNotFoundError, StorageError : a file is bad or not there.
    """

    def __init__(self, config: EvaluateConfig) -> None:
        self._sts = None if config.sts is None else _read_sts(config.sts)
        self._retrieval = (
            None if config.beir is None else _read_beir(config.beir, config.beir_split)
        )

    @property
    def empty(self) -> bool:
        """Whether there is nothing to score."""
        return self._sts is None and self._retrieval is None

    def score(self, embedder: Embedder) -> dict[str, float]:
        """Return "sts" (Spearman of cosine) and "ndcg" (nDCG@10), those that are set.

        STS sentences take the query prompt. Dropout is off meanwhile.
        """
        was_training = embedder.training
        embedder.eval()
        scores = {}
        if self._sts is not None:
            first = _unit(embedder.encode_queries(self._sts.first))
            second = _unit(embedder.encode_queries(self._sts.second))
            scores["sts"] = spearman((first * second).sum(axis=1), self._sts.scores)
        if self._retrieval is not None:
            documents = _unit(embedder.encode_documents(self._retrieval.documents))
            queries = _unit(embedder.encode_queries(self._retrieval.queries))
            gains = [
                ndcg_at_10(documents @ query, judged)
                for query, judged in zip(queries, self._retrieval.judged, strict=True)
            ]
            scores["ndcg"] = float(np.mean(gains))
        embedder.train(was_training)
        return scores


def spearman(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Return Spearman's rank correlation; equal values share the mean of their ranks.

    0 where one side is constant.
    """
    a, b = (_ranks(np.asarray(values, dtype=np.float64)) for values in (left, right))
    a, b = a - a.mean(), b - b.mean()
    length = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return float((a * b).sum() / length) if length else 0.0


def ndcg_at_10(scores: npt.ArrayLike, judged: dict[int, int]) -> float:
    """Return nDCG@10 of one query: gain is the judgement, discount log2(rank + 1).

    Parameters
    ----------
    scores : (N,), one for each document, higher is better; of equal ones the earlier wins.
    judged : document number to judgement; 0 or below has no gain.
    """
    values = np.asarray(scores)
    best = np.argsort(-values, kind="stable")[:_CUTOFF]
    gains = [max(judged.get(int(place), 0), 0) for place in best]
    ideal = sorted((max(gain, 0) for gain in judged.values()), reverse=True)[:_CUTOFF]
    most = _discounted(ideal)
    return _discounted(gains) / most if most else 0.0


def _discounted(gains: list[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: npt.NDArray[np.float32] = vectors / np.maximum(length, 1e-12)
    return unit


def _read_sts(path: Path) -> _Sts:
    """Read score, sentence1, sentence2 from a tab-separated file with a header."""
    first, second, scores = [], [], []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            header = next(reader, [])
            try:
                columns = [header.index(name) for name in ("score", "sentence1", "sentence2")]
            except ValueError:
                raise RecordError(
                    str(path), 1, "the header must name score, sentence1 and sentence2, by tabs"
                ) from None
            for row in reader:
                try:
                    score, one, other = (row[column] for column in columns)
                    scores.append(float(score))
                except (ValueError, IndexError):
                    raise RecordError(
                        str(path), reader.line_num, "this is not a number and two sentences"
                    ) from None
                first.append(one)
                second.append(other)
    except FileNotFoundError:
        raise SourceNotFoundError(f"{path}: there is no such file; see evaluate.sts.") from None
    except UnicodeDecodeError as error:
        raise RecordError(str(path), None, f"not UTF-8 ({error.reason})") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}).") from error
    if len(scores) < 2:
        raise UsageError(f"{path}: it holds {len(scores)} pairs; 2 or more are accepted.")
    return _Sts(first, second, np.array(scores))


def _read_beir(folder: Path, split: str) -> _Retrieval:
    """Read a BEIR folder; queries that the split does not judge are left out."""
    judgements = read_qrels(folder, split)
    source = str(beir_files(folder, split)[-1])
    documents = list(read_corpus(folder))
    places = {document.doc_id: place for place, document in enumerate(documents)}
    texts = {query.query_id: query.text for query in read_queries(folder)}
    judged: dict[str, dict[int, int]] = {}
    for judgement in judgements:
        if judgement.query_id not in texts or judgement.doc_id not in places:
            raise RecordError(
                source, judgement.line, "the query or the document of this row does not exist"
            )
        row = judged.setdefault(judgement.query_id, {})
        row[places[judgement.doc_id]] = judgement.score
    return _Retrieval(
        [document.content for document in documents],
        [texts[query_id] for query_id in judged],
        list(judged.values()),
    )
