"""Vector stores: write a corpus into a folder, open the folder, search it."""

from indexes.folder import check_target
from indexes.manifest import FileEntry, Manifest, read_manifest
from indexes.opening import open_index, verify_index
from indexes.registry import list_backends
from indexes.write import WriteConfig, write_corpus

__all__ = [
    "open_index",
    "verify_index",
    "write_corpus",
    "WriteConfig",
    "check_target",
    "read_manifest",
    "Manifest",
    "FileEntry",
    "list_backends",
]
