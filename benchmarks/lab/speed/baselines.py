"""Other libraries with the same weights and tokens: the baselines of the encoding benchmarks."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.optional import import_optional
from embedder import Embedder
from embedder.environment import quiet_transformers
from embedder.export import export_model
from embedder.export.onnx import OnnxClient
from retrieval.errors import UsageError
from retrieval.protocols import Vectors


def is_installed(*packages: str) -> bool:
    """Whether all of these packages can be imported."""
    return all(importlib.util.find_spec(package) is not None for package in packages)


def write_plain_base(embedder: Embedder, folder: Path) -> None:
    """Write the embedder's weights as a plain transformers folder, for the baselines to load.

    Its tokenizer has no chat template, which sentence-transformers would apply silently, and ends
    every text with EOS after truncation, as the embedder does: all see the same tokens.

    Raises
    ------
    UsageError : the model is more than the mean of a causal base's states.
    """
    from tokenizers.normalizers import Lowercase
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    spec = embedder.spec
    plain = spec.pooling == "mean" and spec.attention == "causal" and spec.dimension is None
    if not plain or not spec.normalize or spec.chat_template or spec.document_prompt:
        raise UsageError(
            f"{embedder.name} is not mean+causal without prompts, so other libraries cannot give "
            f"its vectors. Name a model such as millpond-135m or smollm2-135m:mean+causal."
        )
    model: Any = embedder.backbone.model
    with quiet_transformers():
        model.save_pretrained(folder)
    embedder.backbone.tokenizer.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)  # a copy, which may be changed
    tokenizer.chat_template = None
    if spec.lowercase:
        tokenizer.backend_tokenizer.normalizer = Lowercase()
    eos = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {eos}",
        pair=f"$A {eos} $B {eos}",
        special_tokens=[(eos, tokenizer.eos_token_id)],
    )
    for leftover in ("chat_template.jinja", "tokenizer.json"):
        (folder / leftover).unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)


def load_sentence_transformer(
    folder: Path, max_tokens: int, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Any:
    """Return mean pooling of a plain base, normalised, as a SentenceTransformer.

    Raises
    ------
    MissingDependencyError : sentence-transformers is not installed.
    """
    library = import_optional("sentence_transformers", "Comparing speeds")
    modules = import_optional("sentence_transformers.sentence_transformer.modules", "Comparing")
    with quiet_transformers():
        transformer = modules.Transformer(
            str(folder), max_seq_length=max_tokens, model_kwargs={"dtype": dtype}
        )
        if transformer.tokenizer.pad_token is None:
            transformer.tokenizer.pad_token = transformer.tokenizer.eos_token
        width = transformer.get_embedding_dimension()
        pooling = modules.Pooling(width, pooling_mode="mean")
        return library.SentenceTransformer(
            modules=[transformer, pooling, modules.Normalize()], device=device
        )


class _PlainBase:
    """Tokenizer, padding on the right, and float32 model of what ``write_plain_base`` wrote."""

    def __init__(self, folder: Path, max_tokens: int, batch_texts: int) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.tokenizer.padding_side = "right"
        with quiet_transformers():
            self.model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self.max_tokens = max_tokens
        self.batch_texts = batch_texts

    def tokenize(self, texts: Sequence[str], tensors: str) -> Any:
        """Return padded ids and masks as "pt" or "np" tensors."""
        return self.tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors=tensors,
        )


class NaiveEncoder(_PlainBase):
    """transformers as in most examples: input order, padded batches, all hidden states kept."""

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows of length 1."""
        starts = range(0, len(texts), self.batch_texts)
        return np.concatenate([self._encode(texts[at : at + self.batch_texts]) for at in starts])

    def _encode(self, texts: Sequence[str]) -> Vectors:
        batch = self.tokenize(texts, "pt")
        ids, mask = batch["input_ids"], batch["attention_mask"]
        kept = self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        vectors: Vectors = average(kept.hidden_states[-1], mask).numpy()
        return vectors


def encode_by_length(
    encode: Callable[[Sequence[str]], Vectors], texts: Sequence[str], batch_texts: int
) -> Vectors:
    """Return what batches of texts of similar length give, in the order of ``texts``."""
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    parts = [order[at : at + batch_texts] for at in range(0, len(order), batch_texts)]
    rows = np.concatenate([encode([texts[index] for index in part]) for part in parts])
    vectors: Vectors = np.empty_like(rows)
    vectors[order] = rows
    return vectors


class OpenVinoEncoder(_PlainBase):
    """OpenVINO in float32, batches of texts of similar length, as many threads as torch."""

    def __init__(self, folder: Path, max_tokens: int, batch_texts: int) -> None:
        openvino: Any = importlib.import_module("openvino")
        super().__init__(folder, max_tokens, batch_texts)
        ids = torch.zeros(2, 7, dtype=torch.int64)
        mask = torch.ones_like(ids)
        mask[1, 4:] = 0  # with padding, so that the trace reads the mask
        with warnings.catch_warnings(), quiet_transformers(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the trace, whose outcome is compared afterwards
            traced = openvino.convert_model(
                _Mean(self.model), example_input={"input_ids": ids, "attention_mask": mask}
            )
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._compute = openvino.compile_model(traced, "CPU", settings)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows of length 1 in the order of ``texts``."""
        return encode_by_length(self._encode, texts, self.batch_texts)

    def _encode(self, texts: Sequence[str]) -> Vectors:
        batch = self.tokenize(texts, "np")
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        vectors: Vectors = self._compute(inputs)[0]
        return vectors


class OnnxEncoder:
    """ONNX Runtime in float32 on our own export, batches of texts of similar length."""

    def __init__(self, embedder: Embedder, folder: Path, batch_texts: int) -> None:
        export_model(embedder, "onnx", folder)
        self._client = OnnxClient(folder)
        self._batch_texts = batch_texts

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows of length 1 in the order of ``texts``."""
        return encode_by_length(self._client.encode, texts, self._batch_texts)


class _Mean(nn.Module):
    """A decoder, the mean of its last states, length 1: what is handed over to OpenVINO."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False
        ).last_hidden_state
        return average(states, attention_mask)


def average(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean (B, D) of states (B, T, D) where ``mask`` is 1, rows of length 1."""
    real = mask.unsqueeze(-1).to(states.dtype)
    return nn.functional.normalize((states * real).sum(1) / real.sum(1), dim=-1)
