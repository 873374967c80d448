import pytest


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """A random llama of four layers and width 32, saved."""
    from tests.embedder.tiny_decoders import write_base

    return write_base(tmp_path_factory.mktemp("tiny-base"), "llama")
