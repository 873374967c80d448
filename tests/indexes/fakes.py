"""A deterministic encoder without a model, documents to feed it, and processes that are killed."""

import multiprocessing
import os
import signal
from hashlib import blake2b

import numpy as np

from indexes.storage.files import StoredFile
from retrieval import Document, Fingerprint


class HashingEncoder:
    """Unit vectors seeded by a hash of the text; equal texts have equal vectors.

    ``die_at`` kills the process, as ``kill -9`` does, when that chunk (from 1) is asked for.
    """

    def __init__(self, dimension=16, model="hash", die_at=0):
        self.dimension = dimension
        self.fingerprint = Fingerprint(model, {"model": model, "dimension": dimension})
        self.die_at = die_at
        self.calls = 0

    def encode_documents(self, texts):
        self.calls += 1
        if self.calls == self.die_at:
            die()
        rows = np.empty((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            seed = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
            vector = np.random.default_rng(seed).standard_normal(self.dimension)
            rows[row] = vector / np.linalg.norm(vector)
        return rows

    encode_queries = encode_documents


class TableEncoder:
    """Looks the vector of a text up in a table, so that a test chooses every score."""

    def __init__(self, vectors):
        self.table = vectors
        self.dimension = vectors.shape[1]
        self.fingerprint = Fingerprint("table", {"model": "table"})

    def encode_documents(self, texts):
        return self.table[[int(text) for text in texts]]

    encode_queries = encode_documents


def make_documents(count, prefix="d"):
    return [
        Document(
            f"{prefix}{number}", f"text {number} of {prefix}", f"title {number}", {"n": number}
        )
        for number in range(count)
    ]


def ids_by_words(index, text="text"):
    """The ids of all documents that the lexical arm finds by a word, sorted."""
    snapshot = index.snapshot
    everything = snapshot.rows.everything
    _, rows = snapshot.lexical.search(text, everything.count + 1, everything)
    return sorted(snapshot.documents.ids(rows).values())


IMPORTED = ["faiss", "indexes", "pytest", "qdrant_edge", "tantivy", "tests.indexes.fakes"]
"""What takes longer to import than a process of a test has to do."""


def processes():
    """Start processes as forks of one that has imported what they need, and done nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    return context


def exit_code_of(function, *arguments):
    """How a process of its own ends that calls the function; below 0, the signal that ended it."""
    process = processes().Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dying(place, name, *, before):
    """Have a function of a module or class kill the process, before or after it does its work."""
    original = getattr(place, name)

    def replacement(*arguments, **options):
        if not before:
            original(*arguments, **options)
        die()

    setattr(place, name, replacement)


def stored_in(folder):
    """The shards of a folder, documents or vectors, without checksums."""
    return [StoredFile(path) for path in sorted([*folder.glob("*.arrow"), *folder.glob("*.npy")])]
