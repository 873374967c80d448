"""Vector stores: write a corpus into a folder, change it, open the folder, search it."""

from indexes.backends.registry import list_backends
from indexes.change import Change, ChangeConfig
from indexes.changing import add_documents, update_documents
from indexes.compaction import compact_index, reindex
from indexes.deleting import delete_documents
from indexes.folder import check_target
from indexes.index import StoredIndex
from indexes.opening import open_index, verify_index
from indexes.storage.manifest import FileEntry, Manifest, read_manifest
from indexes.write import WriteConfig, write_corpus

__all__ = [
    "open_index",
    "verify_index",
    "StoredIndex",
    "write_corpus",
    "WriteConfig",
    "add_documents",
    "update_documents",
    "delete_documents",
    "compact_index",
    "reindex",
    "Change",
    "ChangeConfig",
    "check_target",
    "read_manifest",
    "Manifest",
    "FileEntry",
    "list_backends",
]
