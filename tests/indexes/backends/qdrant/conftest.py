import pytest

from indexes import Index, IndexConfig
from indexes.backends.qdrant import QdrantOptions, configured_backend
from indexes.backends.qdrant import connection as connection_module
from tests.indexes import fakes
from tests.indexes.backends.qdrant.fake_server import FakeServer


@pytest.fixture
def server(monkeypatch):
    """A fake Qdrant server; no key in the environment, no long waits."""
    for name in ("MILLPOND_QDRANT_API_KEY", "QDRANT_API_KEY", "MILLPOND_QDRANT_URL"):
        monkeypatch.setenv(name, "")  # so that what a test sets is gone after it
    monkeypatch.setattr(connection_module, "FIRST_PAUSE_SECONDS", 0.001)
    running = FakeServer()
    yield running
    running.stop()


@pytest.fixture
def options(server):
    return QdrantOptions(url=server.url, collection="docs")


@pytest.fixture
def write_with():
    """Return Index.create with a backend that was configured by options."""

    def write(options, encoder, documents, folder, **config):
        settings = IndexConfig(backend="qdrant", **config)
        store = configured_backend(options)
        return Index.create(folder, encoder, documents, settings, store=store).manifest

    return write


@pytest.fixture
def index_of(write_with):
    """Return a function that indexes vectors: document number n has the n-th."""
    from retrieval import Document

    def make(vectors, folder, *, ids=None, factory="Flat", backend="qdrant", memory=False):
        ids = ids or [f"d{n}" for n in range(len(vectors))]
        documents = [Document(doc_id, str(n)) for n, doc_id in enumerate(ids)]
        encoder = fakes.TableEncoder(vectors)
        if backend == "faiss":
            Index.create(folder, encoder, documents, IndexConfig(factory=factory))
        else:
            write_with(QdrantOptions(memory=memory), encoder, documents, folder, factory=factory)
        return Index.open(folder)

    return make
