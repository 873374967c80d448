"""A LangChain retriever over an index; needs ``langchain-core``."""

from __future__ import annotations

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict

from retrieval.integrations.hits import describe, find
from retrieval.retriever import Retriever


class MillpondRetriever(BaseRetriever):
    """Finds the documents, or passages, of an index; ``invoke`` and ``ainvoke`` as in LangChain.

    The metadata of a document are those of the hit with ``doc_id``, ``title`` and ``score``, and
    of a passage ``start`` and ``stop``.

    Attributes
    ----------
    retriever : an opened index with its model.
    k : how many documents are returned.
    where : a filter, as ``millpond search`` reads it.
    mode : "hybrid", "dense" or "lexical"; by default the best that the index offers.
    distinct : whether of documents that are nearly the same only the best is returned.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    retriever: Retriever
    k: int = 10
    where: str | None = None
    mode: str | None = None
    distinct: bool = False

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        hits = find(self.retriever, query, self.k, self.where, self.mode, self.distinct)
        return [
            Document(page_content=hit.text, id=hit.doc_id, metadata=describe(hit)) for hit in hits
        ]
