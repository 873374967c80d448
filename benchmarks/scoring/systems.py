"""What a benchmark scores beside plain models: hybrid search, and reranking.

::

    hybrid:MODEL            both arms, convex, with the default weight
    hybrid=0.4:MODEL        with the dense arm's share
    hybrid=rrf:MODEL        by reciprocal ranks
    MODEL>RERANKER          the hits of any of these read again by a CrossEncoder
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.scoring.bm25 import BM25_NAME
from embedder.models.names import is_folder
from retrieval.errors import UsageError
from retrieval.protocols import Notify
from retrieval.types import DEFAULT_WEIGHT, Blend

if TYPE_CHECKING:
    from benchmarks.scoring.models import LoadedModel

_HYBRID = re.compile(r"hybrid(?:=(?P<how>[^:]*))?:(?P<model>.+)", re.DOTALL)
_BEGUN = re.compile(r"hybrid(?:[=:].*)?", re.DOTALL)
_EXPECTED = "expected hybrid:MODEL, hybrid=0.4:MODEL or hybrid=rrf:MODEL"
_READS_AGAIN = ">"


@dataclass(frozen=True)
class System:
    """A model, and what a search does beside comparing its vectors.

    Attributes
    ----------
    model : a model's name, or "bm25".
    blend : of both arms; None for the model alone.
    reranker : the name of the CrossEncoder that reads the hits again; None for none.
    """

    model: str
    blend: Blend | None = None
    reranker: str | None = None

    @property
    def only_retrieves(self) -> bool:
        """Whether it does nothing on tasks of other types."""
        return self.model == BM25_NAME or self.blend is not None or self.reranker is not None

    def complete(
        self, loaded: LoadedModel, device: str | None, notify: Notify, *, trust_remote_code: bool
    ) -> LoadedModel:
        """Return the loaded model with its blend, and the reranker loaded too.

        Raises
        ------
        MillpondError : as ``load_reranker``.
        """
        loaded = replace(loaded, blend=self.blend)
        if self.reranker is None:
            return loaded
        from embedder.models.sentence_transformers import load_reranker

        reranker = load_reranker(self.reranker, device, notify, trust_remote_code=trust_remote_code)
        # What files hold a reranker is not looked up, so its results are not known by name.
        return replace(loaded, reranker=reranker, sources=None)


def parse_system(name: str) -> System:
    """Return what a name means; every name of a model means that model alone.

    Raises
    ------
    UsageError : a weight is no number from 0 to 1, bm25 is to be fused or read again, or there is
        no model, or more than one blend or reranker.
    """
    if is_folder(name):
        return System(name)
    searched, sign, reranker = name.partition(_READS_AGAIN)
    if sign and (not (searched and reranker) or _READS_AGAIN in reranker):
        raise UsageError(
            f"{name!r} arrived; expected MODEL{_READS_AGAIN}RERANKER, with one reranker."
        )
    found = _HYBRID.fullmatch(searched)
    model = found["model"] if found else searched
    blend = _parse_blend(name, found["how"]) if found else None
    if model == BM25_NAME and (found or sign):
        raise UsageError(
            f"{name!r} arrived, and bm25 is one of the two arms already. Name a model in its "
            f"place: hybrid:MODEL; hybrid=0:MODEL ranks by BM25."
        )
    if _BEGUN.fullmatch(model) and not is_folder(model):
        raise UsageError(f"{name!r} arrived; {_EXPECTED}, with the name of one model.")
    return System(model, blend, reranker or None)


def _parse_blend(name: str, how: str | None) -> Blend:
    if how == "rrf":
        return Blend("hybrid", "rrf")
    try:
        weight = DEFAULT_WEIGHT if how is None else float(how)
    except ValueError:
        raise UsageError(f"{name!r} arrived; {_EXPECTED}.") from None
    return Blend("hybrid", "convex", weight)
