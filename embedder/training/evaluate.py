"""Scores on held-out data while training: Spearman on STS, nDCG@10 on a BEIR folder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedder.embedder import Embedder
from embedder.training.config import EvaluateConfig
from retrieval import read_corpus, read_queries
from retrieval.corpus.labelled import StsPairs, read_sts
from retrieval.corpus.qrels import find_beir, read_qrels
from retrieval.errors import RecordError, SourceNotFoundError, UsageError
from retrieval.scores import cosines, is_constant, ndcg, spearman, unit_rows

__all__ = ["DevSets"]

_CUTOFF = 10


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
        """Return "sts" (Spearman of cosine) and "ndcg" (nDCG@10), those that are set and defined.

        "sts" is undefined where the cosine of every pair is the same, as of a collapsed model.
        STS sentences take the query prompt. Dropout is off meanwhile.
        """
        was_training = embedder.training
        embedder.eval()
        scores = {}
        if self._sts is not None:
            first = embedder.encode_queries(self._sts.first)
            second = embedder.encode_queries(self._sts.second)
            correlation = spearman(cosines(first, second), self._sts.scores)
            if not math.isnan(correlation):
                scores["sts"] = correlation
        if self._retrieval is not None:
            documents = unit_rows(embedder.encode_documents(self._retrieval.documents))
            queries = unit_rows(embedder.encode_queries(self._retrieval.queries))
            found = []
            for query, judged in zip(queries, self._retrieval.judged, strict=True):
                best = np.argsort(-(documents @ query), kind="stable")[:_CUTOFF]
                found.append(ndcg(best.tolist(), judged, _CUTOFF))
            scores["ndcg"] = float(np.mean(found))
        embedder.train(was_training)
        return scores


def _read_sts(path: Path) -> StsPairs:
    if not path.is_file():
        raise SourceNotFoundError(f"{path}: there is no such file; see evaluate.sts.")
    pairs = read_sts(path)
    if is_constant(pairs.scores):
        raise UsageError(
            f"{path}: every score is {pairs.scores[0]:g}, so nothing correlates with them; "
            f"expected different ones."
        )
    return pairs


def _read_beir(folder: Path, split: str) -> _Retrieval:
    """Read a BEIR folder; queries that the split does not judge are left out."""
    path = find_beir(folder, split).qrels
    documents = list(read_corpus(folder))
    places = {document.doc_id: place for place, document in enumerate(documents)}
    texts = {query.query_id: query.text for query in read_queries(folder)}
    judged: dict[str, dict[int, int]] = {}
    for judgement in read_qrels(path).judgements:
        if judgement.query_id not in texts or judgement.doc_id not in places:
            raise RecordError(
                str(path), judgement.line, "the query or the document of this row does not exist"
            )
        row = judged.setdefault(judgement.query_id, {})
        row[places[judgement.doc_id]] = judgement.score
    return _Retrieval(
        [document.content for document in documents],
        [texts[query_id] for query_id in judged],
        list(judged.values()),
    )
