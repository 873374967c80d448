"""The files of an index folder: checksums, what is wrong with one, and links, which none may be."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa

from retrieval.errors import IndexCorruptError, StorageError

__all__ = ["FileEntry", "find_fault", "reading", "refuse_links"]


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an index: its path relative to the folder, its size and its checksum."""

    name: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        """Raise ValueError for a path that leaves the folder."""
        path = PurePosixPath(self.name)
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise ValueError(f"file name {self.name!r} is not inside the index folder")
        if self.bytes < 0:
            raise ValueError(f"file {self.name!r} has {self.bytes} bytes")

    @classmethod
    def of(cls, path: Path, name: str) -> FileEntry:
        """Return the entry of the file at ``path``, to be published as ``name``."""
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return cls(name, path.stat().st_size, digest)


def find_fault(folder: Path, entry: FileEntry, *, checksum: bool) -> str:
    """Return what is wrong with a listed file, as a clause; "" if nothing is.

    No link is followed. Only with ``checksum`` is the file read.

    Raises
    ------
    StorageError : this user may not read the file, which says nothing about damage.
    """
    path = folder
    try:
        for part in PurePosixPath(entry.name).parts:
            path /= part
            found = path.lstat()
            if stat.S_ISLNK(found.st_mode):
                return f"{path} is a symbolic link, and no link in an index folder is followed"
        if not stat.S_ISREG(found.st_mode):
            return "it is not a file"
        if found.st_size != entry.bytes:
            return f"it has {found.st_size} bytes, the manifest states {entry.bytes}"
        whole = not checksum or FileEntry.of(path, entry.name) == entry
    except (FileNotFoundError, NotADirectoryError):
        return "it is missing"
    except PermissionError:
        raise StorageError(
            f"{path}: this file of the index may not be read (permission denied). Change its "
            "permissions, or ask its owner."
        ) from None
    except (OSError, ValueError) as error:  # a name with a null byte is a ValueError
        return f"it cannot be read ({getattr(error, 'strerror', None) or error})"
    return "" if whole else "its checksum is not the one in the manifest"


def refuse_links(paths: Iterable[Path]) -> None:
    """Raise IndexCorruptError if one of these parts of an index folder is a symbolic link."""
    for path in paths:
        if path.is_symlink():
            raise IndexCorruptError(
                f"{path} is a symbolic link, and no link in an index folder is followed: what it "
                f"points at may be somebody's file. Delete the link, or put the file itself there."
            )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a damaged Arrow file makes Arrow, UTF-8 or JSON raise into IndexCorruptError."""
    try:
        yield
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError, RecursionError) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise IndexCorruptError(
            f"{path} is damaged: {reason}. Index the corpus again with --overwrite."
        ) from e
