"""Streaming readers for documents and queries; see ``read_corpus`` for what is accepted."""

from retrieval.corpus.reading import Corpus, Queries, read_corpus, read_queries

__all__ = ["Corpus", "Queries", "read_corpus", "read_queries"]
