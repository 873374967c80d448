"""An encoder that hashes texts, an index in a list, and a real uvicorn server on loopback."""

import socket
import threading
import time
from hashlib import blake2b

import numpy as np
import uvicorn

from embedder.serving import ServedModel, build_app, make_config
from embedder.serving.served import Tokens
from retrieval import Fingerprint, Hit
from retrieval.errors import UsageError
from retrieval.filters import evaluate_filter, infer_schema

DIMENSION = 16
MAX_TOKENS = 20


class HashingEncoder:
    """Unit vectors seeded by a hash of role and text; equal texts have equal vectors.

    A test may close ``gate`` to hold the encoder, and look at ``batches``: what each call got.
    The text "poison" makes a call fail.
    """

    def __init__(self, name="hash", dimension=DIMENSION):
        self.dimension = dimension
        self.fingerprint = Fingerprint(name, {"model": name})
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches = []

    def encode_tokens(self, rows):
        """Read the texts of the rows that ``tokenize`` made, those of each role in one call."""
        vectors = np.empty((len(rows), self.dimension), dtype=np.float32)
        for role, read in (("query", self.encode_queries), ("document", self.encode_documents)):
            places = [place for place, row in enumerate(rows) if row.role == role]
            if places:
                vectors[places] = read([rows[place].text for place in places])
        return vectors

    def encode_queries(self, texts):
        return self._encode(texts, "query")

    def encode_documents(self, texts):
        return self._encode(texts, "document")

    def _encode(self, texts, role):
        self.batches.append((role, list(texts)))
        self.entered.set()
        assert self.gate.wait(120)
        if "poison" in texts:
            raise RuntimeError("the encoder cannot read poison")
        if "exit" in texts:
            raise SystemExit(3)
        rows = [self.vector(text, role) for text in texts]
        return np.array(rows, dtype=np.float32).reshape(len(texts), self.dimension)

    def vector(self, text, role="document"):
        key = f"{role}:{text}".encode("utf-8", "surrogatepass")
        seed = int.from_bytes(blake2b(key, digest_size=8).digest(), "little")
        vector = np.random.default_rng(seed).standard_normal(self.dimension)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


class Row(list):
    """The words of a text in place of token ids, at least one."""

    def __init__(self, text, role):
        super().__init__((text.split() or [""])[:MAX_TOKENS])
        self.text, self.role = text, role


def tokenize(texts, role="document"):
    """One token a word, at least one."""
    truncated = [len(text.split()) > MAX_TOKENS for text in texts]
    return Tokens([Row(text, role) for text in texts], truncated)


def decode_words(ids):
    """Token 7 is the word "w7"; there are 100."""
    if max(ids) >= 100 or min(ids) < 0:
        raise UsageError(f"Token {max(ids)} is not in the vocabulary of 100 tokens.")
    return " ".join(f"w{one}" for one in ids)


def make_model(encoder, **changes):
    facts = {"tokenize": tokenize, "max_tokens": MAX_TOKENS, "decode": decode_words}
    return ServedModel(encoder.fingerprint.model, encoder, **{**facts, **changes})


class ListIndex:
    """Searches a list of (id, text, metadata) by inner product."""

    modes = ("dense",)

    def __init__(self, encoder, rows):
        self.dimension = encoder.dimension
        self.fingerprint = encoder.fingerprint
        self._rows = rows
        self._vectors = encoder.encode_documents([text for _, text, _ in rows])

    def __len__(self):
        return len(self._rows)

    def search(self, vectors, k, *, with_text=True, where=None, **choices):
        fields = [metadata for _, _, metadata in self._rows]
        keep = [True] * len(fields)
        if where is not None:
            keep = list(evaluate_filter(where, infer_schema(fields), fields))
        found = []
        for row in vectors @ self._vectors.T:
            order = [i for i in np.argsort(-row, kind="stable") if keep[i]][:k]
            found.append(
                [
                    Hit(rank, self._rows[i][0], float(row[i]), "", *self._rows[i][1:])
                    for rank, i in enumerate(order, start=1)
                ]
            )
        return found


class RunningServer:
    """A server in a thread; ``stop`` ends it as SIGTERM would."""

    def __init__(self, server):
        self.server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._uvicorn = uvicorn.Server(make_config(build_app(server)))
        self._thread = threading.Thread(
            target=self._uvicorn.run, kwargs={"sockets": [self._listener]}
        )
        self._thread.start()
        wait_until(lambda: self._uvicorn.started)

    def ask_to_stop(self):
        self._uvicorn.should_exit = True

    def stop(self):
        self.ask_to_stop()
        self._thread.join(120)
        assert not self._thread.is_alive()
        self._listener.close()


def wait_until(condition, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
