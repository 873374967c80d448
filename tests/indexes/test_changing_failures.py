"""Changes that the disk, the encoder or another process stops: the index stays as it was."""

import numpy as np
import pytest
from filelock import FileLock

from indexes import Index
from retrieval import Document
from retrieval.errors import StorageError, VectorError
from tests.indexes import fakes

CHANGES = {
    "add": lambda encoder, path: Index.open(path, encoder).add([Document("new", "x")]),
    "update": lambda encoder, path: Index.open(path, encoder).update([Document("d1", "x")]),
    "delete": lambda encoder, path: Index.open(path).delete(["d1"]),
    "compact": lambda encoder, path: Index.open(path).compact(),
    "reindex": lambda encoder, path: Index.open(path).reindex(factory="HNSW8").manifest,
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_second_writer_is_told_to_wait(tmp_path, encoder, documents, kind):
    Index.create(tmp_path / "i", encoder, documents)
    calls = encoder.calls
    with (
        FileLock(tmp_path / "i" / ".lock"),
        pytest.raises(StorageError, match="Another process is writing"),
    ):
        CHANGES[kind](encoder, tmp_path / "i")
    assert encoder.calls == calls
    assert Index.open(tmp_path / "i").check().documents == 25


def test_a_full_disk_during_an_add_keeps_the_index_and_what_was_embedded(small_disk):
    # A vector takes 1 KB: 700 more do not fit into 1 MB beside 100 twice.
    encoder = fakes.HashingEncoder(256)
    Index.create(small_disk / "i", encoder, fakes.make_documents(100))
    with pytest.raises(StorageError, match=r"is full: 0\.\d MB free"):
        Index.open(small_disk / "i", encoder).add(fakes.make_documents(700, "new"))
    assert Index.open(small_disk / "i").check().documents == 100
    assert len(Index.open(small_disk / "i").search(encoder.encode_queries(["x"]), 100)[0]) == 100


def test_a_full_disk_after_a_deletion_puts_the_compaction_off(small_disk):
    # 300 vectors of 1 KB, twice, leave too little of 1 MB for 200 of them twice.
    encoder = fakes.HashingEncoder(256)
    Index.create(small_disk / "i", encoder, fakes.make_documents(300))
    change = Index.open(small_disk / "i").delete([f"d{number}" for number in range(100)])
    assert (change.deleted, change.compacted) == (100, False)
    assert "is full" in change.postponed
    assert (change.manifest.documents, change.manifest.rows) == (200, 300)
    assert Index.open(small_disk / "i").check() == change.manifest
    assert not (small_disk / "i" / ".building").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_vector_that_is_no_number_stops_an_add_by_name(tmp_path, encoder, documents, bad):
    Index.create(tmp_path / "i", encoder, documents)

    class Broken:
        dimension, fingerprint = encoder.dimension, encoder.fingerprint

        def encode_documents(self, texts):
            vectors = encoder.encode_documents(texts)
            vectors[-1, 3] = bad
            return vectors

    with pytest.raises(VectorError, match="NaN or infinity for document 'b'"):
        Index.open(tmp_path / "i", Broken()).add([Document("a", "x"), Document("b", "y")])
    assert Index.open(tmp_path / "i").check().documents == 25


def test_a_vector_of_another_length_stops_an_add(tmp_path, encoder, documents):
    Index.create(tmp_path / "i", encoder, documents)

    class Short:
        dimension, fingerprint = encoder.dimension, encoder.fingerprint
        encode_documents = staticmethod(fakes.HashingEncoder(8).encode_documents)

    message = r"shape \(1, 8\) for 1 documents from 'a' on; expected \(1, 16\)"
    with pytest.raises(VectorError, match=message):
        Index.open(tmp_path / "i", Short()).add([Document("a", "x")])
    assert len(Index.open(tmp_path / "i")) == 25
