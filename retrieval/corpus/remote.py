"""Sources that are not files of this machine: addresses, data sets of a hub, databases."""

from __future__ import annotations

import glob
import os
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from retrieval.corpus.records import check_distinct
from retrieval.corpus.values import Row
from retrieval.errors import (
    EmptyCorpusError,
    FailureError,
    MissingDependencyError,
    SourceNotFoundError,
    StorageError,
    UsageError,
    import_optional,
)
from retrieval.hub import reach_hub

_EXTRA = "pip install 'millpond[sources]'"
_WEB = ("http://", "https://")
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/@]*@")
_DATASET = re.compile(
    r"hf://datasets/(?P<name>[^/?@]+/[^/?@]+)(@(?P<revision>[^/?]+))?/?(\?(?P<query>.*))?"
)
_DATASET_OPTIONS = ("config", "split")
_SERVERS = ("postgresql://", "postgres://")
_TOGETHER = 1000


def hide_password(name: str) -> str:
    """Return an address as it may be shown and kept."""
    return _PASSWORD.sub(r"\1:***@", name)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at an address; ``fetch`` copies it here.

    Attributes
    ----------
    name : its whole address, without a password.
    inside : the last part of it, by whose ending it is read.
    """

    name: str
    inside: str
    _system: Any
    _path: str
    _copies: Path

    def fetch(self) -> Path:
        """Return a copy, which is made once and is gone when the program ends.

        Its time is that of the file where the address tells it, else that of the copy.

        Raises
        ------
        StorageError : it cannot be fetched.
        SourceNotFoundError : it is not there.
        """
        place = self._copies / self.inside
        if not place.exists():
            part = Path(tempfile.mkdtemp(dir=self._copies)) / "part"
            with _refusals(self.name):
                self._system.get_file(self._path, str(part))
            with suppress(NotImplementedError, KeyError, TypeError, AttributeError, OSError):
                moment = self._system.modified(self._path).timestamp()
                os.utime(part, (moment, moment))
            part.rename(place)
        return place


@cache
def _copies() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="millpond-")


def _new_folder() -> Path:
    return Path(tempfile.mkdtemp(dir=_copies().name))


def find_remote(name: str) -> list[RemoteFile]:
    """Return the files at an address: one, those of a folder, or those that a pattern matches.

    A page of the web is one file whatever it lists.

    Raises
    ------
    UsageError : nothing reads such addresses.
    MissingDependencyError : what reads them is not installed.
    SourceNotFoundError, EmptyCorpusError : there is nothing.
    StorageError : the address cannot be reached.
    """
    core = import_module("fsspec.core")
    shown = hide_password(name)
    scheme = name.partition("://")[0].lower()
    known = import_module("fsspec").available_protocols()
    if scheme not in known:
        raise UsageError(
            f"{shown}: nothing reads addresses that begin with {scheme}://. Expected https://, "
            "s3://, gs:// or hf://datasets/, or with --sql postgresql://."
        )
    with _refusals(shown):
        system, path = core.url_to_fs(name)
        if name.lower().startswith(_WEB):
            inside = PurePosixPath(urlsplit(name).path).name or "index"
            inside = inside if "." in inside else inside + ".html"
            return [RemoteFile(shown, inside, system, path, _new_folder())]
        if glob.has_magic(path):
            found = [one for one in system.glob(path) if system.isfile(one)]
        else:
            found = system.find(path) if system.isdir(path) else [path]
    if not found:
        raise EmptyCorpusError(f"{shown}: there is no file. Check the address.")
    start = hide_password(name).partition("://")[0] + "://"
    return [
        RemoteFile(start + one.lstrip("/"), PurePosixPath(one).name, system, one, _new_folder())
        for one in sorted(found)
    ]


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Turn what the libraries of addresses raise into our errors."""
    try:
        yield
    except ImportError as error:
        said = r"[Ii]nstall (\w+)|\"(\w+)\" to be installed|No module named '(\w+)'"
        package = re.search(said, str(error))
        what = package[package.lastindex or 0] if package else "a package"
        raise MissingDependencyError(what, f"{name}: reading it", _EXTRA) from None
    except FileNotFoundError:
        raise SourceNotFoundError(f"{name}: there is no such file. Check the address.") from None
    except Exception as error:  # each library of addresses has errors of its own
        raise StorageError(
            f"{name}: cannot be fetched ({_named_reason(error)}). Check the address, and that you "
            "may read it."
        ) from error


def dataset_name(name: str) -> re.Match[str] | None:
    """Return the parts of an address that names a data set and no file in it, else None."""
    return _DATASET.fullmatch(name)


def dataset_rows(name: str, note: Callable[[str], None]) -> Iterator[Row]:
    """Yield the records of a data set, downloaded as they are read.

    ``hf://datasets/OWNER/NAME@REVISION?config=NAME&split=NAME``; by default the split "train", or
    the only one. A line says which split was taken of several.

    Raises
    ------
    UsageError : no such configuration or split.
    SourceNotFoundError, StorageError : it is not there, or cannot be reached.
    MissingDependencyError : the package datasets is not installed.
    """
    found = dataset_name(name)
    assert found is not None
    options = dict(parse_qsl(found["query"] or ""))
    unknown = sorted(options.keys() - set(_DATASET_OPTIONS))
    if unknown:
        raise UsageError(f"{name}: {unknown[0]!r} arrived; expected config and split, no others.")
    datasets = import_optional("datasets", f"{name}: reading it", _EXTRA)
    splits = _load_dataset(datasets, name, found["name"], options.get("config"), found["revision"])
    wanted = options.get("split") or ("train" if "train" in splits else next(iter(splits)))
    if wanted not in splits:
        raise UsageError(f"{name}: there is no split {wanted!r}; it has {', '.join(splits)}.")
    if len(splits) > 1 and "split" not in options:
        others = ", ".join(split for split in splits if split != wanted)
        note(f"{name}: read the split {wanted!r}. Others: {others} (add ?split=NAME).")
    for number, record in enumerate(splits[wanted], start=1):
        yield Row(name, number, record)


def _load_dataset(
    datasets: Any, shown: str, name: str, config: str | None, revision: str | None
) -> Any:
    try:
        reach_hub(name, "README.md", revision=revision, kind="dataset")
        return datasets.load_dataset(name, config, revision=revision, streaming=True)
    except ValueError as error:  # an unknown configuration, or none named of several
        raise UsageError(f"{shown}: {' '.join(str(error).split())}") from None
    except FileNotFoundError:
        raise SourceNotFoundError(f"{shown}: there is no such data set. Check the name.") from None
    except Exception as error:  # of the network, in many classes
        raise StorageError(f"{shown}: cannot be fetched ({_named_reason(error)}).") from error


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
    purpose = f"{shown}: reading it"
    if name.lower().startswith(_SERVERS):
        package = "adbc-driver-postgresql"
        driver = import_optional("adbc_driver_postgresql.dbapi", purpose, _EXTRA, package)
        return _open(shown, lambda: driver.connect(name))
    kind = describe_database(path)
    if kind == "SQLite":
        place = f"{path.resolve().as_uri()}?mode=ro"
        return _open(shown, lambda: sqlite3.connect(place, uri=True))
    if kind == "DuckDB":
        driver = import_optional("duckdb", purpose, _EXTRA)
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


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__


def _named_reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
