"""Changes that the disk, the encoder or another process stops: the index stays as it was."""

import numpy as np
import pytest
from filelock import FileLock

from indexes import (
    add_documents,
    compact_index,
    delete_documents,
    open_index,
    reindex,
    update_documents,
    verify_index,
    write_corpus,
)
from retrieval import Document
from retrieval.errors import StorageError, VectorError
from tests.indexes import fakes

CHANGES = {
    "add": lambda encoder, path: add_documents(encoder, [Document("new", "x")], path),
    "update": lambda encoder, path: update_documents(encoder, [Document("d1", "x")], path),
    "delete": lambda encoder, path: delete_documents(path, ["d1"]),
    "compact": lambda encoder, path: compact_index(path),
    "reindex": lambda encoder, path: reindex(path, factory="HNSW8"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_second_writer_is_told_to_wait(tmp_path, encoder, documents, kind):
    write_corpus(encoder, documents, tmp_path / "i")
    calls = encoder.calls
    with (
        FileLock(tmp_path / "i" / ".lock"),
        pytest.raises(StorageError, match="Another process is writing"),
    ):
        CHANGES[kind](encoder, tmp_path / "i")
    assert encoder.calls == calls
    assert verify_index(tmp_path / "i").documents == 25


def test_a_full_disk_during_an_add_keeps_the_index_and_what_was_embedded(small_disk):
    # A vector takes 1 KB: 700 more do not fit into 1 MB beside 100 twice.
    encoder = fakes.HashingEncoder(256)
    write_corpus(encoder, fakes.make_documents(100), small_disk / "i")
    with pytest.raises(StorageError, match=r"is full: 0\.\d MB free"):
        add_documents(encoder, fakes.make_documents(700, "new"), small_disk / "i")
    assert verify_index(small_disk / "i").documents == 100
    assert len(open_index(small_disk / "i").search(encoder.encode_queries(["x"]), 100)[0]) == 100


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_vector_that_is_no_number_stops_an_add_by_name(tmp_path, encoder, documents, bad):
    write_corpus(encoder, documents, tmp_path / "i")

    class Broken:
        dimension, fingerprint = encoder.dimension, encoder.fingerprint

        def encode_documents(self, texts):
            vectors = encoder.encode_documents(texts)
            vectors[-1, 3] = bad
            return vectors

    with pytest.raises(VectorError, match="NaN or infinity for document 'b'"):
        add_documents(Broken(), [Document("a", "x"), Document("b", "y")], tmp_path / "i")
    assert verify_index(tmp_path / "i").documents == 25


def test_a_vector_of_another_length_stops_an_add(tmp_path, encoder, documents):
    write_corpus(encoder, documents, tmp_path / "i")

    class Short:
        dimension, fingerprint = encoder.dimension, encoder.fingerprint
        encode_documents = staticmethod(fakes.HashingEncoder(8).encode_documents)

    with pytest.raises(VectorError, match=r"shape \(1, 8\) for 1 documents from 'a' on; \(1, 16\)"):
        add_documents(Short(), [Document("a", "x")], tmp_path / "i")
    assert len(open_index(tmp_path / "i")) == 25
