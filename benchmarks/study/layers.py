"""What a model's layers hold and which of them its pooling reads, over a fixed sample of texts."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.scoring.costs import FLOP_TOKENS, flop_counter
from embedder import Embedder
from embedder.engine.batches import PaddedBatch, pad_batch, token_batches
from embedder.pooling.modules import LatentQueryPooling, last_token, mean
from embedder.pooling.registry import POOLINGS, without_whitening
from retrieval.scores import Doubles, average_ranks

_DECIMALS = 4


def analyse_model(embedder: Embedder, texts: Sequence[str]) -> dict[str, Any]:
    """Return what the report says about a model besides its scores, ready for JSON.

    Returns
    -------
    correlation : (L, L), see ``correlate_layers``.
    flops : of embedding one text of 128 tokens, backbone and pooling.
    reading : for a pooling that weighs layers, "layers" and their "shares", which sum to 1.
    attention : for last_layer, the mean number of "keys", the "change" of the vectors where
        queries and keys are drawn anew, and how many weights are "idle" with one key.
    """
    found: dict[str, Any] = {
        "correlation": _rounded(correlate_layers(mean_layer_states(embedder, texts))),
        "flops": count_flops(embedder),
    }
    if embedder.spec.pooling in ("multi_layer", "layer_weights"):
        found["reading"] = _layer_shares(embedder, texts)
    if embedder.spec.pooling == "last_layer":
        found["attention"] = _attention_matters(embedder, texts)
    return found


def mean_layer_states(embedder: Embedder, texts: Sequence[str]) -> Doubles:
    """Return the mean over tokens of each layer's states, (N, L, D), whatever the attention.

    Layer L is taken after the final norm, as everywhere in this project. The longest texts come
    first.
    """
    backbone = embedder.backbone
    rows = []
    for ids, mask in _batches(embedder, texts):
        kept: list[Tensor] = []

        def keep(
            module: Any,
            inputs: Any,
            output: Any,
            kept: list[Tensor] = kept,
            mask: Tensor = mask,
        ) -> None:
            states = output[0] if isinstance(output, tuple) else output
            kept.append(mean(states.float(), mask.bool()))

        hooks = [block.register_forward_hook(keep) for block in list(backbone.blocks())[:-1]]
        try:
            with torch.no_grad():
                last = backbone.token_states(ids, mask)
        finally:
            for hook in hooks:
                hook.remove()
        layers = torch.stack([*kept, mean(last.float(), mask.bool())], dim=1)
        rows.append(layers.double().cpu().numpy())
    return np.concatenate(rows)


def correlate_layers(states: Doubles) -> Doubles:
    """Return Spearman's correlation of each two layers, (L, L), the mean over texts.

    Of a text, the D coordinates of two layers' mean states are correlated; by rank, since a few
    coordinates of a decoder are a hundred times as large as the others and would decide alone.

    Parameters
    ----------
    states : (N, L, D) as ``mean_layer_states`` returns them.
    """
    found = [np.corrcoef([average_ranks(layer) for layer in text]) for text in states]
    depth = states.shape[1]
    return np.asarray(np.mean(found, axis=0), dtype=np.float64).reshape(depth, depth)


def count_flops(embedder: Embedder) -> int:
    """Return the arithmetic of embedding one text of 128 tokens, backbone and pooling.

    Counted while the model runs, by the rule of ``benchmarks.scoring.costs.pooling_flops``.
    """
    ids = torch.ones(1, FLOP_TOKENS, dtype=torch.int64, device=embedder.device)
    counter = flop_counter()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        embedder(ids, torch.ones_like(ids))
    return int(counter.flops)


def _layer_shares(embedder: Embedder, texts: Sequence[str]) -> dict[str, Any]:
    """Return which layers a pooling over layers reads, and how much of each, over the texts."""
    depth = embedder.backbone.layer_count
    asked = embedder.spec.pooling_options.layers or range(1, depth + 1)
    layers = [depth + 1 + layer if layer < 0 else layer for layer in asked]
    pooling: Any = without_whitening(embedder.pooling)
    rows = []
    with torch.no_grad():
        for ids, mask in _batches(embedder, texts):
            states = embedder.backbone.read(PaddedBatch(ids, mask), layers).stack(layers)
            every = states.new_ones(states.shape[:2], dtype=torch.bool)
            rows.append(pooling.shares(states, every).double().cpu().numpy())
    shares = np.concatenate(rows).mean(axis=0)
    return {"layers": layers, "shares": _rounded(shares)}


def _attention_matters(embedder: Embedder, texts: Sequence[str]) -> dict[str, Any]:
    """Return how much the queries and keys of a last_layer pooling matter."""
    spec, backbone = embedder.spec, embedder.backbone
    reads = POOLINGS[spec.pooling].reads(backbone.attention.is_causal, spec.pooling_options)
    pooling: Any = copy.deepcopy(without_whitening(embedder.pooling)).cpu()
    keys, changes = [], []
    with torch.no_grad():
        for ids, mask in _batches(embedder, texts):
            states, real = backbone.token_states(ids, mask).float(), mask.bool()
            if reads == "eos":
                states = last_token(states, real).unsqueeze(1)
                real = real.new_ones(states.shape[:2])
            states, real = states.cpu(), real.cpu()
            keys += real.sum(dim=1).tolist()
            changes.append(change_without_attention(pooling, states, real))
    return {
        "keys": round(float(np.mean(keys)), 1),
        "change": float(f"{max(changes):.3g}"),
        "idle": idle_parameters(pooling),
    }


def _batches(embedder: Embedder, texts: Sequence[str]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield padded ids and mask, as documents of the model."""
    rows = embedder.tokenize(texts, embedder.spec.document_prompt)
    for chosen in token_batches([len(row) for row in rows], embedder.batch_tokens):
        ids, mask = pad_batch([rows[index] for index in chosen], embedder.pad_id)
        yield ids.to(embedder.device), mask.to(embedder.device)


def _rounded(values: Doubles) -> Any:
    return np.round(values, _DECIMALS).tolist()


def _attention_parts(pooling: LatentQueryPooling) -> list[nn.Module]:
    """Return the parts that only queries and keys go through; the context's norm feeds values."""
    return [pooling.attend.query, pooling.attend.key, pooling.attend.query_norm]


@torch.no_grad()
def change_without_attention(pooling: LatentQueryPooling, states: Tensor, mask: Tensor) -> float:
    """Return how far the vectors move if query and key weights are drawn anew, ten times larger.

    0 where every text has one key, whatever was trained; more where there are several.

    Parameters
    ----------
    states, mask : (B, S, D) float32 and (B, S) bool, what the pooling reads.

    Returns
    -------
    The largest change of any coordinate, over the largest coordinate before.
    """
    before = pooling(states, mask)
    other = copy.deepcopy(pooling)
    generator = torch.Generator().manual_seed(0)
    for part in _attention_parts(other):
        for parameter in part.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(10 * drawn / parameter.shape[-1] ** 0.5)
    after = other(states, mask)
    return float((after - before).abs().max() / before.abs().max())


def idle_parameters(pooling: LatentQueryPooling) -> int:
    """Return the number of weights that decide nothing if there is only one key."""
    return sum(p.numel() for part in _attention_parts(pooling) for p in part.parameters())
