"""Files that are documents: one reader for each format, and headings and pages as sections."""

from retrieval.corpus.documents.registry import FORMATS

__all__ = ["FORMATS"]
