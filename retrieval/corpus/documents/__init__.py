"""Files that are documents: one reader for each format, and headings and pages as sections."""

from retrieval.corpus.documents.registry import (
    EXTRA,
    FORMATS,
    DocumentFile,
    available,
    file_rows,
    find_format,
    lacking,
)

__all__ = [
    "EXTRA",
    "FORMATS",
    "DocumentFile",
    "available",
    "file_rows",
    "find_format",
    "lacking",
]
