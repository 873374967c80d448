"""Models that share a forward pass.

Variants of one base with one attention read the same states, so texts go through the base once.
What the pass gave for the other models waits in the cache until they ask for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.scoring.bm25 import BM25_NAME
from benchmarks.scoring.models import LoadedModel, wrap_embedder
from embedder.models.names import PREFIX
from retrieval import Vectors
from retrieval.errors import MillpondError
from retrieval.protocols import silent

if TYPE_CHECKING:
    from embedder.variants import VariantSpec


def find_sharers(models: Sequence[str]) -> dict[str, list[str]]:
    """Return, for each model, the others that can be computed in the same forward pass.

    Trained models have weights of their own and share with none; nor do names that say nothing.
    """
    from embedder.engine.shared_pass import can_share

    specs = {name: spec for name in models if (spec := _untrained_spec(name)) is not None}
    return {
        name: [
            other
            for other, theirs in specs.items()
            if other != name and name in specs and can_share(specs[name], theirs)
        ]
        for name in models
    }


def _untrained_spec(name: str) -> VariantSpec | None:
    from embedder.models.names import find_saved_model
    from embedder.models.published import resolve_name

    if name == BM25_NAME or name.startswith(PREFIX):
        return None
    try:
        if find_saved_model(name) is not None:
            return None
        named = resolve_name(name, silent)
        return None if named.published_name else named.spec
    except MillpondError:  # told to the user when the model is loaded
        return None


def load_sharer(name: str, loaded: LoadedModel) -> LoadedModel:
    """Return the model called ``name`` over the base that ``loaded`` holds already.

    Raises
    ------
    MillpondError : as loading it by itself.
    """
    from embedder import Embedder

    assert isinstance(loaded.encoder, Embedder)
    spec = _untrained_spec(name)
    assert spec is not None
    first = loaded.encoder
    sharer = Embedder(spec, first.backbone, batch_tokens=first.batch_tokens)
    sharer.is_int8 = first.is_int8  # the layers, which both have
    return wrap_embedder(name, sharer)


def encode_shared(model: LoadedModel, side: str, texts: Sequence[str]) -> list[Vectors]:
    """Return float32 (N, D) of ``model`` and then of each of its sharers, in one pass.

    Raises
    ------
    UsageError, ModelError : as ``Embedder.encode_queries``.
    """
    from embedder import Embedder
    from embedder.engine.shared_pass import encode_together

    encoders = [one.encoder for one in (model, *model.sharers)]
    embedders = [encoder for encoder in encoders if isinstance(encoder, Embedder)]
    return encode_together(embedders, texts, "query" if side == "query" else "document")
