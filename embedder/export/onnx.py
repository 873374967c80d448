"""A model as an ONNX graph, ids and mask to vectors, that ONNX Runtime computes alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embedder.conform.texts import make_samples
from embedder.embedder import Embedder
from embedder.engine.text import special_tokens
from embedder.environment import first_line, quiet_loggers
from embedder.export.framing import Framing
from retrieval.errors import MissingDependencyError, ModelError, StorageError
from retrieval.protocols import Notify, Vectors

GRAPH, TOKENIZER = "model.onnx", "tokenizer.json"
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "sentence_embedding"
TOLERANCE = 1e-4
_OPSET = 18
_LARGEST_BYTES = 1_500_000_000
"""A protobuf holds 2 GB at most; weights of more lie in a file of their own."""
_BATCHES = (1, 8)
_LONGEST_CHECKED = 512
"""Tokens; texts from half to twice as long are compared."""


class _Graph(nn.Module):
    """What is exported: padded ids and mask (B, T) int64 to vectors (B, D) float32."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        vectors: Tensor = self.embedder(input_ids, attention_mask)
        return vectors


def write_onnx(embedder: Embedder, framing: Framing, folder: Path, notify: Notify) -> None:
    """Write model.onnx and tokenizer.json, and compare their vectors with the model's.

    Raises
    ------
    UsageError, MissingDependencyError, ModelError : see ``export_model``.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "onnx, onnxscript and onnxruntime",
            "Exporting to ONNX",
            "pip install 'millpond[export]'",
        ) from error
    _write_tokenizer(embedder, framing, folder / TOKENIZER)
    notify("Tracing the model as an ONNX graph (about half a minute, and more for a large one)")
    _write_graph(embedder, folder / GRAPH)
    worst = _compare(embedder, folder, framing.prompts)
    notify(f"ONNX Runtime gives its vectors: the largest difference of a number is {worst:.0e}")


def _write_tokenizer(embedder: Embedder, framing: Framing, path: Path) -> None:
    """Write a tokenizer that lower-cases, frames, cuts and pads texts as the model does."""
    from tokenizers import Tokenizer, normalizers
    from tokenizers.processors import TemplateProcessing

    backend = Tokenizer.from_str(embedder.backbone.tokenizer.backend_tokenizer.to_str())
    if embedder.spec.lowercase:
        then = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *then])
    backend.post_processor = TemplateProcessing(
        single=" ".join(
            (*(["head"] if framing.head else []), "$A", *(["tail"] if framing.tail else []))
        ),
        special_tokens=[
            {"id": name, "ids": list(ids), "tokens": [backend.id_to_token(token) for token in ids]}
            for name, ids in (("head", framing.head), ("tail", framing.tail))
            if ids
        ],
    )
    backend.enable_truncation(embedder.spec.max_tokens)
    backend.enable_padding(pad_id=framing.pad_id, pad_token=backend.id_to_token(framing.pad_id))
    backend.save(str(path))


def _write_graph(embedder: Embedder, path: Path) -> None:
    ids = torch.ones((2, 7), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    free = {0: "batch", 1: "tokens"}
    embedder.requires_grad_(False)
    try:
        # With gradients on, poolings keep no result from one call for the next.
        with _quiet(), torch.enable_grad():
            program: Any = torch.onnx.export(
                _Graph(embedder).eval(),
                (ids, mask),
                dynamo=True,
                verbose=False,
                opset_version=_OPSET,
                input_names=list(INPUTS),
                output_names=[OUTPUT],
                dynamic_shapes=dict.fromkeys(INPUTS, free),
            )
        size = sum(p.numel() * p.element_size() for p in embedder.parameters())
        program.save(path, external_data=size > _LARGEST_BYTES)
    except OSError as error:
        raise StorageError(
            f"{path}: cannot be written ({error.strerror or error}). Free some space or name "
            "another place, and run the command again."
        ) from error
    except Exception as error:  # torch.export and onnxscript raise their own kinds
        raise ModelError(
            f"{embedder.name} cannot be traced as an ONNX graph: {first_line(error)}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says of packages and shapes."""
    with quiet_loggers("torch.onnx", "onnxscript", "onnx_ir"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _compare(embedder: Embedder, folder: Path, prompts: dict[str, str]) -> float:
    """Return the largest difference of a number from the model's, or raise ModelError."""
    client = OnnxClient(folder)
    texts = _make_texts(embedder, client)
    spec, worst = embedder.spec, 0.0
    sides = {
        spec.query_prompt: (prompts["query_prompt"], embedder.encode_queries),
        spec.document_prompt: (prompts["document_prompt"], embedder.encode_documents),
    }  # one where both prompts are the same
    for ours, (prompt, encode) in sides.items():
        shown, expected = [prompt + text for text in texts], encode(texts)
        if client.tokenize(shown) != embedder.tokenize(texts, ours):
            raise ModelError(
                f"{embedder.name}: {TOKENIZER} gives other token ids than its own tokenizer, so "
                f"nothing was written. Such a tokenizer cannot be exported."
            )
        size = np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
        for batch in _BATCHES:
            found = np.concatenate(
                [client.encode(shown[at : at + batch]) for at in range(0, len(shown), batch)]
            )
            worst = max(worst, float(np.abs((found - expected) / size).max()))
    if not worst <= TOLERANCE:
        raise ModelError(
            f"{embedder.name}: ONNX Runtime gives vectors that differ from its own by {worst:.1e} "
            f"(allowed: {TOLERANCE:.0e}), so nothing was written. It cannot be exported."
        )
    return worst


def _make_texts(embedder: Embedder, client: OnnxClient) -> list[str]:
    """Return texts of every kind and of several lengths; the empty one where it has tokens."""
    spelled = special_tokens(embedder.backbone.tokenizer.backend_tokenizer)
    longest = min(embedder.spec.max_tokens, _LONGEST_CHECKED)
    samples = make_samples(spelled, lambda text: len(text) // 4, longest)
    return [sample.text for sample in samples if sample.text or client.tokenize([""])[0]]


class OnnxClient:
    """What docs/export.md shows: a tokenizer's file and a graph, without millpond."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        onnxruntime.disable_telemetry_events()  # version 1.32 keeps some otherwise
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(str(folder / GRAPH), options)
        except Exception as error:  # onnxruntime raises its own kinds
            raise ModelError(
                f"ONNX Runtime cannot read the traced graph: {first_line(error)}"
            ) from error
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self._tokenizer.encode_special_tokens = True

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text without padding."""
        rows = self._tokenizer.encode_batch(list(texts))
        return [[i for i, real in zip(r.ids, r.attention_mask, strict=True) if real] for r in rows]

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D)."""
        rows = self._tokenizer.encode_batch(list(texts))
        ids, mask = ([getattr(row, name) for row in rows] for name in ("ids", "attention_mask"))
        inputs = {name: np.array(rows) for name, rows in zip(INPUTS, (ids, mask), strict=True)}
        found: Vectors = self._session.run(None, inputs)[0]
        return found
