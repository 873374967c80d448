"""A server that a test can call."""

import httpx
import pytest

from embedder.serving import ServedIndex, Server, ServerSettings
from tests.embedder.serving import fakes


@pytest.fixture
def encoder():
    return fakes.HashingEncoder()


@pytest.fixture
def serve(encoder):
    """Start a server and return a client of it; it ends with the test."""
    running = []

    def start(models=None, indexes=(), join=None, reranker=None, **settings):
        models = models or [fakes.make_model(encoder)]
        limits = ServerSettings(**settings)
        server = Server(models, indexes, limits, "1.2.3", join=join, reranker=reranker)
        started = fakes.RunningServer(server)
        client = httpx.Client(base_url=started.url, timeout=120)
        running.append((started, client))
        client.running = started
        return client

    yield start
    encoder.gate.set()
    for started, client in running:
        client.close()
        started.stop()


@pytest.fixture
def searchable(encoder):
    """An index of four texts from 2019 to 2022."""
    rows = [(f"d{year}", f"text of {year}", {"year": year}) for year in range(2019, 2023)]
    return ServedIndex("years", fakes.ListIndex(encoder, rows), fakes.make_model(encoder))
