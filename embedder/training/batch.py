"""Which pairs make up a step, a pure function of seed and step, and their token batches."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from embedder.embedder import Embedder
from embedder.engine.batches import PaddedBatch, mixed_batches
from embedder.engine.packing import PackedBatch
from embedder.engine.text import TextTokenizer
from embedder.training.config import DataSource
from embedder.training.data import Pair, TrainingData
from embedder.training.processes import Processes
from retrieval.errors import UsageError, count_noun
from retrieval.protocols import Rows

Chunk = PackedBatch | PaddedBatch
"""Texts of one forward pass."""


@dataclass(frozen=True)
class _Epoch:
    """One pass over the data: the source of every slot, and how far each source had been read."""

    number: int
    labels: npt.NDArray[np.int32]
    consumed: Rows


class BatchSampler:
    """Names the pairs of any batch, by source and number.

    Each source is read in a shuffled order that is drawn anew each time it has been read through.
    An epoch takes ``weight x pairs`` from each source, so with equal weights every pair once,
    except for what is left over after whole batches, which comes first in the next epoch.

    Parameters
    ----------
    sizes : pairs in each source.
    weights : how often a pair of each source is seen, relative to the others.
    one_source_per_batch : whether the pairs of a batch come from one source.

    Raises
    ------
    UsageError : an epoch would not fill one batch.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float],
        batch_pairs: int,
        seed: int,
        *,
        one_source_per_batch: bool = False,
    ) -> None:
        self._sizes = tuple(sizes)
        self._batch = batch_pairs
        self._seed = seed
        self._grouped = one_source_per_batch
        shares = [size * weight for size, weight in zip(sizes, weights, strict=True)]
        if one_source_per_batch:
            self._counts = [max(1, round(share / batch_pairs)) for share in shares]
            self.steps_per_epoch = sum(self._counts)
        else:
            self._counts = [max(1, round(share)) for share in shares]
            self.steps_per_epoch = sum(self._counts) // batch_pairs
        if self.steps_per_epoch < 1:
            raise UsageError(
                f"batch_pairs is {batch_pairs}, but the weights leave "
                f"{count_noun(sum(self._counts), 'pair')} in an epoch. Raise the weights, or "
                f"set batch_pairs lower."
            )
        self._first = _Epoch(0, self._labels(0), np.zeros(len(sizes), dtype=np.int64))
        self._last = self._first
        self._orders: dict[tuple[int, int], Rows] = {}

    def steps_in(self, epochs: float) -> int:
        """Return how many steps the epochs take, at least 1."""
        return max(1, math.ceil(epochs * self.steps_per_epoch))

    def batch(self, step: int) -> list[tuple[int, int]]:
        """Return (source, pair) for each place of a batch; ``step`` counts from 0."""
        number, inside = divmod(step, self.steps_per_epoch)
        epoch = self._epoch(number)
        start = inside * self._batch
        consumed = epoch.consumed + self._count(epoch.labels[:start])
        found = []
        for label in epoch.labels[start : start + self._batch].tolist():
            found.append((label, self._pair(label, int(consumed[label]))))
            consumed[label] += 1
        return found

    def _epoch(self, number: int) -> _Epoch:
        """Return an epoch, counted on from the last one asked for where that is earlier."""
        epoch = self._last if self._last.number <= number else self._first
        while epoch.number < number:
            consumed = epoch.consumed + self._count(epoch.labels)
            epoch = _Epoch(epoch.number + 1, self._labels(epoch.number + 1), consumed)
        self._last = epoch
        return epoch

    def _labels(self, number: int) -> npt.NDArray[np.int32]:
        """Return the source of each place of an epoch's batches, in order."""
        labels = np.repeat(np.arange(len(self._sizes), dtype=np.int32), self._counts)
        np.random.default_rng([self._seed, 0, number]).shuffle(labels)
        if self._grouped:
            return np.repeat(labels, self._batch)
        return labels[: self.steps_per_epoch * self._batch]

    def _count(self, labels: npt.NDArray[np.int32]) -> Rows:
        return np.bincount(labels, minlength=len(self._sizes))

    def _pair(self, source: int, position: int) -> int:
        """Return the pair at a position of a source's endless order."""
        size = self._sizes[source]
        reading, place = divmod(position, size)
        key = (source, reading)
        if key not in self._orders:
            # A batch may reach over the end of one reading, so the order before is kept too.
            self._orders = {
                k: v for k, v in self._orders.items() if k[0] != source or k[1] == reading - 1
            }
            rng = np.random.default_rng([self._seed, 1, source, reading])
            self._orders[key] = rng.permutation(size)
        return int(self._orders[key][place])


@dataclass(frozen=True)
class StepPairs:
    """The pairs of one step over all processes, each with the source it comes from.

    A lesson of a teacher is a pair without a query.
    """

    sources: tuple[int, ...]
    pairs: tuple[Pair, ...]

    def texts(self, chosen: range) -> list[tuple[bool, int, str]]:
        """Return the texts of the chosen pairs: queries, positives, then negatives.

        Each with whether it is a query, and the source that it comes from.
        """
        pairs = [(self.sources[i], self.pairs[i]) for i in chosen]
        found = [(True, source, pair.query) for source, pair in pairs if pair.query]
        found += [(False, source, pair.positive) for source, pair in pairs]
        return found + [(False, source, text) for source, pair in pairs for text in pair.negatives]

    def triples(self, chosen: range) -> list[tuple[int, int, int]]:
        """Return the places in ``texts`` of each query, its positive and one of its negatives."""
        pairs = [self.pairs[i] for i in chosen]
        asked, found = 0, []
        queries = sum(1 for pair in pairs if pair.query)
        negative = queries + len(pairs)
        for place, pair in enumerate(pairs):
            for _ in pair.negatives:
                if pair.query:
                    found.append((asked, queries + place, negative))
                negative += 1
            asked += bool(pair.query)
        return found

    def to_jsonl(self, sources: Sequence[DataSource]) -> bytes:
        """Return the pairs as training data, each with the path of its source."""
        lines = [
            json.dumps({"source": str(sources[source].path), **asdict(pair)}) + "\n"
            for source, pair in zip(self.sources, self.pairs, strict=True)
        ]
        return "".join(lines).encode()


@dataclass(frozen=True)
class LocalBatch:
    """This process's part of a step.

    Attributes
    ----------
    chunks : the forward passes, longest texts first; packed where the base allows it, as when
        encoding.
    order : the row of the joined chunks that holds each text: queries, positives, then negatives.
    tokens : how many this part has, padding not counted.
    """

    chunks: list[Chunk]
    order: Tensor
    tokens: int


def draw_pairs(
    data: TrainingData, places: Sequence[tuple[int, int]], hard_negatives: int, seed: Sequence[int]
) -> StepPairs:
    """Return the pairs at ``places``, with at most ``hard_negatives`` each, drawn by ``seed``."""
    rng = np.random.default_rng(list(seed))
    pairs = []
    for source, index in places:
        pair: Pair = data.sources[source][index]
        kept = pair.negatives
        if len(kept) > hard_negatives:
            chosen = sorted(rng.permutation(len(kept))[:hard_negatives].tolist())
            kept = tuple(kept[i] for i in chosen)
        pairs.append(Pair(pair.query, pair.positive, kept))
    return StepPairs(tuple(source for source, _ in places), tuple(pairs))


class SourceTokenizer:
    """Tokenises queries and documents of each source with its prompts and limits.

    Raises
    ------
    UsageError : a prompt leaves no room for text.
    """

    def __init__(self, embedder: Embedder, sources: Sequence[DataSource]) -> None:
        spec = embedder.spec

        def build(
            own: str | None, default: str, max_tokens: int | None
        ) -> tuple[TextTokenizer, str]:
            tokenizer = TextTokenizer.of_spec(
                spec,
                embedder.backbone.tokenizer,
                max_tokens=min(max_tokens or spec.max_tokens, spec.max_tokens),
            )
            prompt = default if own is None else own
            tokenizer(["a"], prompt)
            return tokenizer, prompt

        self._embedder = embedder
        self._queries = [
            build(s.query_prompt, spec.query_prompt, s.max_query_tokens) for s in sources
        ]
        self._documents = [
            build(s.document_prompt, spec.document_prompt, s.max_document_tokens) for s in sources
        ]

    def local_batch(self, step: StepPairs, processes: Processes, forward_tokens: int) -> LocalBatch:
        """Return the part of a step that this process embeds."""
        own = processes.parts(len(step.pairs))[processes.rank]
        rows = self._tokenize(step.texts(own))
        chunks, placed = self._chunks(rows, processes.device, forward_tokens)
        order = torch.empty(len(rows), dtype=torch.int64)
        order[torch.tensor(placed)] = torch.arange(len(rows))
        return LocalBatch(chunks, order.to(processes.device), sum(map(len, rows)))

    def _chunks(
        self, rows: list[list[int]], device: torch.device, forward_tokens: int
    ) -> tuple[list[Chunk], list[int]]:
        """Return the forward passes, and the number of the row behind each of their texts."""
        embedder = self._embedder
        chunks: list[Chunk] = []
        placed: list[int] = []
        lengths = [len(row) for row in rows]
        for packs, members in mixed_batches(lengths, embedder.longest_packed, forward_tokens):
            texts = [rows[index] for index in members]
            chunks.append(
                PackedBatch.of(texts, device)
                if packs
                else PaddedBatch.of(texts, device, embedder.pad_id)
            )
            placed += members
        return chunks, placed

    def count_tokens(self, step: StepPairs) -> int:
        """Return the tokens of a step, those of all processes, without padding."""
        return sum(map(len, self._tokenize(step.texts(range(len(step.pairs))))))

    def _tokenize(self, texts: Sequence[tuple[bool, int, str]]) -> list[list[int]]:
        """Tokenise texts, those of one side and source in one call."""
        groups: dict[tuple[bool, int], list[int]] = {}
        for index, (is_query, source, _) in enumerate(texts):
            groups.setdefault((is_query, source), []).append(index)
        rows: list[list[int]] = [[] for _ in texts]
        for (is_query, source), members in groups.items():
            tokenizer, prompt = (self._queries if is_query else self._documents)[source]
            found = tokenizer([texts[index][2] for index in members], prompt)
            for index, row in zip(members, found, strict=True):
                rows[index] = row
        return rows
