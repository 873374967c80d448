import numpy as np
import pytest

from indexes.storage.vectors import Shards, VectorWriter
from indexes.writing import check_encoded
from retrieval import Document
from retrieval.errors import IndexCorruptError, VectorError
from tests.indexes import fakes


def rows(count, dimension=4):
    return np.arange(count * dimension, dtype=np.float32).reshape(count, dimension)


def write(folder, *parts):
    """Write a shard for each part."""
    folder.mkdir()
    for number, part in enumerate(parts):
        with VectorWriter(folder / f"{number:05d}.npy", part.shape[1]) as writer:
            writer.append(part)


def test_shards_return_what_was_appended_in_order(tmp_path):
    with VectorWriter(tmp_path / "one.npy", 4) as writer:
        for part in np.split(rows(10), [2, 2, 9]):
            writer.append(part)
    assert writer.rows == 10
    assert np.array_equal(np.load(tmp_path / "one.npy"), rows(10))
    write(tmp_path / "v", *np.split(rows(10), [3, 6, 9]))
    shards = Shards(fakes.stored_in(tmp_path / "v"), 4)
    assert len(shards) == 10
    assert np.array_equal(np.concatenate(list(shards)), rows(10))


def test_every_batch_reaches_the_file_before_the_shard_is_complete(tmp_path):
    with VectorWriter(tmp_path / "v.npy", 4) as writer:
        writer.append(rows(5))
        assert (tmp_path / "v.npy").stat().st_size == 128 + 5 * 16


@pytest.mark.parametrize(
    "vectors",
    [
        rows(2, 3),
        rows(2).astype(np.float64),
        rows(2)[0],
        [[1.0, 2.0, 3.0, 4.0]],
        np.full((1, 4), np.nan, dtype=np.float32),
        np.full((1, 4), np.inf, dtype=np.float32),
    ],
    ids=["dimension", "dtype", "one row", "list", "nan", "infinity"],
)
def test_a_batch_that_is_not_finite_float32_of_the_right_shape_is_refused(vectors):
    documents = [Document(str(number), "") for number in range(len(vectors))]
    with pytest.raises(VectorError, match="encoder"):
        check_encoded(vectors, documents, 4)


def test_a_sample_is_sorted_distinct_and_repeatable(tmp_path):
    write(tmp_path / "v", *np.split(rows(10), [3, 6, 9]))
    shards = Shards(fakes.stored_in(tmp_path / "v"), 4)
    sample = shards.sample(6, seed=0)
    assert sample.shape == (6, 4)
    assert (np.diff(sample[:, 0]) > 0).all()
    assert {tuple(row) for row in sample} <= {tuple(row) for row in rows(10)}
    assert np.array_equal(sample, shards.sample(6, seed=0))
    assert np.array_equal(shards.sample(99, seed=0), rows(10))


@pytest.mark.parametrize("damage", ["truncate", "dimension"])
def test_a_damaged_shard_is_corrupt(tmp_path, damage):
    write(tmp_path / "v", rows(5))
    if damage == "truncate":
        with (tmp_path / "v" / "00000.npy").open("r+b") as stream:
            stream.truncate(150)
    with pytest.raises(IndexCorruptError, match=r"00000\.npy"):
        Shards(fakes.stored_in(tmp_path / "v"), 4 if damage == "truncate" else 5)
