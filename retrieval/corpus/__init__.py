"""Streaming readers for documents and queries; ``read_corpus`` lists the formats."""

from retrieval.corpus.reading import Corpus, Queries, read_corpus, read_queries

__all__ = ["Corpus", "Queries", "read_corpus", "read_queries"]
