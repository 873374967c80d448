"""What all tests share: seeds, one thread each, and the checkout on the path of their children."""

import gc
import os
import random
import shutil
import signal
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import typer.testing
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

ROOT = Path(__file__).parents[1]
CHROMIUM_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]

# Processes that a test starts import this checkout, as ``from tests.indexes import fakes`` does.
os.environ["PYTHONPATH"] = str(ROOT)
# Threads cost more than they give on models this small, and their sums differ in the last digit.
os.environ["OMP_NUM_THREADS"] = "1"
# Files of tests lie in memory where there is room: making an index waits 30 times for a disk.
MEMORY = Path("/dev/shm")
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > 4 * 2**30:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
# A CliRunner makes the commands anew at each call, which takes five times as long as a search.
typer.testing._get_command = cache(typer.testing._get_command)

# A run in the background of a script ignores Ctrl-C and hands that down; tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No clock in either: a machine that is busy fails no test.
PROFILE = {"database": None, "deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("test", derandomize=True, **PROFILE)
settings.register_profile("fuzz", print_blob=True, **PROFILE)
settings.load_profile("test")


def pytest_configure(config):
    """Keep what happens to be imported, which differs from run to run, out of drawn examples.

    Hypothesis takes one in twenty from the constants of these modules.
    """
    if config.getoption("--hypothesis-profile") != "fuzz":
        providers._get_local_constants = lambda: providers._local_constants


@pytest.fixture(scope="session")
def seed(pytestconfig):
    """The seed of a test that draws its cases itself: 0, or that of ``make fuzz``."""
    return _seed(pytestconfig)


def _seed(config):
    return int(config.getoption("--hypothesis-seed") or 0)


@pytest.fixture(scope="module")
def chromium():
    """Debian's browser; ended with its module, as its event loop would be in the way of others."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if (path := shutil.which("chromium")) is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


def pytest_collection_modifyitems(items):
    """Mark the tests that find new cases with another seed."""
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else ()
        draws = "seed" in item.fixturenames and "seed" not in parameters
        if draws or getattr(item.function, "is_hypothesis_test", False):
            item.add_marker("fuzz")


def pytest_collection_finish():
    """Spare the garbage collector what was imported: to look through it takes half a second."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Seed every generator before a test and its fixtures, so that their order does not matter."""
    start = _seed(item.config) % 2**32
    random.seed(start)
    np.random.seed(start)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(start)
        torch.set_num_threads(1)
