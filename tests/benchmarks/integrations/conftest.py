import socket

import pytest


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """Refuse every connection, and keep caches out of the user's folders."""

    def refuse(*args, **kwargs):
        raise AssertionError(f"a connection was tried: {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def library():
    """130 documents, half of them with a title, and 20 queries that share words with one."""
    from tests.benchmarks.local_mteb import make_library

    return make_library()


@pytest.fixture(scope="module")
def pairs():
    from tests.benchmarks.local_mteb import make_pairs

    return make_pairs()


@pytest.fixture(scope="module")
def labelled():
    """Three labels with 20 words of their own and noise, 12 examples each; 30 to classify."""
    from tests.benchmarks.local_mteb import make_labelled

    return make_labelled()
