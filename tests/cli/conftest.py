"""A fake encoder in place of a model, and a small corpus with an index of it."""

import json
from hashlib import blake2b
from types import SimpleNamespace

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from typer.testing import CliRunner

from cli.app import app
from embedder.loading import load_encoder as load_real
from retrieval import Fingerprint
from tests.indexes.backends.qdrant.fake_server import FakeServer

DIMENSION = 32


def word_tokenizer():
    """One token a word, as a transformers tokenizer holds it."""
    backend = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return SimpleNamespace(backend_tokenizer=backend)


class WordEncoder:
    """Unit vectors that count words, each hashed to one of 32 coordinates; "" is coordinate 0.

    Reads 16 tokens of a text, each a word, and puts EOS after them. With speed "fast" it says that
    it computes in int8, as real ones do on a CPU with VNNI.
    """

    trained = False
    device = "cpu"
    dimension = DIMENSION

    def __init__(self, model, embedded=None, speed="exact"):
        layers = {"linear_layers": "int8"} if speed == "fast" else {}
        self.fingerprint = Fingerprint(model, {"model": model, **layers})
        self.spec = SimpleNamespace(max_tokens=16, document_prompt="")
        self.backbone = SimpleNamespace(tokenizer=word_tokenizer())
        self._embedded = [] if embedded is None else embedded

    def tokenize(self, texts, prompt=""):
        return [[*range(len(f"{prompt}{text}".split())), -1] for text in texts]

    def encode_documents(self, texts, *, progress=None):
        self._embedded += texts
        return self.encode_queries(texts, progress=progress)

    def encode_queries(self, texts, *, progress=None):
        vectors = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split() or [""]:
                vectors[row, blake2b(word.encode(), digest_size=1).digest()[0] % DIMENSION] += 1
        if progress is not None:
            progress(len(texts))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def embedded():
    """Every text that was embedded as a document."""
    return []


@pytest.fixture
def loaded(monkeypatch, embedded):
    """Replace the loading of models; holds the names that were asked for."""
    names = []

    def load(model, device=None, speed="exact", notify=None, trust_remote_code=False):
        names.append(model)
        return WordEncoder(model or "fake", embedded, speed)

    for module in ("cli.commands.index", "cli.commands.embed", "embedder.loading"):
        monkeypatch.setattr(f"{module}.load_encoder", load)
    return names


@pytest.fixture
def real_models(loaded, monkeypatch):
    """Load models as users do, also in a test of ``millpond``."""
    monkeypatch.setattr("embedder.loading.load_encoder", load_real)


@pytest.fixture
def millpond(loaded):
    """Run a command line in this process, with the fake encoder."""

    def run(*args, stdin=None):
        return CliRunner().invoke(
            app, [str(arg) for arg in args], input=stdin, prog_name="millpond"
        )

    return run


@pytest.fixture
def write_jsonl(tmp_path):
    """Write objects, or lines as they are, to a file in the test's folder."""

    def write(name, *rows):
        path = tmp_path / name
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write


@pytest.fixture
def write_store(tmp_path):
    """Write the lines of a --store file, in a folder of its own."""

    def write(*lines):
        path = tmp_path / "settings" / "store.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.fixture
def corpus(write_jsonl):
    return write_jsonl(
        "corpus.jsonl",
        {"_id": "a", "title": "Rivers", "text": "water flows down hill"},
        {"_id": "b", "text": "mills grind corn", "year": 1851},
        {"_id": "c", "text": "a pond holds still water"},
    )


@pytest.fixture
def index_folder(millpond, corpus, tmp_path):
    folder = tmp_path / "index"
    result = millpond("index", corpus, "--out", folder)
    assert result.exit_code == 0, result.stderr
    return folder


@pytest.fixture
def qdrant_server(monkeypatch):
    """The fake Qdrant server of tests/indexes; no key in the environment, no long waits."""
    for name in ("MILLPOND_QDRANT_API_KEY", "QDRANT_API_KEY", "MILLPOND_QDRANT_URL"):
        monkeypatch.setenv(name, "")  # so that what a command sets is gone after it
    monkeypatch.setattr("indexes.backends.qdrant.connection.FIRST_PAUSE_SECONDS", 0.001)
    running = FakeServer()
    yield running
    running.stop()


@pytest.fixture
def qdrant_place(qdrant_server, write_store):
    """What is typed for the collection "docs" on the fake server."""
    store = write_store(f'url = "{qdrant_server.url}"', 'collection = "docs"')
    return ("--backend", "qdrant", "--store", store)


@pytest.fixture
def memory_store(tmp_path, monkeypatch):
    """Make ``memory.toml`` a file for --store that keeps an index in memory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "memory.toml").write_text("memory = true")
