"""The names of a MODEL_DIR's files, and what they say together. Imports neither torch nor numpy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "POOLING_WEIGHTS",
    "is_saved_model",
    "join_sha256",
]

FORMAT_VERSION = 1
MANIFEST_NAME = "millpond.json"
ADAPTER_CONFIG = "adapter/adapter_config.json"
ADAPTER_WEIGHTS = "adapter/adapter_model.safetensors"
POOLING_WEIGHTS = "pooling.safetensors"


def is_saved_model(name: Path | str) -> bool:
    """Whether this is a folder that holds a model that millpond saved; any text may be asked."""
    try:
        return (Path(name).expanduser() / MANIFEST_NAME).is_file()
    except (OSError, ValueError, RuntimeError):  # a name too long, or with "~nobody", is no path
        return False


def join_sha256(files: Mapping[str, str]) -> str:
    """Return one SHA-256 over the names and SHA-256s of the files with trained weights."""
    listed = json.dumps(dict(files), sort_keys=True)
    return hashlib.sha256(listed.encode()).hexdigest()
