"""The vocabulary that every other package shares. Imports neither torch nor faiss.

``import retrieval`` is cheap: numpy is imported when a name is first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from retrieval.corpus import Corpus, read_corpus, read_queries
    from retrieval.errors import MillpondError
    from retrieval.protocols import Encoder, Progress, VectorIndex, Vectors
    from retrieval.types import Document, Fingerprint, Hit, Query, Scalar, check_fingerprints

__all__ = [
    "Document",
    "Query",
    "Hit",
    "Scalar",
    "Corpus",
    "read_corpus",
    "read_queries",
    "Encoder",
    "VectorIndex",
    "Vectors",
    "Progress",
    "Fingerprint",
    "check_fingerprints",
    "MillpondError",
]


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package, given the module of each public name.

    A module is imported when one of its names is first used.
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return find, lambda: sorted(homes)


__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **dict.fromkeys(("Corpus", "read_corpus", "read_queries"), "retrieval.corpus"),
        **dict.fromkeys(("Encoder", "Progress", "VectorIndex", "Vectors"), "retrieval.protocols"),
        **dict.fromkeys(("Document", "Fingerprint", "Hit", "Query", "Scalar"), "retrieval.types"),
        "check_fingerprints": "retrieval.types",
        "MillpondError": "retrieval.errors",
    },
)
