"""The encoder without torch, and the models that it can load."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from embedder.engine.text import TextTokenizer, check_finite, check_texts
from embedder.light.decoder import (
    Array,
    DecoderShape,
    FloatLinears,
    Int8Linears,
    LightDecoder,
    LowRank,
    Tensors,
)
from embedder.models.bases import BASES, converted_folder, file_sha256, is_converted, weights_sha256
from embedder.models.names import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    FORMAT_VERSION,
    MANIFEST_NAME,
    POOLING_WEIGHTS,
    WHOLE,
    SavedName,
    describe_model,
    find_saved_model,
    join_sha256,
)
from retrieval.protocols import Vectors
from retrieval.types import Fingerprint

_POOLINGS: Mapping[str, Callable[[Array], Array]] = {
    "eos": lambda states: states[-1],
    "mean": lambda states: states.mean(axis=0),
    "weighted_mean": lambda states: np.average(
        states, axis=0, weights=np.arange(1, len(states) + 1)
    ).astype(np.float32),
}
_CAUSAL = {"causal": True, "bidirectional": False}
_LORA_KEYS = {
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "fan_in_fan_out",
    "bias",
    "inference_mode",
}
_MODULE = "base_model.model."
_TOKENIZERS = {"GPT2Tokenizer", "PreTrainedTokenizer", "Qwen2Tokenizer", "TokenizersBackend"}
_TOKENIZER_OPTIONS = ("add_bos_token", "add_eos_token", "auto_map")


class LightEncoder:
    """Embeds texts one after another; meant for a handful.

    Attributes
    ----------
    dimension : D, the length of every vector.
    fingerprint : what decides the vectors; the Embedder's for the same model.
    trained : always True.
    """

    trained = True

    def __init__(
        self,
        spec: Mapping[str, Any],
        fingerprint: Fingerprint,
        decoder: LightDecoder,
        tokenizer: TextTokenizer,
        whitening: tuple[Array, Array] | None,
    ) -> None:
        self.fingerprint = fingerprint
        self.dimension = int(fingerprint.settings["dimension"])  # type: ignore[arg-type]
        self._spec = spec
        self._decoder = decoder
        self._tokenize = tokenizer
        self._whitening = whitening

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), one row per text in the order given, with the query prompt.

        Raises
        ------
        UsageError : ``texts`` is one string, or holds something that is not valid text.
        ModelError : the model gave NaN or infinity.
        """
        return self._encode(texts, self._spec["query_prompt"])

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), as ``encode_queries`` but with the document prompt."""
        return self._encode(texts, self._spec["document_prompt"])

    def _encode(self, texts: Sequence[str], prompt: str) -> Vectors:
        check_texts(texts)
        vectors = np.empty((len(texts), self.dimension), dtype=np.float32)
        for row, ids in enumerate(self._tokenize(texts, prompt)):
            vectors[row] = self._pool(self._decoder(ids))
        check_finite(vectors, texts, self.fingerprint.model)
        return vectors

    def _pool(self, states: Array) -> Array:
        vector = _POOLINGS[self._spec["pooling"]](states)
        if self._whitening is not None:
            mean, matrix = self._whitening
            vector = np.matmul(_to_length_1(vector) - mean, matrix, dtype=np.float32)
        vector = vector[: self.dimension]
        return _to_length_1(vector) if self._spec["normalize"] else vector


def load_light_encoder(model: str, *, is_int8: bool = False) -> LightEncoder | None:
    """Return the encoder of a saved model, None where torch is needed or something is wrong.

    ``Embedder.load`` then says what is wrong. With ``is_int8`` linear layers compute
    as those of speed "fast", on any CPU.

    Raises
    ------
    UnknownNameError, UsageError : the model's name has an option that does not exist.
    """
    found = find_saved_model(model)
    if found is None:
        return None
    try:
        return _load(found, is_int8)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _load(found: SavedName, is_int8: bool) -> LightEncoder | None:
    manifest = json.loads((found.folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    files, base = manifest["files"], manifest["base"]
    spec = {**manifest["spec"], **found.options}
    options = spec["pooling_options"]
    folder = _find_base(found.folder, spec["base"], manifest)
    if (
        manifest["format_version"] != FORMAT_VERSION
        or folder is None
        or spec["pooling"] not in _POOLINGS
        or set(options) - {"whiten"}
        or spec["chat_template"]
        or {"ending", "prompt_specials", "pool_prompt", "head"} & set(spec)
        or any(file_sha256(found.folder / name) != sha256 for name, sha256 in files.items())
    ):
        return None
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = DecoderShape.read(config, spec["base_layers"])
    lora = _read_lora(found.folder) if ADAPTER_WEIGHTS in files else LowRank({}, 0.0)
    dimension = spec["dimension"] or base["width"]
    if shape is None or lora is None or not 1 <= dimension <= shape.width:
        return None
    if shape.window is not None and shape.window < spec["max_tokens"]:
        return None
    whitening = None
    if options.get("whiten"):
        tensors = Tensors(found.folder / POOLING_WEIGHTS)
        whitening = (tensors["mean"], tensors["matrix"])
    weights = Tensors(*sorted(folder.glob("*.safetensors")))
    linears = (
        Int8Linears(weights, lora, shape.head_width) if is_int8 else FloatLinears(weights, lora)
    )
    return LightEncoder(
        spec,
        describe_model(
            found.name,
            spec,
            weights=manifest["whole_sha256"] or base["identity"],
            dimension=dimension,
            trained_sha256=join_sha256(files),
            is_int8=is_int8,
        ),
        LightDecoder(shape, weights, linears, causal=_CAUSAL[spec["attention"]]),
        TextTokenizer(
            _read_tokenizer(folder),
            max_tokens=spec["max_tokens"],
            lowercase=spec.get("lowercase", False),
        ),
        whitening,
    )


def _find_base(model: Path, base: str, manifest: Mapping[str, Any]) -> Path | None:
    """Return the folder of the weights that a saved model was trained on, None for another."""
    identity = manifest["base"]["identity"]
    if base == WHOLE:
        return model if weights_sha256(model) == manifest["whole_sha256"] else None
    if base in BASES:
        known = BASES[base].gguf_sha256
        return converted_folder(known) if known == identity and is_converted(known) else None
    folder = Path(base).expanduser()
    same = folder.is_dir() and weights_sha256(folder) == identity
    return folder if same and not (folder / MANIFEST_NAME).exists() else None


def _read_lora(folder: Path) -> LowRank | None:
    """Return the adapter, None where it is more than plain LoRA."""
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if set(config) - _LORA_KEYS or config["fan_in_fan_out"] or config["bias"] != "none":
        return None
    tensors = Tensors(folder / ADAPTER_WEIGHTS)
    names = {name.removeprefix(_MODULE).rsplit(".lora_", 1)[0] for name in tensors}
    return LowRank(
        {
            name: (
                tensors[f"{_MODULE}{name}.lora_A.weight"],
                tensors[f"{_MODULE}{name}.lora_B.weight"],
            )
            for name in names
        },
        config["lora_alpha"] / config["r"],
    )


def _read_tokenizer(folder: Path) -> Any:
    """Return what TextTokenizer reads of a transformers tokenizer, or raise ValueError."""
    from tokenizers import Tokenizer

    named = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if str(named["tokenizer_class"]).removesuffix("Fast") not in _TOKENIZERS or any(
        named.get(option) for option in _TOKENIZER_OPTIONS
    ):
        raise ValueError(f"{named['tokenizer_class']} may change what tokenizer.json has")
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer = _LightTokenizer(backend)
    for name in ("eos_token", "pad_token"):
        token = named.get(name)
        text = token["content"] if isinstance(token, dict) else token
        setattr(tokenizer, f"{name}_id", None if text is None else backend.token_to_id(text))
    return tokenizer


class _LightTokenizer(SimpleNamespace):
    """The few members of a transformers tokenizer that TextTokenizer uses."""

    def __init__(self, backend: Any) -> None:
        super().__init__(backend_tokenizer=backend)

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": list(self.backend_tokenizer.encode(text).ids)}


def _to_length_1(vector: Array) -> Array:
    length = max(float(np.linalg.norm(vector)), 1e-12)
    return (vector / length).astype(np.float32, copy=False)
