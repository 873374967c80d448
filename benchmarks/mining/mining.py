"""Hard negatives for training pairs: texts that rank high for a query and do not answer it.

This stands in ``benchmarks`` because it composes what may not import each other: the pairs of
``embedder.training`` and the indexes of ``indexes``.

    pairs = PairSource(DataSource(path=Path("pairs.jsonl")))
    known = KnownPairs(pairs.keys)
    candidates = Candidates.collect(pairs)
    config = MiningConfig()
    for mined in mine(pairs, known, candidates, BM25Ranker(candidates), config):
        print(mined.pair.negatives)

Candidates whose score comes too near the positive's are left out, as in NV-Retriever
(arXiv 2407.15831, section 3.2: TopK-PercPos is ``max_relative_score``, TopK-MarginPos is
``min_gap``). We add a rank window, and settle for fewer negatives where the guards leave fewer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from benchmarks.mining.candidates import Candidates, Ranker, Ranking
from embedder.training.data import KnownPairs, Pair, hash_text
from retrieval.errors import UsageError, count_noun

GUARDS = ("positive", "query", "present", "score")
"""Why a candidate inside the window is left out; the first that applies is counted."""

_BATCH_PAIRS = 256


@dataclass(frozen=True, kw_only=True)
class MiningConfig:
    """Which candidates become negatives.

    Attributes
    ----------
    negatives : most negatives added to a pair.
    from_rank, to_rank : the window, counted from 1 over all candidates, both ends included.
    max_relative_score : a candidate may score this share of the positive's score at most; for a
        positive below 0 the distance counts, so that the limit is never above the positive's
        score while this is 1 or less. Infinity for no limit.
    min_gap : a candidate scores at least so much less than the positive; None for no such limit.
    pick : "top" for the best of what the guards leave, "random" for a sample of it.
    seed : of the sample; a pair's sample depends on it and on the pair's number only.
    replace : drop the negatives that a pair has, instead of putting the new ones behind them.

    Raises
    ------
    UsageError : a number out of range.
    """

    negatives: int = 4
    from_rank: int = 10
    to_rank: int = 100
    max_relative_score: float = 0.95
    min_gap: float | None = None
    pick: Literal["top", "random"] = "top"
    seed: int = 0
    replace: bool = False

    def __post_init__(self) -> None:
        """Refuse what no candidate could satisfy."""
        for name in ("negatives", "from_rank"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        if self.to_rank <= self.from_rank:
            raise UsageError(
                f"to_rank is {self.to_rank} and from_rank {self.from_rank}; to_rank must be more."
            )
        if not self.max_relative_score > 0:
            raise UsageError(
                f"max_relative_score is {self.max_relative_score}; it must be more than 0."
            )
        if self.min_gap is not None and not self.min_gap >= 0:
            raise UsageError(f"min_gap is {self.min_gap}; it must be 0 or more.")
        if self.pick not in ("top", "random"):
            raise UsageError(f"pick is {self.pick!r}; expected top or random.")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}; it must be 0 or more.")

    def score_limit(self, positive: float) -> float:
        """Return the highest score that a negative may have."""
        limit = math.inf
        if self.max_relative_score < math.inf:
            limit = positive - (1 - self.max_relative_score) * abs(positive)
        return limit if self.min_gap is None else min(limit, positive - self.min_gap)


@dataclass(frozen=True)
class Mined:
    """A pair with its negatives.

    Attributes
    ----------
    ranks : of the negatives that were added, rising.
    dropped : one of ``GUARDS`` to how many candidates of the window it left out.
    """

    pair: Pair
    ranks: tuple[int, ...]
    dropped: Mapping[str, int]


@dataclass
class MiningSummary:
    """Counts over all mined pairs."""

    candidates: int
    pairs: int = 0
    rank_sum: int = 0
    by_negatives: Counter[int] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def add(self, mined: Mined) -> None:
        """Count one more pair."""
        self.pairs += 1
        self.rank_sum += sum(mined.ranks)
        self.by_negatives[len(mined.ranks)] += 1
        self.dropped.update(mined.dropped)

    @property
    def negatives(self) -> int:
        """How many negatives were added."""
        return sum(count * pairs for count, pairs in self.by_negatives.items())

    @property
    def mean_rank(self) -> float | None:
        """The mean rank of the added negatives; None where there is none."""
        return self.rank_sum / self.negatives if self.negatives else None

    def to_json(self) -> dict[str, Any]:
        """Return the counts, ready for JSON."""
        return {
            "pairs": self.pairs,
            "candidates": self.candidates,
            "negatives": self.negatives,
            "pairs_by_negatives": {str(n): self.by_negatives[n] for n in sorted(self.by_negatives)},
            "pairs_without": self.by_negatives[0],
            "mean_rank": self.mean_rank,
            "dropped": {guard: self.dropped[guard] for guard in GUARDS},
        }


def check_window(config: MiningConfig, candidates: Candidates) -> None:
    """Raise UsageError where there are fewer candidates than ranks."""
    if candidates.count < config.to_rank:
        counted = count_noun(candidates.count, "distinct candidate")
        shorter = f"Type --to-rank {candidates.count} or less and a --from-rank below it, or name"
        raise UsageError(
            f"There {'is' if candidates.count == 1 else 'are'} {counted}, and the window goes to "
            f"rank {config.to_rank}. {'Name' if candidates.count < 2 else shorter} a larger "
            f"--corpus."
        )


def mine(
    pairs: Sequence[Pair],
    known: KnownPairs,
    candidates: Candidates,
    ranker: Ranker,
    config: MiningConfig,
) -> Iterator[Mined]:
    """Yield every pair with hard negatives, in order, holding 256 pairs in memory.

    Parameters
    ----------
    known : made from the same pairs, and from others whose positives are right as well.
    ranker : over the same candidates.

    Raises
    ------
    UsageError : there are fewer candidates than ranks.
    """
    check_window(config, candidates)
    for start in range(0, len(pairs), _BATCH_PAIRS):
        batch = pairs[start : start + _BATCH_PAIRS]
        rankings = ranker.rank(
            [pair.query for pair in batch], [pair.positive for pair in batch], config.to_rank
        )
        for number, (pair, ranking) in enumerate(zip(batch, rankings, strict=True), start):
            yield _choose(number, pair, ranking, known, candidates, config)


def _choose(
    number: int,
    pair: Pair,
    ranking: Ranking,
    known: KnownPairs,
    candidates: Candidates,
    config: MiningConfig,
) -> Mined:
    """Return pair ``number`` with negatives from its window that pass the guards."""
    kept = () if config.replace else pair.negatives
    rows = ranking.rows[config.from_rank - 1 :]
    keys = candidates.keys[rows]
    query = hash_text(pair.query)
    refused = {
        "positive": np.isin(keys, known.positives(query)),
        "query": keys == np.uint64(query),
        "present": np.isin(keys, np.array([hash_text(text) for text in kept], np.uint64)),
        "score": ranking.scores[config.from_rank - 1 :] > config.score_limit(ranking.positive),
    }
    left = np.ones(len(rows), dtype=bool)
    dropped = {}
    for guard in GUARDS:
        dropped[guard] = int((left & refused[guard]).sum())
        left &= ~refused[guard]
    places = np.flatnonzero(left)
    if config.pick == "random" and len(places) > config.negatives:
        random = np.random.default_rng([config.seed, number])
        places = np.sort(random.choice(places, config.negatives, replace=False))
    places = places[: config.negatives]
    added = tuple(candidates.texts[row] for row in rows[places])
    ranks = tuple((places + config.from_rank).tolist())
    return Mined(Pair(pair.query, pair.positive, (*kept, *added)), ranks, dropped)
