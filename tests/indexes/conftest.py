import os
import subprocess

import pytest

from tests.indexes import fakes


@pytest.fixture
def encoder():
    return fakes.HashingEncoder()


@pytest.fixture
def documents():
    return fakes.make_documents(25)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    if (
        os.name == "nt"
        or os.geteuid() != 0
        or subprocess.run(command, capture_output=True).returncode
    ):
        pytest.skip("mounting a small file system needs root")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)
