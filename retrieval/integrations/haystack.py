"""A Haystack component over an index; needs ``haystack-ai``."""

from __future__ import annotations

from typing import Any, Self

from haystack import Document, component, default_from_dict, default_to_dict

from retrieval.integrations.hits import describe, find
from retrieval.retriever import Retriever


@component
class MillpondRetriever:
    """Finds the documents, or passages, of an index for a pipeline of Haystack.

    The model is loaded when the pipeline warms up, or by the first query. The meta of a document
    are the metadata of the hit with ``doc_id`` and ``title``, and of a passage ``start`` and
    ``stop``; two passages have two ids.

    Parameters
    ----------
    index : the folder, or several that are searched as one.
    top_k : how many documents are returned.
    where : a filter, as ``millpond search`` reads it.
    mode : "hybrid", "dense" or "lexical"; by default the best that the index offers.
    distinct : whether of documents that are nearly the same only the best is returned.
    device : "cuda", "mps" or "cpu"; the best there is by default.
    """

    def __init__(
        self,
        index: str | list[str],
        top_k: int = 10,
        where: str | None = None,
        mode: str | None = None,
        distinct: bool = False,
        device: str | None = None,
    ) -> None:
        self.index, self.top_k, self.where = index, top_k, where
        self.mode, self.distinct, self.device = mode, distinct, device
        self._retriever: Retriever | None = None

    def warm_up(self) -> None:
        """Open the index and load the model that made it; raises as ``Retriever.open``."""
        if self._retriever is None:
            self._retriever = Retriever.open(self.index, device=self.device, mode=self.mode)

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, top_k: int | None = None, where: str | None = None
    ) -> dict[str, list[Document]]:
        """Return the documents that answer a query best, in ``documents``.

        ``top_k`` and ``where`` replace those of the component.
        """
        self.warm_up()
        assert self._retriever is not None
        hits = find(
            self._retriever,
            query,
            top_k or self.top_k,
            where or self.where,
            self.mode,
            self.distinct,
        )
        documents = []
        for hit in hits:
            meta = describe(hit)
            meta.pop("score")
            documents.append(Document(content=hit.text, meta=meta, score=hit.score))
        return {"documents": documents}

    def to_dict(self) -> dict[str, Any]:
        """Return what a pipeline keeps of the component in YAML."""
        found: dict[str, Any] = default_to_dict(
            self,
            index=self.index,
            top_k=self.top_k,
            where=self.where,
            mode=self.mode,
            distinct=self.distinct,
            device=self.device,
        )
        return found

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return the component that ``to_dict`` described."""
        found: Self = default_from_dict(cls, data)
        return found
