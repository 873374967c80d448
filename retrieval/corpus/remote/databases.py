"""The records that a query finds in SQLite, DuckDB or PostgreSQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Any

from retrieval.corpus.records import check_distinct
from retrieval.corpus.remote.addresses import EXTRA, hide_password
from retrieval.corpus.values import Row
from retrieval.errors import FailureError, MissingDependencyError, UsageError

__all__ = ["describe_database", "sql_rows"]

_SERVERS = ("postgresql://", "postgres://")
_TOGETHER = 1000


def describe_database(path: Path) -> str:
    """Return "SQLite" or "DuckDB" for a file that is such a database, "" for any other."""
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
    except OSError:
        return ""
    if head == b"SQLite format 3\0":
        return "SQLite"
    return "DuckDB" if head[8:12] == b"DUCK" else ""


def sql_rows(name: str, query: str) -> Iterator[Row]:
    """Yield the records that a query finds, a thousand at a time in memory.

    Parameters
    ----------
    name : a file of SQLite or DuckDB, which is opened to be read only, or a ``postgresql://``
        address, whose transaction is never committed.

    Raises
    ------
    UsageError : it is no database, or refuses the query.
    FailureError : it cannot be reached, or fails while it is read.
    MissingDependencyError : what reads it is not installed.
    RecordError : two columns have the same name.
    """
    shown = hide_password(name)
    with closing(_connect(name)) as connection, closing(connection.cursor()) as cursor:
        try:
            cursor.execute(query)
        except Exception as error:  # each driver has errors of its own
            raise UsageError(f"{shown}: the query fails ({_reason(error)}).") from None
        if cursor.description is None:
            raise UsageError(f"{shown}: the query finds no records; expected a SELECT.")
        columns = [column[0] for column in cursor.description]
        check_distinct(shown, None, columns)
        number = 0
        while True:
            try:
                rows = cursor.fetchmany(_TOGETHER)
            except Exception as error:
                raise FailureError(
                    f"{shown}: the query fails after record {number:,} ({_reason(error)})."
                ) from None
            if not rows:
                return
            for values in rows:
                number += 1
                yield Row(shown, number, dict(zip(columns, values, strict=True)))


def _connect(name: str) -> Any:
    shown, path = hide_password(name), Path(name)
    if name.lower().startswith(_SERVERS):
        driver = _import("adbc_driver_postgresql.dbapi", "adbc-driver-postgresql", shown)
        return _open(shown, lambda: driver.connect(name))
    kind = describe_database(path)
    if kind == "SQLite":
        place = f"{path.resolve().as_uri()}?mode=ro"
        return _open(shown, lambda: sqlite3.connect(place, uri=True))
    if kind == "DuckDB":
        driver = _import("duckdb", "duckdb", shown)
        return _open(shown, lambda: driver.connect(name, read_only=True))
    raise UsageError(
        f"{shown}: --sql reads a file of SQLite or DuckDB, or postgresql://USER@HOST/DATABASE, and "
        f"{'there is no such file' if not path.exists() else 'this is something else'}."
    )


def _open(shown: str, connect: Any) -> Any:
    try:
        return connect()
    except Exception as error:
        raise FailureError(f"{shown}: cannot be opened ({_reason(error)}).") from None


def _import(module: str, package: str, shown: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise MissingDependencyError(package, f"{shown}: reading it", EXTRA) from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
