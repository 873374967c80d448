import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_configure(config):
    # faiss' SWIG wrappers, on import: their types have no __module__ (SWIG before 4.4).
    config.addinivalue_line(
        "filterwarnings",
        "ignore:builtin type (SwigPy|swigvarlink).* has no __module__ attribute:DeprecationWarning",
    )


def _load(name):
    spec = importlib.util.spec_from_file_location(f"indexes_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fakes():
    """The module fakes.py beside this file."""
    return _load("fakes")


@pytest.fixture
def encoder(fakes):
    return fakes.HashingEncoder()


@pytest.fixture
def documents(fakes):
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
