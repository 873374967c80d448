import numpy as np
import pyarrow as pa
import pytest

from indexes.storage import document_writer as module
from indexes.storage.document_writer import DocumentWriter, check_unique_ids
from indexes.storage.documents import DocumentStore
from retrieval import Document
from retrieval.errors import DuplicateIdError, IndexCorruptError, RecordError
from tests.indexes import fakes


def write(folder, documents, *, files=1):
    """Write the documents to so many files, and open them."""
    folder.mkdir()
    for number, part in enumerate(np.array_split(np.arange(len(documents)), files)):
        with DocumentWriter(folder / f"{number:05d}.arrow") as writer:
            for index in part:
                writer.extend([documents[index]])
    return DocumentStore(fakes.stored_in(folder))


@pytest.mark.parametrize("files", [1, 3])
def test_every_document_comes_back_by_its_row_number(tmp_path, monkeypatch, files):
    monkeypatch.setattr(module, "BATCH_DOCUMENTS", 4)
    documents = fakes.make_documents(11)  # of one file batches of 4, 4 and 3; or files of 4, 4, 3
    store = write(tmp_path / "d", documents, files=files)
    assert len(store) == 11
    everything = store.documents(np.arange(11))
    assert [everything[row] for row in range(11)] == documents
    assert store.ids(np.array([10, 3, 4, 3])) == {3: "d3", 4: "d4", 10: "d10"}
    assert store.documents(np.array([], dtype=np.int64)) == {}


def test_rows_in_any_order_are_found_in_batches_of_any_length(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH_DOCUMENTS", 4)
    monkeypatch.setattr(module, "BATCH_BYTES", 60)  # which the later ones reach with fewer
    documents = [Document(f"d{n}", "ö" * n, metadata={"n": n} if n % 3 else {}) for n in range(40)]
    store = write(tmp_path / "d", documents, files=3)
    rows = np.random.default_rng(0).permutation(40)
    for asked in (rows[:1], rows[1:7], rows, rows[::-1].repeat(2)):
        found = store.documents(asked)
        assert found == {row: documents[row] for row in asked.tolist()}
        assert list(found) == sorted(set(asked.tolist()))
        assert store.ids(asked) == {row: f"d{row}" for row in asked.tolist()}


def test_a_lookup_among_1024_batches_opens_at_most_twelve(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH_DOCUMENTS", 1)
    store = write(tmp_path / "d", fakes.make_documents(1024))
    assert store.ids(np.array([300])) == {300: "d300"}
    assert len(store._files[0]._batches) <= 12  # the last one, for the length, and log2(1024) + 1


def test_batches_are_bounded_by_bytes_and_a_document_may_be_larger_than_a_batch(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "BATCH_BYTES", 1000)
    texts = ["a" * 400, "b" * 700, "é" * 1_000_000, "d"]
    store = write(tmp_path / "d", [Document(str(n), text) for n, text in enumerate(texts)])
    assert store._files[0]._reader.num_record_batches == 3  # {a, b}, {é}, {d}
    assert [store.documents(np.arange(4))[row].text for row in range(4)] == texts


def test_a_lookup_reads_the_mapped_file_and_copies_no_batch(tmp_path):
    documents = [Document(str(n), "x" * 100_000) for n in range(200)]  # 20 MB
    store = write(tmp_path / "d", documents)
    before = pa.total_allocated_bytes()
    assert store.documents(np.array([150]))[150].text == "x" * 100_000
    assert pa.total_allocated_bytes() - before < 1_000_000


def test_metadata_keeps_its_types(tmp_path):
    metadata = {"s": "ü", "i": 2**60, "f": 0.1, "b": True, "none": None}
    store = write(tmp_path / "d", [Document("a", "t", metadata=metadata)])
    assert store.documents(np.array([0]))[0].metadata == metadata


@pytest.mark.parametrize(
    "document", [Document("a", "\ud800"), Document("a", "t", metadata={"x": object()})]
)
def test_a_document_that_cannot_be_stored_is_named(tmp_path, document):
    with (
        pytest.raises(RecordError, match="corpus:1: document 'a' cannot be stored"),
        DocumentWriter(tmp_path / "d.arrow") as writer,
    ):
        writer.extend([document])


@pytest.mark.parametrize("size", [0, 10, 500])
def test_a_truncated_file_is_corrupt(tmp_path, size):
    write(tmp_path / "d", fakes.make_documents(9))
    with (tmp_path / "d" / "00000.arrow").open("r+b") as stream:
        stream.truncate(size)
    with pytest.raises(IndexCorruptError, match=r"00000\.arrow is damaged") as caught:
        DocumentStore(fakes.stored_in(tmp_path / "d"))
    assert "\n" not in str(caught.value)


def test_an_arrow_file_with_other_columns_is_corrupt(tmp_path):
    batch = pa.record_batch({"a": ["x"]})
    with (
        pa.OSFile(str(tmp_path / "d.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, batch.schema) as writer,
    ):
        writer.write_batch(batch)
    with pytest.raises(IndexCorruptError, match="columns"):
        DocumentStore(fakes.stored_in(tmp_path))


def test_a_repeated_id_is_found_across_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH_DOCUMENTS", 4)
    documents = fakes.make_documents(11)
    check_unique_ids(write(tmp_path / "a", documents), source="c")
    store = write(tmp_path / "b", [*documents, Document("d2", "again")])
    with pytest.raises(DuplicateIdError, match="c:12: id 'd2' is already the id of record 3"):
        check_unique_ids(store, source="c")


def test_metadata_that_is_no_json_names_the_file_of_several(tmp_path):
    documents = [Document(str(n), "t", metadata={"key": n}) for n in range(4)]
    write(tmp_path / "d", documents, files=2)
    second = tmp_path / "d" / "00001.arrow"
    second.write_bytes(second.read_bytes().replace(b'{"key":3}', b'{"key":3]'))
    store = DocumentStore(fakes.stored_in(tmp_path / "d"))
    with pytest.raises(IndexCorruptError, match=r"00001\.arrow is damaged"):
        store.documents(np.arange(4))
    assert store.documents(np.array([2]))[2].metadata == {"key": 2}
