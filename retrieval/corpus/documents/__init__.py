"""Files that are documents: one reader for each format, and headings and pages as sections."""

from retrieval.corpus.documents.registry import FORMATS, available, find_format, lacking

__all__ = ["FORMATS", "available", "find_format", "lacking"]
