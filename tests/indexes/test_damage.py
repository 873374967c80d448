"""Damage is found before it is copied, extended or read; it never gets a new checksum."""

import errno
import random
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from indexes import FileEntry, Index, IndexConfig, read_manifest
from indexes.backends.registry import backend_of
from indexes.snapshot import Snapshot
from retrieval import Document
from retrieval.errors import IndexCorruptError, StorageError
from tests.indexes import fakes

KEEP = IndexConfig(compact_share=1.0)


def flip(path, place=-1):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.fixture
def path(tmp_path, encoder, documents):
    Index.create(tmp_path / "i", encoder, documents, IndexConfig(factory="HNSW8"))
    return tmp_path / "i"


def damage_text(path):
    file = path / "documents" / "00000.arrow"
    flip(file, file.read_bytes().index(b"text 7 of"))
    return file


def damage_vector(path):
    flip(path / "vectors" / "00000.npy")
    return path / "vectors" / "00000.npy"


def test_a_deletion_reads_the_ids_and_stops_at_a_damaged_document(path):
    file = damage_text(path)
    before = read_manifest(path)
    with pytest.raises(IndexCorruptError, match=f"{file} is damaged: the MiB from byte 0 on"):
        Index.open(path).delete(["d10"])
    assert read_manifest(path) == before


def test_a_deletion_does_not_copy_damage_into_a_compacted_index(tmp_path, encoder, documents):
    path = tmp_path / "flat"
    Index.create(path, encoder, documents)
    file = damage_vector(path)
    change = Index.open(path).delete([f"d{number}" for number in range(10, 20)])
    assert (change.deleted, change.compacted) == (10, False)
    assert f"{file} is damaged: its checksum" in change.postponed
    with pytest.raises(IndexCorruptError, match=f"{file} is damaged"):
        Index.open(path).check()
    with pytest.raises(IndexCorruptError, match=f"{file} is damaged"):
        Index.open(path).compact()


@pytest.mark.parametrize("damage", [damage_text, damage_vector])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_reindex_refuses_damaged_documents_and_vectors(path, tmp_path, damage, elsewhere):
    file = damage(path)
    before = read_manifest(path)
    with pytest.raises(IndexCorruptError, match=f"{file} is damaged: (its checksum|the MiB)"):
        Index.open(path).reindex(out=tmp_path / "other" if elsewhere else None)
    assert read_manifest(path) == before
    assert not (tmp_path / "other").exists()


def test_new_metadata_does_not_copy_a_damaged_vector(path, encoder, documents):
    file = damage_vector(path)
    before = read_manifest(path)
    new = [Document(documents[3].doc_id, documents[3].text, documents[3].title, {"n": -1})]
    with pytest.raises(IndexCorruptError, match=f"{file} is damaged"):
        Index.open(path, encoder).update(new)
    assert read_manifest(path) == before
    assert encoder.calls == 1


def test_an_addition_does_not_extend_a_damaged_graph(path, encoder):
    index = Index.open(path, encoder)
    flip(path / "index.faiss", 1000)
    before = read_manifest(path)
    with pytest.raises(IndexCorruptError, match=r"index\.faiss is damaged: its checksum"):
        index.add([Document("new", "x")])
    assert read_manifest(path) == before


@pytest.mark.parametrize("role", ["fields", "deleted"])
def test_every_flipped_byte_of_a_small_file_is_found_when_the_index_is_opened(path, role):
    Index.open(path).delete(["d3"], KEEP)
    file = read_manifest(path).place(path, role)
    for place in range(0, file.stat().st_size, max(1, file.stat().st_size // 25)):
        flip(file, place)
        with pytest.raises(IndexCorruptError, match=f"{file} is damaged: its checksum"):
            Index.open(path)
        flip(file, place)
    Index.open(path)


def answers_and_refusals(folder, role):
    """How many of 150 damages of a file leave an answer, and how many an error that names it."""
    manifest = read_manifest(folder)
    file = manifest.place(folder, role)
    whole, chosen = file.read_bytes(), random.Random(0)
    answered = refused = 0
    for trial in range(150):
        content = bytearray(whole)
        place = chosen.randrange(len(content))
        content[place] ^= 1 << chosen.randrange(8) if trial % 3 else 0xFF
        if trial % 10 == 0:  # a run of them
            content[place : place + 8] = b"\xff" * len(content[place : place + 8])
        file.unlink()  # the mapping of the last trial keeps its own file
        file.write_bytes(content)
        try:
            found = Snapshot.of(folder, manifest, backend_of(manifest))
            queries = np.ones((1, 16), dtype=np.float32)
            for where in (None, "n >= 0", "n < 20 and n != 5"):
                found.search(queries, 25, selection=found.rows.select(where))
            list(found.documents.iterate_metadata())
            list(found.documents.iterate())
            answered += 1
        except IndexCorruptError as error:
            assert str(folder) in str(error), error
            assert "\n" not in str(error), error
            refused += 1
    return answered, refused


@pytest.mark.parametrize("role", ["documents/00000", "fields", "vectors/00000", "deleted"])
def test_no_damaged_file_crashes_a_reader_even_where_checksums_are_not_compared(path, role):
    """Every place that a seeded choice flips: an answer, or an error that names the file.

    Readers run in a process of their own, since Arrow used to end it.
    """
    Index.open(path).delete(["d3"], KEEP)
    with ProcessPoolExecutor(1, fakes.processes()) as reader:
        answered, refused = reader.submit(answers_and_refusals, path, role).result()
    assert answered + refused == 150
    assert refused >= 5


def test_a_file_that_may_not_be_read_is_not_called_damaged(path, monkeypatch):
    def refuse(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(FileEntry, "of", refuse)
    with pytest.raises(StorageError, match=r"may not be read.*Change its permissions") as caught:
        Index.open(path).check()
    assert "damaged" not in str(caught.value)
