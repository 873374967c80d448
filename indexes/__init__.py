"""Vector stores: write a corpus into a folder, change it, open the folder, search it."""

from indexes.backends.registry import list_backends
from indexes.changes import Change
from indexes.index import Index
from indexes.storage.files import FileEntry
from indexes.storage.manifest import Manifest, read_manifest
from indexes.transaction import check_target
from indexes.writing import IndexConfig

__all__ = [
    "Index",
    "IndexConfig",
    "Change",
    "check_target",
    "read_manifest",
    "Manifest",
    "FileEntry",
    "list_backends",
]
