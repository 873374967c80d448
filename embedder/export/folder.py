"""Writes the folder of an exported model, which appears whole, checked, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from embedder.embedder import Embedder
from embedder.export.framing import Framing, frame_texts
from embedder.export.gguf import write_gguf
from embedder.export.onnx import write_onnx
from embedder.models.saving import check_new_folder, new_folder
from retrieval.errors import UnknownNameError, UsageError
from retrieval.protocols import Notify, silent

CONFIG = "embedding.json"
"""What a client has to know: prompts, the longest input, the vectors' length."""

FORMATS: dict[str, Callable[[Embedder, Framing, Path, Notify], None]] = {
    "onnx": write_onnx,
    "gguf": write_gguf,
}


def export_model(embedder: Embedder, format: str, out: Path, notify: Notify = silent) -> None:
    """Write the model and, beside it, ``embedding.json`` for its clients.

    Parameters
    ----------
    embedder : on a CPU in float32, its LoRA folded in.
    format : one of ``FORMATS``.
    out : a new or an empty folder.

    Raises
    ------
    UnknownNameError : no such format.
    UsageError : the format cannot represent the model; names what of it.
    MissingDependencyError : the extra ``export`` is not installed.
    ModelError : what was written does not give the model's vectors; nothing is left behind.
    StorageError : the disk is full or not writable.
    """
    if format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS)
    if embedder.speed == "fast" or embedder.device.type != "cpu":
        raise UsageError("A model is exported from a CPU at speed exact; load it so.")
    check_new_folder(out)
    framing = frame_texts(embedder)
    spec = embedder.spec
    with new_folder(out) as beside:
        FORMATS[format](embedder, framing, beside, notify)
        described = {
            "model": embedder.name,
            "fingerprint": embedder.fingerprint.digest,
            "dimension": embedder.dimension,
            "normalized": spec.normalize,
            "max_tokens": spec.max_tokens,
            **framing.prompts,
        }
        text = json.dumps(described, indent=1, ensure_ascii=False) + "\n"
        (beside / CONFIG).write_text(text, encoding="utf-8", newline="\n")
