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
from retrieval.corpus.qrels import find_beir, match_judgements, read_qrels
from retrieval.errors import SourceNotFoundError, UsageError, count_noun
from retrieval.scores import cosines, is_constant, ndcg, spearman, unit_rows

_CUTOFF = 10


@dataclass(frozen=True)
class _Retrieval:
    documents: list[str]
    queries: list[str]
    judged: list[dict[int, int]]
    notes: tuple[str, ...]


class DevSets:
    """The held-out data of a run, read and checked when this is made.

    Parameters
    ----------
    skip_bad : True leaves bad records out. False raises and mentions ``--skip-bad``; None raises
        without it, for commands that lack the flag.

    Attributes
    ----------
    notes : what was left out or counts as not found, a sentence each.

    Raises
    ------
    RecordError, UsageError, SourceNotFoundError, StorageError : a file is bad or not there.
    """

    def __init__(self, config: EvaluateConfig, *, skip_bad: bool | None = None) -> None:
        self._sts = None if config.sts is None else _read_sts(config.sts, skip_bad)
        self._retrieval = (
            None if config.beir is None else _read_beir(config.beir, config.beir_split, skip_bad)
        )
        self.notes = tuple(
            note for part in (self._sts, self._retrieval) if part is not None for note in part.notes
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


def _read_sts(path: Path, skip_bad: bool | None) -> StsPairs:
    if not path.is_file():
        raise SourceNotFoundError(f"{path}: there is no such file; see evaluate.sts.")
    pairs = read_sts(path, skip_bad=skip_bad)
    if is_constant(pairs.scores):
        raise UsageError(
            f"{path}: every score is {pairs.scores[0]:g}, so nothing correlates with them; "
            f"expected different ones."
        )
    return pairs


def _read_beir(folder: Path, split: str, skip_bad: bool | None) -> _Retrieval:
    """Read a BEIR folder; queries that the split does not judge are left out."""
    path = find_beir(folder, split).qrels
    read = read_qrels(path, skip_bad=skip_bad)
    corpus = read_corpus(folder, skip_bad=bool(skip_bad))
    documents = list(corpus)
    places = {document.doc_id: place for place, document in enumerate(documents)}
    asked = read_queries(folder, skip_bad=bool(skip_bad))
    texts = {query.query_id: query.text for query in asked}
    kept, notes = match_judgements(path, read.judgements, texts, places, skip_bad)
    skipped = [
        f"{count_noun(reader.skipped, 'bad record was', 'bad records were')} left out. The first: "
        f"{reader.first_skipped[0]}"
        for reader in (corpus, asked)
        if reader.skipped
    ]
    judged: dict[str, dict[int, int]] = {}
    for row in kept:
        # A judged document that the corpus lacks gets a place that nothing has.
        place = places.setdefault(row.doc_id, len(places))
        judged.setdefault(row.query_id, {})[place] = row.score
    return _Retrieval(
        [document.content for document in documents],
        [texts[query_id] for query_id in judged],
        list(judged.values()),
        (*read.notes, *skipped, *notes),
    )
