"""A step's pairs as token batches: what is embedded here, and how it becomes the loss."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from embedder.embedder import Embedder
from embedder.engine.batches import mixed_batches
from embedder.engine.packing import PackedBatch
from embedder.engine.text import Frame, TextTokenizer, pad_batch
from embedder.pooling import get_pooling
from embedder.training.config import DataSource, LossConfig
from embedder.training.data import Pair, TrainingData
from embedder.training.loss import info_nce, known_matches
from embedder.training.processes import Processes, gather_rows

__all__ = [
    "BatchLoss",
    "Chunk",
    "LocalBatch",
    "SourceTokenizer",
    "StepPairs",
    "draw_pairs",
    "embed_chunk",
]

Chunk = tuple[Tensor, Tensor] | PackedBatch
"""Texts of one forward pass: padded ids and mask, both (n, T) int64, or packed without padding."""


@dataclass(frozen=True)
class StepPairs:
    """The pairs of one step over all processes, each with the source it comes from."""

    sources: tuple[int, ...]
    pairs: tuple[Pair, ...]

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
    chunks : longest texts first. Those that the base can take packed are, as for inference.
    order : row of the joined chunks where each text stands; queries, positives, then negatives.
    pairs, tokens : of this part; padding does not count.
    """

    chunks: list[Chunk]
    order: Tensor
    pairs: int
    tokens: int


def draw_pairs(
    data: TrainingData, places: Sequence[tuple[int, int]], hard_negatives: int, seed: Sequence[int]
) -> StepPairs:
    """Return the pairs at ``places`` with at most so many negatives each, drawn by ``seed``."""
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


def embed_chunk(embedder: Embedder, chunk: Chunk) -> Tensor:
    """Return the vectors of one forward pass, (n, D) float32, with gradients where they are on."""
    if isinstance(chunk, PackedBatch):
        return embedder.forward_packed(chunk)
    rows: Tensor = embedder(*chunk)
    return rows


class SourceTokenizer:
    """Tokenises queries and documents of each source with its prompts and limits.

    Raises
    ------
    UsageError : a prompt leaves no room for text.
    """

    def __init__(self, embedder: Embedder, sources: Sequence[DataSource]) -> None:
        spec = embedder.spec
        template = Frame.parse(get_pooling(spec.pooling).template)

        def build(prompt: str, max_tokens: int | None) -> tuple[TextTokenizer, Frame]:
            tokenizer = TextTokenizer.of_spec(
                spec, embedder.backbone.tokenizer, max_tokens=max_tokens
            )
            frame = Frame.parse(prompt).inside(template)
            tokenizer(["a"], frame)
            return tokenizer, frame

        self._embedder = embedder
        self._queries = [
            build(_either(s.query_prompt, spec.query_prompt), s.max_query_tokens) for s in sources
        ]
        self._documents = [
            build(_either(s.document_prompt, spec.document_prompt), s.max_document_tokens)
            for s in sources
        ]

    def local_batch(self, step: StepPairs, processes: Processes, forward_tokens: int) -> LocalBatch:
        """Return the part of a step that this process embeds."""
        share = len(step.pairs) // processes.count
        rows = self._tokenize_pairs(
            step, range(processes.rank * share, (processes.rank + 1) * share)
        )
        chunks, placed = self._chunks(rows, processes.device, forward_tokens)
        order = torch.empty(len(rows), dtype=torch.int64)
        order[torch.tensor(placed)] = torch.arange(len(rows))
        return LocalBatch(chunks, order.to(processes.device), share, sum(map(len, rows)))

    def _chunks(
        self, rows: list[list[int]], device: torch.device, forward_tokens: int
    ) -> tuple[list[Chunk], list[int]]:
        """Return the forward passes, and which row each of their texts is."""
        embedder = self._embedder
        chunks: list[Chunk] = []
        placed: list[int] = []
        lengths = [len(row) for row in rows]
        for packs, members in mixed_batches(lengths, embedder.longest_packed, forward_tokens):
            texts = [rows[index] for index in members]
            if packs:
                chunks.append(PackedBatch.of(texts, device))
            else:
                ids, mask = pad_batch(texts, embedder.pad_id)
                chunks.append((ids.to(device), mask.to(device)))
            placed += members
        return chunks, placed

    def count_tokens(self, step: StepPairs) -> int:
        """Return the tokens of a step, those of all processes, without padding."""
        return sum(map(len, self._tokenize_pairs(step, range(len(step.pairs)))))

    def _tokenize_pairs(self, step: StepPairs, chosen: range) -> list[list[int]]:
        """Tokenise the chosen pairs: queries, positives, then negatives."""
        texts: list[tuple[bool, int, str]] = []
        for is_query, field in ((True, "query"), (False, "positive")):
            texts += [(is_query, step.sources[i], getattr(step.pairs[i], field)) for i in chosen]
        for i in chosen:
            texts += [(False, step.sources[i], text) for text in step.pairs[i].negatives]
        return self._tokenize(texts)

    def _tokenize(self, texts: Sequence[tuple[bool, int, str]]) -> list[list[int]]:
        """Tokenise texts, those of one side and source in one call."""
        groups: dict[tuple[bool, int], list[int]] = {}
        for index, (is_query, source, _) in enumerate(texts):
            groups.setdefault((is_query, source), []).append(index)
        rows: list[list[int]] = [[] for _ in texts]
        for (is_query, source), members in groups.items():
            tokenizer, frame = (self._queries if is_query else self._documents)[source]
            found = tokenizer([texts[index][2] for index in members], frame)
            for index, row in zip(members, found, strict=True):
                rows[index] = row
        return rows


class BatchLoss:
    """The loss of a step, as a function of the rows that this process embedded.

    Calling it takes (N, D) rows in the order of the chunks, shares them over the processes, and
    gives the loss of the whole batch.
    """

    def __init__(
        self, step: StepPairs, local: LocalBatch, options: LossConfig, processes: Processes
    ) -> None:
        self._order = local.order
        self._options = options
        self._share = share = len(step.pairs) // processes.count
        self._processes = processes
        parts = [step.pairs[r * share : (r + 1) * share] for r in range(processes.count)]
        self._negatives = [sum(len(pair.negatives) for pair in part) for part in parts]
        self._masked: Tensor | None = None
        if options.mask_duplicates:
            self._masked = known_matches(
                [pair.query for pair in step.pairs],
                [pair.positive for pair in step.pairs],
                [text for pair in step.pairs for text in pair.negatives],
            ).to(processes.device)

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the loss, a scalar."""
        share, count = self._share, self._processes.count
        local = rows[self._order]
        own = (local[:share], local[share : 2 * share], local[2 * share :])
        queries = gather_rows(own[0], [share] * count)
        candidates = [gather_rows(own[1], [share] * count)]
        if sum(self._negatives):
            candidates.append(gather_rows(own[2], self._negatives))
        return info_nce(
            queries,
            torch.cat(candidates),
            scale=self._options.scale,
            masked=self._masked,
            dimensions=self._options.matryoshka_dimensions,
            symmetric=self._options.symmetric,
        )


def _either(own: str | None, default: str) -> str:
    return default if own is None else own
