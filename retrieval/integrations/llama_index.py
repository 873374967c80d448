"""A LlamaIndex retriever over an index; needs ``llama-index-core``."""

from __future__ import annotations

from llama_index.core.callbacks import CallbackManager
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from retrieval.integrations.hits import describe, find
from retrieval.retriever import Retriever


class MillpondRetriever(BaseRetriever):
    """Finds the documents, or passages, of an index; ``retrieve`` as in LlamaIndex.

    The metadata of a node are those of the hit with ``doc_id``, ``title`` and ``score``, and of a
    passage ``start`` and ``stop``. No model reads or embeds them.

    Parameters
    ----------
    retriever : an opened index with its model.
    k : how many nodes are returned.
    where : a filter, as ``millpond search`` reads it.
    mode : "hybrid", "dense" or "lexical"; by default the best that the index offers.
    distinct : whether of documents that are nearly the same only the best is returned.
    callback_manager : of LlamaIndex.
    """

    def __init__(
        self,
        retriever: Retriever,
        k: int = 10,
        *,
        where: str | None = None,
        mode: str | None = None,
        distinct: bool = False,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        super().__init__(callback_manager=callback_manager)
        self._search = retriever
        self._choices = (k, where, mode, distinct)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = find(self._search, query_bundle.query_str, *self._choices)
        nodes = []
        for hit in hits:
            facts = describe(hit)
            node = TextNode(text=hit.text, metadata=facts, excluded_embed_metadata_keys=[*facts])
            nodes.append(NodeWithScore(node=node, score=hit.score))
        return nodes
