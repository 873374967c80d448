"""Rerankers: models that read a query and a document together and score the pair."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from embedder.engine.text import check_texts
from embedder.environment import choose_device, first_line, refuse_missing_weights
from embedder.models.foreign.files import read_model_json
from embedder.models.sentence_transformers.encoder import (
    check_threads,
    hash_tokens,
    hash_weights,
)
from embedder.models.sentence_transformers.load import (
    Asked,
    find_model,
    import_library,
    limit_positions,
    load_options,
    loading,
)
from retrieval.errors import ModelError, UsageError
from retrieval.protocols import Floats, Notify, silent
from retrieval.types import Fingerprint

_BATCH_TOKENS = 8192
"""Tokens of one forward pass on a CPU, padding included."""
_CUDA_BATCH_TOKENS = 65_536
_PROBE = ("The mill GRINDS corn.", "naïve 水车 (1,234)")
"""Its token ids stand for the tokenizer and the template in a fingerprint."""


class Reranker:
    """A CrossEncoder of sentence-transformers, which scores each document for a query.

    Its outputs order the documents of one query. The model's own activation, by default a sigmoid,
    makes scores of them, from 0 to 1.

    Attributes
    ----------
    name : what a user types to load this model again.
    max_tokens : how many tokens of a query and document together the model reads.
    """

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self._model = model
        self.max_tokens = int(model.max_seq_length or 512)
        self._batch_tokens = _CUDA_BATCH_TOKENS if model.device.type == "cuda" else _BATCH_TOKENS
        self._counter = copy.deepcopy(model.tokenizer)  # used while another thread scores
        self._lock = threading.Lock()
        self._cut = 0

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What decides the scores: weights, tokens, the longest input, the activation."""
        return Fingerprint(
            self.name,
            {
                "library": "sentence-transformers",
                "weights": hash_weights(self._model),
                "tokens": hash_tokens(self._model, _PROBE),
                "max_tokens": self.max_tokens,
                "activation": str(self._model.activation_fn),
            },
        )

    @property
    def device(self) -> str:
        """Where the model computes."""
        return str(self._model.device)

    def score(self, query: str, documents: Sequence[str]) -> Floats:
        """Return the model's output for each document, float32 (N,), in the order given.

        ``activate`` makes scores of it.

        Raises
        ------
        UsageError : a text is not valid; or this process was forked from one that had computed.
        ModelError : the model gave NaN or infinity.
        """
        lengths = self.count_tokens(query, documents)
        self._cut += sum(length > self.max_tokens for length in lengths)
        pairs = [(query, document) for document in documents]
        return self.score_pairs(pairs, lengths)

    def take_cut(self) -> int:
        """Return how many documents ``score`` has not read to their end since the last call."""
        cut, self._cut = self._cut, 0
        return cut

    def score_pairs(self, pairs: Sequence[tuple[str, str]], lengths: Sequence[int]) -> Floats:
        """Return the model's output for each query and document, float32 (N,).

        ``lengths`` are their tokens: those of similar length go through the model together.
        Raises as ``score``.
        """
        import torch

        from embedder.engine.batches import token_batches

        check_threads()
        outputs = np.empty(len(pairs), dtype=np.float32)
        read = [max(1, min(length, self.max_tokens)) for length in lengths]
        for rows in token_batches(read, self._batch_tokens):
            outputs[rows] = self._model.predict(
                [pairs[row] for row in rows],
                batch_size=len(rows),
                activation_fn=torch.nn.Identity(),
                show_progress_bar=False,
            )
        if not np.isfinite(outputs).all():
            raise ModelError(f"The reranker {self.name} gave a score that is not a finite number.")
        return outputs

    def activate(self, outputs: Floats) -> Floats:
        """Return the scores that the model's activation makes of its output."""
        import torch

        scores: Floats = self._model.activation_fn(torch.from_numpy(outputs)).numpy()
        return scores

    def count_tokens(self, query: str, documents: Sequence[str]) -> list[int]:
        """Return the tokens of each pair, before it is cut to ``max_tokens``.

        What a chat template adds is not counted.

        Raises
        ------
        UsageError : a text is not valid.
        """
        check_texts([query, *documents])
        if not documents:
            return []
        queries = [query] * len(documents)
        with self._lock:
            rows = self._counter(
                queries, list(documents), truncation=False, padding=False, verbose=False
            )
        return [len(row) for row in rows["input_ids"]]


def load_reranker(
    name: str,
    device: str | None = None,
    notify: Notify = silent,
    *,
    trust_remote_code: bool = False,
) -> Reranker:
    """Return a reranker that sentence-transformers loads, on a CPU in float32.

    Parameters
    ----------
    name : a folder or hub id, such as "cross-encoder/ms-marco-MiniLM-L6-v2".
    device : "cuda", "mps" or "cpu"; the best there is by default.
    notify : receives one line for the user at each slow or notable step.
    trust_remote_code : whether Python code that comes with the model may be run.

    Raises
    ------
    MissingDependencyError : sentence-transformers is not installed.
    SourceNotFoundError : there is no such folder.
    UsageError : an option was named; a reranker takes none.
    ModelError : it comes with code and is not trusted, cannot be loaded, gives more than one score
        for a pair, is a language model without a prompt template for reranking, or has no weights
        that score a pair.
    """
    library = import_library(name, "a reranker")
    check_threads()
    chosen = choose_device(device)
    asked = find_model(name, notify, "a reranker", trust_remote_code=trust_remote_code)
    if asked.options:
        raise UsageError(f"{name!r} has options; a reranker takes none. Type {asked.place}.")
    with loading(f"the reranker {asked.shown!r}", "of a CrossEncoder") as missing:
        how = load_options(asked, chosen, trust_remote_code=trust_remote_code)
        model = library.CrossEncoder(asked.place, **how)
    limit_positions(model)
    _check_head(asked, model)
    refuse_missing_weights(asked.shown, missing)
    _check(asked.shown, model)
    return Reranker(asked.shown, model)


def _check_head(asked: Asked, model: Any) -> None:
    """Raise ModelError for an encoder of texts, whose head would be drawn at random."""
    if getattr(model[0], "transformer_task", "") != "sequence-classification":
        return
    config = read_model_json(asked.place, "config.json", asked.revision)
    kinds = config.get("architectures") if isinstance(config, dict) else None
    if not isinstance(kinds, list) or not any("SequenceClassification" in str(k) for k in kinds):
        raise ModelError(
            f"{asked.shown} has no weights that score a pair (its config.json names "
            f"{', '.join(map(str, kinds or ['no architecture']))}), and random ones would take "
            f"their place. Name a CrossEncoder, such as cross-encoder/ms-marco-MiniLM-L6-v2."
        )


def _check(name: str, model: Any) -> None:
    """Raise ModelError unless the model was made to score pairs."""
    if model.num_labels != 1:
        raise ModelError(
            f"{name} gives {model.num_labels} numbers for a pair, as a classifier does; a reranker "
            f"gives one. Name another model."
        )
    activation = (getattr(model.config, "sentence_transformers", None) or {}).get("activation_fn")
    if activation and not model.trust_remote_code and not activation.startswith("torch."):
        raise ModelError(
            f"{name} names an activation of its own, {activation}, which is Python code. If you "
            f"have read it and trust it, add --trust-remote-code."
        )
    kind = _name_language_model(model)
    try:
        if kind and "message" not in (getattr(model[0], "modality_config", None) or {}):
            raise ValueError("it has none")
        model.predict([("query", "document")], show_progress_bar=False)
    except Exception as error:  # such as a template without places for query and document
        if not kind:
            raise ModelError(
                f"The reranker {name} cannot score a pair: {first_line(error)}"
            ) from error
        raise ModelError(
            f"{name} is a causal language model ({kind}) without a prompt template for reranking, "
            f"and its scores would be near random: {first_line(error)}. Expected a folder whose "
            f"modules.json and chat template put a query and a document into one prompt; or name "
            f"a CrossEncoder."
        ) from error


def _name_language_model(model: Any) -> str:
    """Return the class of a model that scores by the token that follows; else ""."""
    if not any(type(part).__name__ == "LogitScore" for part in model):
        return ""
    kinds = getattr(model.config, "architectures", None) or [type(model[0]).__name__]
    return str(kinds[0])
