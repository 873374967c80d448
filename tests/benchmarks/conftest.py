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


def _load(name, path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fakes():
    """The module bench_fakes.py beside this file."""
    return _load("bench_fakes", HERE / "bench_fakes.py")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """A random llama of four layers and width 32, saved."""
    import torch
    from transformers import AutoModel

    decoders = _load("tiny_decoders", HERE.parent / "embedder" / "conftest.py")
    folder = tmp_path_factory.mktemp("tiny-base")
    torch.manual_seed(0)
    model = AutoModel.from_config(decoders.ARCHITECTURES["llama"])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    model.save_pretrained(folder)
    decoders.byte_tokenizer(pad="<eos>").save_pretrained(folder)
    return folder
