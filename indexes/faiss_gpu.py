"""FAISS on GPUs, where the installed faiss has them: training, adding and unfiltered search."""

from __future__ import annotations

from types import ModuleType
from typing import Any

__all__ = ["MOST_CANDIDATES", "copy_to_gpus", "from_gpus"]

MOST_CANDIDATES = 2048
"""A GPU search returns no more than this for a query."""


def copy_to_gpus(faiss: ModuleType, index: Any) -> Any | None:
    """Return a copy of the index on all GPUs; None without a GPU, or for a kind that stays on CPUs.

    FAISS has Flat, IVF and a few more kinds on GPUs, and no HNSW. A copy that does not fit into
    the GPUs' memory is no error: the index is searched where it is.
    """
    if getattr(faiss, "get_num_gpus", int)() == 0:
        return None
    try:
        return faiss.index_cpu_to_all_gpus(index)
    except RuntimeError:
        return None


def from_gpus(faiss: ModuleType, index: Any) -> Any:
    """Return what ``copy_to_gpus`` made as an index of the CPU."""
    return faiss.index_gpu_to_cpu(index)
