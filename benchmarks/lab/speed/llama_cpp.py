"""The plain base in llama.cpp, if that is installed: the same weights in its own formats."""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from embedder import Embedder
from embedder.export import export_model
from embedder.export.gguf import GGUF
from retrieval.errors import ModelError, UsageError
from retrieval.protocols import Vectors

__all__ = ["FORMATS", "LlamaCppEncoder", "has_llama_cpp", "write_gguf"]

FORMATS = ("F32", "Q8_0", "Q4_0")
"""The formats of weights that are compared, by llama.cpp's names."""

_BATCH_TOKENS = 512


def has_llama_cpp() -> bool:
    """Whether the package ``llama-cpp-python`` is installed."""
    return importlib.util.find_spec("llama_cpp") is not None


class LlamaCppEncoder:
    """Texts one after another in batches of 512 tokens without padding, as ``Llama.embed`` does.

    It takes as many threads as torch does.

    Parameters
    ----------
    folder : what ``write_gguf`` wrote to; the quantised file is kept beside it.
    form : one of ``FORMATS``.
    lowercase : whether texts are read in lower case, which a GGUF file cannot say.
    """

    def __init__(self, folder: Path, max_tokens: int, form: str, *, lowercase: bool) -> None:
        library: Any = importlib.import_module("llama_cpp")
        path = folder / f"{form}.gguf"
        if not path.exists():
            _quantise(library, folder / "F32.gguf", path, form)
        self._lowercase = lowercase
        self._max_tokens = max_tokens
        threads = torch.get_num_threads()
        self._model = library.Llama(
            str(path),
            embedding=True,
            pooling_type=library.LLAMA_POOLING_TYPE_MEAN,
            n_ctx=_BATCH_TOKENS,
            n_batch=_BATCH_TOKENS,
            n_ubatch=_BATCH_TOKENS,
            n_threads=threads,
            n_threads_batch=threads,
            flash_attn=True,
            verbose=False,
        )
        atexit.register(self._model.close)  # later, the functions it calls would be gone

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows of length 1."""
        found = self._model.embed([self._read(text) for text in texts], normalize=True)
        return np.asarray(found, dtype=np.float32)

    def _read(self, text: str) -> str:
        """Return the text, cut to the tokens that the others see."""
        text = text.lower() if self._lowercase else text
        ids = self._model.tokenize(text.encode(), add_bos=False)
        if len(ids) < self._max_tokens:
            return text
        kept: bytes = self._model.detokenize(ids[: self._max_tokens - 1])
        return kept.decode(errors="ignore")


def write_gguf(folder: Path) -> None:
    """Write a plain Llama base as F32.gguf into its own folder.

    Raises
    ------
    ModelError : the base is no Llama with a byte-level BPE that llama.cpp knows, or its BPE merges
        nothing.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    tokens = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "llama" or not tokens["model"].get("merges"):
        raise ModelError(f"{folder} is no Llama with a byte-level BPE, so llama.cpp is left out.")
    base = Embedder.load(f"{folder}:mean+causal", device="cpu")
    base.backbone.tokenizer.backend_tokenizer.normalizer = None  # lower case is ``encode``'s
    with TemporaryDirectory(dir=folder) as beside:
        try:
            export_model(base, "gguf", Path(beside) / "out")
        except UsageError as error:
            raise ModelError(f"llama.cpp is left out: {error}") from error
        (Path(beside) / "out" / GGUF).replace(folder / "F32.gguf")


def _quantise(library: Any, source: Path, target: Path, form: str) -> None:
    settings = library.llama_model_quantize_default_params()
    settings.ftype = getattr(library, f"LLAMA_FTYPE_MOSTLY_{form}")
    settings.nthread = torch.get_num_threads()
    code = library.llama_model_quantize(str(source).encode(), str(target).encode(), settings)
    if code != 0:
        raise ModelError(f"llama.cpp could not write {target} (code {code}).")
