"""One import for users: ``import millpond``, then ``millpond.Index``, ``millpond.Retriever``, ...

It is cheap: what a name needs (torch, faiss) is imported when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.scoring.runner import run_benchmark
    from benchmarks.significance.compare import compare
    from embedder.embedder import Embedder
    from embedder.training.trainer import train
    from embedder.variants import VariantSpec, list_variants
    from indexes.index import Index
    from retrieval.corpus import read_corpus
    from retrieval.errors import (
        AttentionProbeError,
        DownloadError,
        DuplicateIdError,
        EmptyCorpusError,
        EndpointError,
        FailureError,
        FingerprintError,
        IndexCorruptError,
        IndexExistsError,
        MillpondError,
        MissingDependencyError,
        ModelError,
        RecordError,
        SourceNotFoundError,
        StorageError,
        UnknownNameError,
        UsageError,
        VectorError,
    )
    from retrieval.filters import parse_filter
    from retrieval.retriever import Retriever
    from retrieval.types import Document, Hit, Query

    __version__: str

__all__ = [
    "Embedder",
    "VariantSpec",
    "list_variants",
    "train",
    "Index",
    "Retriever",
    "read_corpus",
    "Document",
    "Query",
    "Hit",
    "parse_filter",
    "run_benchmark",
    "compare",
    "AttentionProbeError",
    "DownloadError",
    "DuplicateIdError",
    "EmptyCorpusError",
    "EndpointError",
    "FailureError",
    "FingerprintError",
    "IndexCorruptError",
    "IndexExistsError",
    "MillpondError",
    "MissingDependencyError",
    "ModelError",
    "RecordError",
    "SourceNotFoundError",
    "StorageError",
    "UnknownNameError",
    "UsageError",
    "VectorError",
    "__version__",
]

_HOMES = {
    "Embedder": "embedder.embedder",
    "VariantSpec": "embedder.variants",
    "list_variants": "embedder.variants",
    "train": "embedder.training.trainer",
    "Index": "indexes.index",
    "Retriever": "retrieval.retriever",
    "read_corpus": "retrieval.corpus",
    "Document": "retrieval.types",
    "Query": "retrieval.types",
    "Hit": "retrieval.types",
    "parse_filter": "retrieval.filters",
    "run_benchmark": "benchmarks.scoring.runner",
    "compare": "benchmarks.significance.compare",
}
"""Where each name lives; an error class, in ``retrieval.errors``."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'millpond' has no attribute {name!r}")
    if name == "__version__":
        from indexes.storage.manifest import millpond_version

        return millpond_version()
    return getattr(importlib.import_module(_HOMES.get(name, "retrieval.errors")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
