"""Every MiB of a file is compared with its checksum before anything in it is used."""

import numpy as np
import pytest
from xxhash import xxh3_64_hexdigest

from indexes.storage.document_writer import DocumentWriter
from indexes.storage.documents import DocumentStore
from indexes.storage.files import (
    BLOCK_BYTES,
    Blocks,
    FileEntry,
    StoredFile,
    find_changed_block,
    from_memory,
)
from indexes.storage.vectors import Shards, VectorWriter
from retrieval import Document
from retrieval.errors import IndexCorruptError

SEVERAL = 3 * BLOCK_BYTES + 17  # three whole blocks and a part of one


def stored(path):
    return StoredFile(path, FileEntry.of(path, path.name).blocks)


def flip(path, place):
    with path.open("r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ 1]))


@pytest.fixture
def file(tmp_path):
    content = np.random.default_rng(0).bytes(SEVERAL)
    (tmp_path / "file").write_bytes(content)
    return tmp_path / "file"


def test_an_entry_has_16_digits_for_each_mib(file):
    entry, content = FileEntry.of(file, "file"), file.read_bytes()
    parts = [content[start : start + BLOCK_BYTES] for start in range(0, SEVERAL, BLOCK_BYTES)]
    assert entry.blocks == "".join(map(xxh3_64_hexdigest, parts))
    assert (entry.bytes, len(entry.blocks)) == (SEVERAL, 4 * 16)
    with pytest.raises(ValueError, match="another size"):
        FileEntry("file", SEVERAL, "0" * 64, "0" * 16)


@pytest.mark.parametrize("block", range(4))
def test_a_flipped_bit_is_found_in_its_block_and_no_other_block_is_read(file, block):
    known = stored(file)
    flip(file, min(block * BLOCK_BYTES + 5, SEVERAL - 1))
    assert find_changed_block(known) == block
    assert find_changed_block(StoredFile(file)) is None  # of an index without such checksums
    blocks = Blocks(known, from_memory(memoryview(file.read_bytes())))
    for number in range(4):
        start = number * BLOCK_BYTES
        if number == block:
            with pytest.raises(IndexCorruptError, match=f"{file} is damaged: the MiB from byte"):
                blocks.check(start, start + 1)
        else:
            blocks.check(start, start + 1)
    assert blocks.left == 1


def test_a_block_is_compared_once(file):
    calls = []

    def read(start, stop):
        calls.append(start // BLOCK_BYTES)
        return file.read_bytes()[start:stop]

    blocks = Blocks(stored(file), read)
    blocks.check(BLOCK_BYTES - 1, BLOCK_BYTES + 1)  # the last byte of block 0, the first of block 1
    blocks.check_each(
        np.array([0, BLOCK_BYTES, 2 * BLOCK_BYTES - 2]), 4
    )  # the last reaches block 2
    blocks.check(0, SEVERAL)
    assert calls == [0, 1, 2, 3]
    assert blocks.left == 0


def test_a_value_longer_than_a_block_is_compared_whole(file):
    calls = []
    blocks = Blocks(stored(file), lambda start, stop: calls.append(start) or b"")
    with pytest.raises(IndexCorruptError):
        blocks.check_each(np.array([10]), 2 * BLOCK_BYTES)
    assert calls == [0]


def test_vectors_are_read_from_every_whole_block_and_from_no_damaged_one(tmp_path):
    rows = np.arange(3 * 2**16 * 4, dtype=np.float32).reshape(-1, 4)  # 16 bytes each, 3 MiB
    path = tmp_path / "00000.npy"
    with VectorWriter(path, 4) as writer:
        writer.append(rows)
    known = stored(path)
    flip(path, BLOCK_BYTES + 100)
    # The file begins with 128 bytes, so that block 1 holds rows 65,528 to 131,063.
    shards = Shards([known], 4)
    assert np.array_equal(shards.rows(np.array([65_527, 0, 131_064])), rows[[65_527, 0, 131_064]])
    for row in (65_528, 100_000, 131_063):
        with pytest.raises(IndexCorruptError, match=r"00000\.npy is damaged: the MiB from byte 1,"):
            shards.rows(np.array([0, row]))
    with pytest.raises(IndexCorruptError, match=r"00000\.npy"):
        list(shards)
    assert np.array_equal(Shards([StoredFile(path)], 4).rows(np.array([131_063]))[0], rows[131_063])


def test_documents_are_read_from_every_whole_block_and_from_no_damaged_one(tmp_path):
    path = tmp_path / "00000.arrow"
    documents = [Document(str(number), f"{number:01000}") for number in range(5000)]
    with DocumentWriter(path) as writer:
        writer.extend(documents)
    known = stored(path)
    flip(path, path.read_bytes().index(b"0" * 996 + b"2501"))  # in the third of five batches
    store = DocumentStore([known])
    assert store.documents(np.array([4999]))[4999] == documents[4999]
    assert store.documents(np.array([10]))[10] == documents[10]
    for read in (
        lambda: store.documents(np.array([2500])),
        lambda: store.ids(np.array([2600])),
        lambda: list(store.iterate()),
        lambda: list(store.iterate_ids()),
    ):
        with pytest.raises(IndexCorruptError, match=r"00000\.arrow is damaged: the MiB from byte"):
            read()


def test_every_flipped_bit_of_a_footer_is_found_when_the_file_is_opened(tmp_path):
    path = tmp_path / "00000.arrow"
    with DocumentWriter(path) as writer:
        writer.extend([Document("a", "text")])
    known, size = stored(path), path.stat().st_size
    for place in range(size - 400, size, 7):
        flip(path, place)
        with pytest.raises(IndexCorruptError, match=r"00000\.arrow is damaged"):
            DocumentStore([known])
        flip(path, place)
    assert len(DocumentStore([known])) == 1


def test_an_empty_file_has_no_blocks(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert FileEntry.of(tmp_path / "empty", "empty").blocks == ""
