"""Sources that are not files of this machine: addresses, data sets of a hub, databases."""

from retrieval.corpus.remote.addresses import RemoteFile, find_remote, hide_password, is_address
from retrieval.corpus.remote.databases import describe_database, sql_rows
from retrieval.corpus.remote.datasets import dataset_name, dataset_rows

__all__ = [
    "RemoteFile",
    "dataset_name",
    "dataset_rows",
    "describe_database",
    "find_remote",
    "hide_password",
    "is_address",
    "sql_rows",
]
