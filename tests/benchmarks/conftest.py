import importlib.util
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
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fakes():
    """The module bench_fakes.py beside this file."""
    return _load("bench_fakes")
