"""Debian packages unpacked into a scratch folder, never installed on the machine."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from retrieval.errors import DownloadError, MissingDependencyError

LISTS = Path("/var/lib/apt/lists")
CAT_FILE = ("/usr/lib/apt/apt-helper", "cat-file")
UPDATE = ("apt-get", "-o", "Acquire::Languages=en", "update")


@dataclass
class Workplace:
    """Where sources find their input: the shared data, and Debian packages under ``scratch``."""

    shared: Path
    scratch: Path
    packages: dict[str, str] = field(default_factory=dict)
    """File name of every package that was unpacked, which tells its version."""

    def unpack(self, package: str) -> Path:
        """The folder with the package's files; downloads it the first time.

        Raises:
            MissingDependencyError: this is not a Debian-like machine.
            DownloadError: apt does not know or cannot fetch the package.
        """
        _require("apt-get", "dpkg")
        folder = self.scratch / package
        archives = self.scratch / f"{package}.archive"
        if not folder.is_dir():
            archives.mkdir(parents=True, exist_ok=True)
            run_tool(("apt-get", "download", "-q", package), archives)
            partial = self.scratch / f"{package}.partial"
            run_tool(("dpkg", "-x", str(_only_archive(archives)), str(partial)), archives)
            partial.rename(folder)
        self.packages[package] = _only_archive(archives).name
        return folder


def read_descriptions() -> str:
    """All English package descriptions that apt's lists hold, as one text of stanzas.

    Raises:
        MissingDependencyError: this is not a Debian-like machine.
        DownloadError: the list is not there and apt cannot bring it.
    """
    _require("apt-get")
    if not list_paths() and os.geteuid() == 0:
        run_tool(UPDATE, Path("/"))
    paths = list_paths()
    if not paths:
        raise DownloadError(
            f"no English description list under {LISTS}; as root, type: {' '.join(UPDATE)}"
        )
    return "\n".join(run_tool((*CAT_FILE, str(path)), Path("/")) for path in paths)


def list_paths() -> list[Path]:
    """The downloaded English description lists, whatever they are packed with."""
    return sorted(LISTS.glob("*_i18n_Translation-en*"))


def _require(*programs: str) -> None:
    """Raise where a program is missing."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        raise MissingDependencyError(
            " and ".join(missing),
            "reading Debian packages",
            "apt-get install apt dpkg (Debian, Ubuntu); elsewhere leave this source out by --only",
        )


def _only_archive(folder: Path) -> Path:
    """The .deb in the folder."""
    archives = sorted(folder.glob("*.deb"))
    if not archives:
        raise DownloadError(f"apt left no .deb in {folder}; delete the folder and try again")
    return archives[-1]


def run_tool(command: tuple[str, ...], folder: Path) -> str:
    """Standard output of a command that must succeed.

    Raises:
        DownloadError: it failed; the last line that it wrote to stderr says why.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DownloadError(f"{' '.join(command)} failed: {reason}")
    return done.stdout
