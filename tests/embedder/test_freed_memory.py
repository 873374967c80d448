"""Freed memory that is kept, seen by the pages that the system has to fill anew."""

import os
import subprocess
import sys

import pytest

CODE = """
import resource, sys
from embedder.environment import keep_freed_memory
if "keep" in sys.argv:
    assert keep_freed_memory()
import numpy
def fill(): numpy.ones(20 << 20, dtype=numpy.int8)
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20): fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
assert "torch" not in sys.modules
"""
GLIBC = "CS_GNU_LIBC_VERSION" in getattr(os, "confstr_names", {})


def pages(*arguments):
    """Return how many pages were mapped while 20 MB were filled and freed 20 times."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        env={key: value for key, value in os.environ.items() if key != "GLIBC_TUNABLES"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
def test_freed_memory_is_used_again_without_asking_the_system():
    assert pages("keep") < 100 < pages()


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
def test_what_the_environment_sets_is_left_alone(monkeypatch):
    from embedder.environment import keep_freed_memory

    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=4096")
    assert not keep_freed_memory()
