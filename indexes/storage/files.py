"""The files of an index folder: checksums, what is wrong with one, and links, which none may be.

Blocks of 1 MiB have checksums of their own, which are compared when the block is first read.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64_hexdigest

from retrieval.errors import IndexCorruptError, StorageError
from retrieval.protocols import Rows

BLOCK_BYTES = 2**20
BLOCK_DIGITS = 16
"""Of the XXH3 of one block: 64 bits in hexadecimal. It finds damage, not forgery."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an index.

    Attributes
    ----------
    name : its path relative to the folder.
    bytes, sha256 : its size and its checksum.
    blocks : the XXH3 of each MiB, 16 digits each and joined; "" in an index of an earlier
        millpond, where they are not known.
    """

    name: str
    bytes: int
    sha256: str
    blocks: str = ""

    def __post_init__(self) -> None:
        """Raise ValueError for a path that leaves the folder, or checksums of another size."""
        path = PurePosixPath(self.name)
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise ValueError(f"file name {self.name!r} is not inside the index folder")
        if self.bytes < 0:
            raise ValueError(f"file {self.name!r} has {self.bytes} bytes")
        if self.blocks and len(self.blocks) != BLOCK_DIGITS * -(-self.bytes // BLOCK_BYTES):
            raise ValueError(f"file {self.name!r} has checksums of another size")

    @classmethod
    def of(cls, path: Path, name: str) -> FileEntry:
        """Return the entry of the file at ``path``, to be published as ``name``."""
        whole, blocks, size = hashlib.sha256(), [], 0
        for block in _read_blocks(path):
            whole.update(block)
            blocks.append(xxh3_64_hexdigest(block))
            size += len(block)
        return cls(name, size, whole.hexdigest(), "".join(blocks))


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Where a file lies, and the checksums of its blocks; "" where they are not known."""

    path: Path
    blocks: str = ""


def find_changed_block(file: StoredFile) -> int | None:
    """Return the first block of a file that is not what was written; None if there is none.

    Reads as fast as memory does, and says nothing of a file without checksums.

    Raises
    ------
    OSError : the file cannot be read.
    """
    found = [xxh3_64_hexdigest(block) for block in _read_blocks(file.path)] if file.blocks else []
    for number, digest in enumerate(found):
        if file.blocks[number * BLOCK_DIGITS : (number + 1) * BLOCK_DIGITS] != digest:
            return number
    return None


def changed_block(number: int) -> str:
    """Return what is wrong with a file in which block ``number`` has changed, as a clause."""
    return f"the MiB from byte {number * BLOCK_BYTES:,} on is not what was written"


def _read_blocks(path: Path) -> Iterator[memoryview]:
    """Yield the blocks of a file one after the other, each valid until the next."""
    buffer = memoryview(bytearray(BLOCK_BYTES))
    with path.open("rb") as stream:
        while filled := stream.readinto(buffer):  # less than a whole block at the end alone
            yield buffer[:filled]


def find_fault(folder: Path, entry: FileEntry, *, checksum: bool, blocks: bool = False) -> str:
    """Return what is wrong with a listed file, as a clause; "" if nothing is.

    No link is followed. The file is read only with ``checksum``, or with ``blocks`` if their
    checksums are known, which takes a tenth of the time.

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
        if blocks and not checksum:
            changed = find_changed_block(StoredFile(path, entry.blocks))
            return "" if changed is None else changed_block(changed)
        whole = not checksum or FileEntry.of(path, entry.name).sha256 == entry.sha256
    except (FileNotFoundError, NotADirectoryError):
        return "it is missing"
    except PermissionError:
        raise unreadable(path) from None
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


def damaged(path: Path, fault: object) -> IndexCorruptError:
    """Return the error that names a damaged file."""
    return IndexCorruptError(
        f"{path} is damaged: {fault}. Index the corpus again with --overwrite."
    )


def unreadable(path: Path) -> StorageError:
    """Return the error for a file that this user may not read, which says nothing of damage."""
    return StorageError(
        f"{path}: this file of the index may not be read (permission denied). Change its "
        "permissions, or ask its owner."
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a damaged Arrow file makes Arrow, UTF-8 or JSON raise into IndexCorruptError.

    Raises
    ------
    StorageError : this user may not read it.
    """
    try:
        yield
    except PermissionError:
        raise unreadable(path) from None
    except (pa.ArrowException, OSError, LookupError, TypeError, ValueError, RecursionError) as e:
        reason = str(e).splitlines()[0] if str(e) else type(e).__name__
        raise damaged(path, reason) from e


ReadPart: TypeAlias = Callable[[int, int], bytes | memoryview]
"""Returns the bytes of a file from the first number to the second, not included."""


class Blocks:
    """Compares the blocks of one file, each before anything in it is used.

    A block that was compared is trusted for as long as this object lives. Threads may share it:
    a block that two compare at once is only compared twice.

    Parameters
    ----------
    file : with its checksums; without any, nothing is compared.
    read : reads the file.
    """

    def __init__(self, file: StoredFile, read: ReadPart) -> None:
        self._path, self._sums, self._read = file.path, file.blocks, read
        count = len(self._sums) // BLOCK_DIGITS
        self._unread = np.ones(count, dtype=np.bool_)
        self.left = count

    def check(self, start: int, stop: int, read: ReadPart | None = None) -> None:
        """Compare the blocks that hold the bytes from ``start`` to ``stop``, if not done before.

        Raises
        ------
        IndexCorruptError : a block is not what was written; names the file.
        """
        if self.left and stop > start:
            for number in range(start // BLOCK_BYTES, (stop - 1) // BLOCK_BYTES + 1):
                self._compare(number, read or self._read)

    def check_each(self, starts: Rows, length: int) -> None:
        """Compare the blocks that hold ``length`` bytes from each of ``starts`` int64 (n,)."""
        first, last = starts // BLOCK_BYTES, (starts + length - 1) // BLOCK_BYTES
        if length > BLOCK_BYTES:
            for start in starts.tolist():
                self.check(start, start + length)
        elif self._unread[first].any() or self._unread[last].any():
            for number in sorted({*first.tolist(), *last.tolist()}):
                self._compare(number, self._read)

    def _compare(self, number: int, read: ReadPart) -> None:
        if not self._unread[number]:
            return
        content = read(number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES)
        expected = self._sums[number * BLOCK_DIGITS : (number + 1) * BLOCK_DIGITS]
        if xxh3_64_hexdigest(content) != expected:
            raise damaged(self._path, changed_block(number))
        self._unread[number] = False
        self.left = int(np.count_nonzero(self._unread))


def from_memory(content: memoryview) -> ReadPart:
    """Return what reads a mapped file."""
    return lambda start, stop: content[start:stop]
