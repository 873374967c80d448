"""A tiny model, and servers of it that do one thing differently."""

import numpy as np
import pytest

from embedder import Embedder
from embedder.conform.local import EmbedderModel
from tests.embedder.conform.faulty_server import FaultyServer

MAX_TOKENS = 100


@pytest.fixture(scope="session")
def tiny_name(base_folder):
    prompts = "query_prompt=query: ,document_prompt=passage: "
    return f"{base_folder['llama']}:mean+causal,max_tokens={MAX_TOKENS},{prompts}"


@pytest.fixture(scope="session")
def tiny(tiny_name):
    return Embedder.load(tiny_name, device="cpu")


@pytest.fixture
def local(tiny):
    return EmbedderModel(tiny)


@pytest.fixture
def start():
    """Start a server over a function from texts to vectors; it ends with the test."""
    running = []

    def started(embed, **how):
        running.append(FaultyServer(embed, **how))
        return running[-1]

    yield started
    for server in running:
        server.close()


def unit(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
