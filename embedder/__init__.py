"""Trains and serves every pooling x attention variant of a decoder as a text embedder.

``import embedder`` is cheap: torch is imported when a name is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval import lazy_names

if TYPE_CHECKING:
    from embedder.embedder import Embedder
    from embedder.loading import load_encoder
    from embedder.models.bases import BaseModel, cache_folder, list_bases
    from embedder.models.names import DEFAULT_MODEL
    from embedder.variants import Variant, VariantSpec, get_variant, list_variants

__all__ = [
    "Embedder",
    "VariantSpec",
    "Variant",
    "BaseModel",
    "DEFAULT_MODEL",
    "get_variant",
    "list_variants",
    "list_bases",
    "cache_folder",
    "load_encoder",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Embedder": "embedder.embedder",
        "load_encoder": "embedder.loading",
        "DEFAULT_MODEL": "embedder.models.names",
        "VariantSpec": "embedder.variants",
        "Variant": "embedder.variants",
        "get_variant": "embedder.variants",
        "list_variants": "embedder.variants",
        "BaseModel": "embedder.models.bases",
        "list_bases": "embedder.models.bases",
        "cache_folder": "embedder.models.bases",
    },
)
