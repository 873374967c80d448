"""What others do with the same weights: sentence-transformers, and transformers used naively."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.scoring.optional import import_optional
from embedder import Embedder
from embedder.environment import quiet_transformers
from retrieval.errors import UsageError
from retrieval.protocols import Vectors

__all__ = ["NaiveEncoder", "load_plain", "load_sentence_transformer", "write_plain_base"]


def write_plain_base(embedder: Embedder, folder: Path) -> None:
    """Write the embedder's weights as a plain transformers folder, for the peers to load.

    Its tokenizer has no chat template, which sentence-transformers would apply in silence, and
    ends every text with EOS after truncation, as the embedder does: all see the same tokens.

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
            f"{embedder.name} is not mean+causal without prompts, so the peers could not give "
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


def load_plain(folder: Path) -> tuple[Any, Any]:
    """Return tokenizer, padding on the right, and model in float32 of a plain base."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    with quiet_transformers():
        return tokenizer, AutoModel.from_pretrained(folder, dtype=torch.float32).eval()


class NaiveEncoder:
    """transformers as in most examples: input order, padded batches, all hidden states kept."""

    def __init__(self, folder: Path, max_tokens: int, batch_texts: int) -> None:
        self._tokenizer, self._model = load_plain(folder)
        self._max_tokens = max_tokens
        self._batch_texts = batch_texts

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows of length 1."""
        found = [
            self._batch(list(texts[start : start + self._batch_texts]))
            for start in range(0, len(texts), self._batch_texts)
        ]
        return np.concatenate(found)

    def _batch(self, texts: list[str]) -> Vectors:
        batch = self._tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        )
        kept = self._model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            output_hidden_states=True,
        ).hidden_states
        mask = batch["attention_mask"].unsqueeze(-1).float()
        means = (kept[-1] * mask).sum(dim=1) / mask.sum(dim=1)
        vectors: Vectors = torch.nn.functional.normalize(means, dim=-1).numpy()
        return vectors


def load_sentence_transformer(folder: Path, max_tokens: int) -> Any:
    """Return mean pooling of a plain base, normalised, as a SentenceTransformer in float32."""
    library = import_optional("sentence_transformers", "Comparing speeds")
    modules = import_optional("sentence_transformers.sentence_transformer.modules", "Comparing")
    with quiet_transformers():
        transformer = modules.Transformer(
            str(folder), max_seq_length=max_tokens, model_kwargs={"dtype": torch.float32}
        )
        if transformer.tokenizer.pad_token is None:
            transformer.tokenizer.pad_token = transformer.tokenizer.eos_token
        width = transformer.get_embedding_dimension()
        pooling = modules.Pooling(width, pooling_mode="mean")
        return library.SentenceTransformer(
            modules=[transformer, pooling, modules.Normalize()], device="cpu"
        )
