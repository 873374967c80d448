"""Damage is found before it is copied, extended or read; it never gets a new checksum."""

import pytest

from indexes import Index, IndexConfig, read_manifest
from retrieval import Document
from retrieval.errors import IndexCorruptError

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


@pytest.mark.parametrize("damage", [damage_text, damage_vector])
def test_a_deletion_does_not_copy_damage_into_a_compacted_index(path, damage):
    file = damage(path)
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
    with pytest.raises(IndexCorruptError, match=f"{file} is damaged: its checksum"):
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
