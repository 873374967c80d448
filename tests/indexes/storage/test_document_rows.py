"""Documents as columns: the digest sees every change, and pieces make no difference."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from indexes.storage import document_writer
from indexes.storage import document_writer as module
from indexes.storage.document_writer import (
    ContentDigest,
    DocumentWriter,
    check_unique_ids,
    column_bytes,
    make_rows,
)
from indexes.storage.documents import DocumentStore
from retrieval import Document
from retrieval.errors import DuplicateIdError
from tests.indexes import fakes

DOCUMENTS = [Document("a", "one", "t"), Document("b", "twö", "", {"n": 1}), Document("c", "")]


def digest(*pieces):
    content = ContentDigest()
    for piece in pieces:
        content.update(make_rows(piece))
    return content.digest()


def write(folder, *pieces):
    with DocumentWriter(folder / "00000.arrow") as writer:
        for piece in pieces:
            writer.extend(piece)
    return DocumentStore(fakes.stored_in(folder))


def test_the_lengths_are_bytes_and_a_slice_is_measured_alone():
    column = make_rows(DOCUMENTS).column("text")
    lengths, joined = column_bytes(column)
    assert lengths.tolist() == [3, 4, 0]  # ö is two bytes
    assert bytes(joined) == "onetwö".encode()
    lengths, joined = column_bytes(column.slice(1, 1))
    assert (lengths.tolist(), bytes(joined)) == ([4], "twö".encode())


def test_the_digest_does_not_depend_on_the_pieces():
    assert digest(DOCUMENTS) == digest(DOCUMENTS[:1], DOCUMENTS[1:]) == digest(*zip(DOCUMENTS))


@pytest.mark.parametrize(
    "change",
    [{"doc_id": "d"}, {"text": "one!"}, {"title": ""}, {"metadata": {"n": True}}],
    ids=lambda change: next(iter(change)),
)
def test_the_digest_sees_every_part(change):
    assert digest([replace(DOCUMENTS[0], **change), *DOCUMENTS[1:]]) != digest(DOCUMENTS)


def test_the_digest_sees_order_and_where_a_text_ends():
    assert digest(DOCUMENTS[::-1]) != digest(DOCUMENTS)
    assert digest([Document("a", "xy"), Document("b", "z")]) != digest(
        [Document("a", "x"), Document("b", "yz")]
    )
    assert digest([Document("a", "x")]) != digest([Document("a", "", "x")])


def test_pieces_of_any_length_become_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH_DOCUMENTS", 4)
    made = fakes.make_documents(11)
    contents = []
    for name, cuts in (("whole", []), ("pieces", [1, 3, 9]), ("single", range(1, 11))):
        (tmp_path / name).mkdir()
        bounds = [0, *cuts, 11]
        store = write(tmp_path / name, *(made[a:b] for a, b in pairwise(bounds)))
        assert [len(ids) for ids in store.iterate_ids()] == [4, 4, 3]
        contents.append((tmp_path / name / "00000.arrow").read_bytes())
    assert contents[0] == contents[1] == contents[2]


def test_what_is_deleted_or_replaced_under_a_reader_is_still_read(tmp_path):
    store = write(tmp_path, [Document("old", "t", metadata={"n": 1})])
    (tmp_path / "00000.arrow").rename(tmp_path / "gone")
    assert list(store.iterate_ids()) == [["old"]]
    write(tmp_path, [Document("new", "t", metadata={"n": 2})])
    assert list(store.iterate_ids()) == [["old"]]
    assert list(store.iterate_metadata()) == [[{"n": 1}]]


def test_equal_hashes_are_no_equal_ids(tmp_path, monkeypatch):
    def all_alike(doc_ids):
        return np.zeros(len(doc_ids), np.uint64)

    monkeypatch.setattr(document_writer, "hash_ids", all_alike)
    store = write(tmp_path, fakes.make_documents(5))
    check_unique_ids(store, source="c")
    again = write(tmp_path, [*fakes.make_documents(5), Document("d3", "again")])
    with pytest.raises(DuplicateIdError, match="c:6: id 'd3' is already the id of record 4"):
        check_unique_ids(again, source="c")
    deleted = np.array([True, True, True, False, True, True])
    check_unique_ids(again, source="c", live=deleted)
