"""Files at ``https://``, ``s3://``, ``gs://`` and other addresses that fsspec reads."""

from __future__ import annotations

import glob
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from retrieval.errors import (
    EmptyCorpusError,
    MissingDependencyError,
    SourceNotFoundError,
    StorageError,
    UsageError,
)

__all__ = ["EXTRA", "RemoteFile", "find_remote", "hide_password", "is_address"]

EXTRA = "pip install 'millpond[sources]'"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_WEB = ("http://", "https://")
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/@]*@")


def is_address(name: str) -> bool:
    """Whether a source is named by an address and not by a path."""
    return _ADDRESS.match(name) is not None


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
        raise MissingDependencyError(what, f"{name}: reading it", EXTRA) from None
    except FileNotFoundError:
        raise SourceNotFoundError(f"{name}: there is no such file. Check the address.") from None
    except Exception as error:  # each library of addresses has errors of its own
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise StorageError(
            f"{name}: cannot be fetched ({reason}). Check the address, and that you may read it."
        ) from error
