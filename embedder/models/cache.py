"""Where millpond keeps what it downloads and converts."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

__all__ = [
    "cache_folder",
    "converted_folder",
    "file_sha256",
    "is_converted",
    "keep",
    "weights_sha256",
]

_READ_BYTES = 1 << 20


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/millpond``, else the platform's cache folder; may not exist yet."""
    if configured := os.environ.get("XDG_CACHE_HOME"):
        return Path(configured) / "millpond"
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "millpond"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "millpond"
    return Path.home() / ".cache" / "millpond"


def converted_folder(identity: str) -> Path:
    """Return the folder of the safetensors made from the GGUF with this SHA-256."""
    return cache_folder() / "bases" / identity[:32]


def is_converted(identity: str) -> bool:
    """Whether that folder is complete; it is renamed into place only when it is."""
    return (converted_folder(identity) / "config.json").is_file()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def weights_sha256(folder: Path) -> str:
    """Return one SHA-256 over all ``*.safetensors`` files and ``config.json`` of a folder.

    Hashing gigabytes takes seconds, so the answer is remembered in the cache folder under each
    file's path, size and modification time.
    """
    files = sorted([*folder.glob("*.safetensors"), folder / "config.json"])
    stamps = [(path.resolve(), path.stat()) for path in files if path.is_file()]
    key = hashlib.sha256(
        repr([(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stamps]).encode()
    ).hexdigest()
    memory = cache_folder() / "weights-sha256" / f"{key}.json"
    try:
        return str(json.loads(memory.read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    digest = hashlib.sha256()
    for path, _ in stamps:
        digest.update(f"{path.name}:{file_sha256(path)}\n".encode())
    keep(memory, json.dumps({"sha256": digest.hexdigest()}).encode())
    return digest.hexdigest()


def keep(path: Path, content: bytes) -> None:
    """Write a file into the cache folder, whole or not at all; a failure costs only time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        beside.write_bytes(content)
        beside.replace(path)
    except OSError:
        return
