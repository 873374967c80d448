"""Tensors of a safetensors file as numpy arrays, read when they are used."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "TensorFile"]

Array: TypeAlias = npt.NDArray[np.float32]

_LONGEST_HEADER = 100_000_000  # what the format allows
_KINDS = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


class TensorFile(Mapping[str, Array]):
    """The tensors of one file by name, float32, of any shape.

    The file is mapped, not read: float32 tensors are views that cost no memory of their own.

    Raises
    ------
    ValueError, OSError, KeyError : it is no safetensors file of float32, float16 or bfloat16.
    """

    def __init__(self, path: Path) -> None:
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r")
        size = int.from_bytes(self._bytes[:8].tobytes(), "little")
        if size > min(_LONGEST_HEADER, len(self._bytes) - 8):
            raise ValueError(f"{path} is cut short, or no safetensors file")
        header = json.loads(self._bytes[8 : 8 + size].tobytes())
        header.pop("__metadata__", None)
        self._start = 8 + size
        self._header: dict[str, Any] = header

    def __getitem__(self, name: str) -> Array:
        entry = self._header[name]
        first, last = entry["data_offsets"]
        kind = _KINDS[entry["dtype"]]
        raw: Any = self._bytes[self._start + first : self._start + last].view(kind)
        if entry["dtype"] == "BF16":  # the upper half of a float32
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        found: Array = raw.astype(np.float32, copy=False).reshape(entry["shape"])
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._header)

    def __len__(self) -> int:
        return len(self._header)
