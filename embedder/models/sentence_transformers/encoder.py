"""A SentenceTransformer as an ``Encoder``, and its fingerprint."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from embedder.engine.text import check_finite, check_texts
from retrieval.errors import ModelError, check_fork
from retrieval.protocols import Notify, Progress, Vectors, no_progress
from retrieval.types import Fingerprint

PROMPT_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""What models call the prompt of a side; the first that is there and not empty counts."""

POOLING_MODES = {
    "mean": "mean",
    "eos": "lasttoken",
    "cls": "cls",
    "max": "max",
    "weighted_mean": "weightedmean",
}
"""What sentence-transformers calls our poolings."""

_BATCH, _CHUNK = 32, 256
_NO_LIMIT = 2**31 - 1
_PROBE = "The mill GRINDS corn.  Un été: naïve 水车 🙂 (1,234)\n<s></s> end"
"""Its token ids stand for the tokenizer in a fingerprint."""
_IRRELEVANT = {"architectures", "dtype", "transformers_version", "_name_or_path", "use_cache"}
"""Keys of a configuration that do not decide vectors."""


class SentenceTransformersEncoder:
    """An ``Encoder`` over a SentenceTransformer, whose vectors it gives.

    Vectors have length 1 where the model compares by cosine, and are left as they are where it
    compares by dot product.

    Parameters
    ----------
    name : what a user types to load this model again.
    model : a ``sentence_transformers.SentenceTransformer``.
    """

    def __init__(self, name: str, model: Any) -> None:
        self.name = name
        self._model = model
        self._query_prompt: str | None = None
        self._normalizes = model.similarity_fn_name != "dot"
        self._counter = copy.deepcopy(model.tokenizer)  # used while another thread encodes
        self._lock = threading.Lock()
        self._fingerprint = Fingerprint(
            name,
            {
                "library": "sentence-transformers",
                "weights": hash_weights(model),
                "modules": ", ".join(_name_module(part) for part in model),
                "module_settings": _hash_settings(model),
                "tokens": hash_tokens(model, _PROBE),
                "max_tokens": self.max_tokens,
                "similarity": model.similarity_fn_name,
                "dimension": self.dimension,
                **{f"{side}_prompt": self.prompt(side) for side in PROMPT_NAMES},
            },
        )

    def with_query_prompt(self, prompt: str, name: str) -> SentenceTransformersEncoder:
        """Return this model with another query prompt, over the same weights.

        Parameters
        ----------
        name : what a user types to load it so.
        """
        other = copy.copy(self)
        other.name = name
        other._query_prompt = prompt
        settings = {**self._fingerprint.settings, "query_prompt": prompt}
        other._fingerprint = Fingerprint(name, settings)
        return other

    @property
    def dimension(self) -> int:
        """D, the length of every vector."""
        return int(self._model.get_embedding_dimension())

    @property
    def fingerprint(self) -> Fingerprint:
        """What decides the vectors: weights, modules, tokens, prompts, the longest input."""
        return self._fingerprint

    @property
    def max_tokens(self) -> int:
        """How many tokens of a text the model reads, prompt included."""
        most = self._model.max_seq_length
        return _NO_LIMIT if most is None else int(min(most, _NO_LIMIT))

    @property
    def normalized(self) -> bool:
        """Whether vectors have length 1."""
        ends_in_unit = type(self._model[-1]).__name__ == "Normalize"
        return self._normalizes or (ends_in_unit and self._model.truncate_dim is None)

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self._model.tokenizer

    @property
    def model(self) -> Any:
        """The SentenceTransformer itself."""
        return self._model

    @property
    def parameters(self) -> int:
        """How many numbers the model has learned."""
        return sum(parameter.numel() for parameter in self._model.parameters())

    @property
    def device(self) -> str:
        """Where the model computes."""
        return str(self._model.device)

    @property
    def dtype(self) -> str:
        """The type of its weights, such as "float32"."""
        return str(self._model.dtype or "float32").removeprefix("torch.")

    def encode_queries(self, texts: Sequence[str], *, progress: Progress = no_progress) -> Vectors:
        """Return float32 (N, D), one row per text in the order given, with the query prompt.

        Raises
        ------
        UsageError : ``texts`` is one string, or holds something that is not valid text.
        ModelError : the model gave NaN or infinity, or sentence-transformers itself fails.
        """
        return self._encode(self._model.encode_query, "query", texts, progress)

    def encode_documents(
        self, texts: Sequence[str], *, progress: Progress = no_progress
    ) -> Vectors:
        """Return float32 (N, D), as ``encode_queries`` but with the document prompt."""
        return self._encode(self._model.encode_document, "document", texts, progress)

    def count_tokens(self, texts: Sequence[str], role: str) -> tuple[list[int], list[bool]]:
        """Return how many tokens the model reads of each text, and whether it loses its end.

        Parameters
        ----------
        role : "query" or "document", whose prompt is counted too.
        """
        check_texts(texts)
        prompt = self.prompt(role)
        with self._lock:
            lengths = _count(self._counter, [prompt + text for text in texts])
        most = self.max_tokens
        return [min(length, most) for length in lengths], [length > most for length in lengths]

    def prompt(self, side: str) -> str:
        """Return what the model puts before a text of this side."""
        if side == "query" and self._query_prompt is not None:
            return self._query_prompt
        prompts: dict[str, str] = self._model.prompts or {}
        return next((prompts[name] for name in PROMPT_NAMES[side] if prompts.get(name)), "")

    def _encode(self, encode: Any, side: str, texts: Sequence[str], progress: Progress) -> Vectors:
        check_texts(texts)
        check_threads()
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        longest_first = np.argsort([-len(text) for text in texts], kind="stable")
        for start in range(0, len(texts), _CHUNK):
            rows = longest_first[start : start + _CHUNK]
            try:
                found = encode(
                    [texts[row] for row in rows],
                    prompt=self.prompt(side),
                    batch_size=_BATCH,
                    convert_to_tensor=True,
                    show_progress_bar=False,
                )
            except (IndexError, RuntimeError, TypeError, ValueError) as error:
                raise ModelError(
                    f"sentence-transformers fails to compute {self.name}: {error}"
                ) from error
            vectors[rows] = found.float().cpu().numpy()
            progress(len(rows))
        check_finite(vectors, texts, f"{self.name} in {self.dtype}")
        if self._normalizes:
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors /= np.maximum(lengths, 1e-12)
        return vectors


def find_document_prompt(shown: str, prompts: Mapping[str, str], notify: Notify) -> str:
    """Return the prompt of documents, "" for none, and say where it is called something else."""
    name = next((name for name in PROMPT_NAMES["document"] if prompts.get(name)), "document")
    if name != "document":
        notify(
            f"{shown} calls its prompt of documents {name!r}: {prompts[name]!r}. It is used here; "
            f"encode_document of sentence-transformers 6 leaves it out."
        )
    return prompts.get(name) or ""


def check_threads() -> None:
    """Raise UsageError where torch's threads were left behind by a fork; note that they work."""
    import torch

    check_fork("torch", torch.get_num_threads())


def _count(tokenizer: Any, texts: list[str]) -> list[int]:
    """Return how many tokens each text has, however long it is."""
    if not texts:
        return []
    if hasattr(tokenizer, "encode_batch"):  # of the tokenizers library, as StaticEmbedding has it
        tokenizer.no_truncation()
        return [len(one.ids) for one in tokenizer.encode_batch(texts, add_special_tokens=False)]
    rows = tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
    return [len(row) for row in rows]


def _name_module(module: Any) -> str:
    """Return the class of a module, and what a reader wants to know of it."""
    config = getattr(module, "config", None)
    told = getattr(config, "model_type", None) or getattr(module, "pooling_mode", None)
    return type(module).__name__ + (f" ({told})" if told else "")


def _hash_settings(model: Any) -> str:
    """Return one SHA-256 over what the configurations of modules say beyond their defaults."""
    settings = [_changed_settings(module) for module in model]
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()


def _changed_settings(module: Any) -> dict[str, Any]:
    """Return the settings of a module that are not its defaults, which libraries add to."""
    defaults = inspect.signature(type(module).__init__).parameters
    described: dict[str, Any] = getattr(module, "get_config_dict", dict)()
    changed = {
        key: value
        for key, value in described.items()
        if key != "modality_config" and not (key in defaults and defaults[key].default == value)
    }
    changed["do_lower_case"] = bool(getattr(module, "do_lower_case", False))
    config: Any = getattr(module, "config", None)
    if hasattr(config, "to_dict"):
        usual = type(config)().to_dict()
        changed["model"] = {
            key: value
            for key, value in config.to_dict().items()
            if key not in _IRRELEVANT and not (key in usual and usual[key] == value)
        }
    return changed


def hash_tokens(model: Any, probe: str | tuple[str, str]) -> str:
    """Return the SHA-256 of the token ids of a text, or of a pair; "" for a model without any."""
    ids = model.preprocess([probe]).get("input_ids")
    return "" if ids is None else hashlib.sha256(str(ids.flatten().tolist()).encode()).hexdigest()


def hash_weights(model: Any) -> str:
    """Return one SHA-256 over all weights, as float32 numbers, whatever type they have here."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if torch.is_floating_point(tensor):
            tensor = tensor.float()  # exact, and numpy has no bfloat16
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
