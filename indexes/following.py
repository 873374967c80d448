"""An open index that goes on with what other processes make of its folder."""

from __future__ import annotations

from collections.abc import Callable

from indexes.index import Index
from indexes.storage.manifest import MANIFEST_NAME, read_manifest
from retrieval import Fingerprint


class Follower:
    """Opens an index again once another process has published a newer version of it.

    Searches that run meanwhile finish on the index that they began with; its files stay mapped
    until nobody holds it any more.

    Parameters
    ----------
    index : as it was opened; afterwards the newest that could be opened.
    check : raises a MillpondError for the model of an index that cannot take its place.
    """

    def __init__(self, index: Index, check: Callable[[Fingerprint], None]) -> None:
        self.index = index
        self._check = check
        self._stamp: tuple[int, ...] = ()

    def look(self) -> Index | None:
        """Return the index in its newer version, opened; None where there is none.

        Costs a look at one file while nothing changes. What is raised is raised again by the next
        call, until it has been mended.

        Raises
        ------
        SourceNotFoundError : the folder or its manifest is gone.
        IndexCorruptError, UsageError, StorageError : the newer version cannot be opened.
        MillpondError : what ``check`` raises.
        """
        stamp = self._read_stamp()
        if stamp and stamp == self._stamp:
            return None
        manifest = read_manifest(self.index.folder)
        if manifest.version == self.index.manifest.version:
            self._stamp = stamp
            return None
        self._check(manifest.fingerprint)
        opened = Index.open(self.index.folder, self.index.encoder)
        self._check(opened.fingerprint)  # which may be newer again
        self.index, self._stamp = opened, stamp
        return opened

    def _read_stamp(self) -> tuple[int, ...]:
        """Return what changes whenever a manifest is put in place; nothing where there is none."""
        try:
            found = (self.index.folder / MANIFEST_NAME).stat()
        except OSError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_size
