"""Near-duplicates: which rows are kept, which join them, and what a distinct search leaves out."""

import numpy as np
import pytest

from indexes import Index, IndexConfig
from indexes.search import duplicates
from indexes.search.duplicates import find_alike, first_of_alike
from retrieval import Document
from retrieval.errors import UsageError
from tests.indexes.fakes import TableEncoder

ANGLES = [0, 90, 10, 20, 91, 0]
"""In degrees; the cosines of 10, 20 and 1 degrees are 0.985, 0.940 and 0.9998."""


@pytest.fixture
def index(tmp_path):
    angles = np.radians(ANGLES)
    table = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    documents = [
        Document(f"d{number}", str(number), metadata={"n": number}) for number in range(len(table))
    ]
    return Index.create(tmp_path / "i", TableEncoder(table), documents)


def groups(index, *args, **options):
    return {
        group.row: {row: round(cosine, 3) for row, cosine in group.others}
        for group in find_alike(index.snapshot, *args, **options)
    }


@pytest.mark.parametrize("block", [2048, 2, 1])
def test_a_row_joins_the_kept_one_that_it_is_most_like(index, monkeypatch, block):
    monkeypatch.setattr(duplicates, "_BLOCK_ROWS", block)
    # Row 3 is like row 2 (10 degrees), which is not kept, and not like row 0 (20 degrees).
    assert groups(index, 0.95) == {0: {2: 0.985, 5: 1.0}, 1: {4: 1.0}}
    # At 0.93, row 2 is kept no more than before, and row 3 is like row 0.
    assert groups(index, 0.93) == {0: {2: 0.985, 3: 0.94, 5: 1.0}, 1: {4: 1.0}}
    assert groups(index, 1.0) == {0: {5: 1.0}}


def test_blocks_change_nothing_among_many_rows(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    centres = random.standard_normal((40, 16))
    table = centres[random.integers(0, 40, 300)] + 0.15 * random.standard_normal((300, 16))
    documents = [Document(f"d{number}", str(number)) for number in range(300)]
    index = Index.create(tmp_path / "i", TableEncoder(table.astype(np.float32)), documents)
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    kept = []
    for row in range(300):
        if not kept or (unit[kept] @ unit[row]).max() < 0.95:
            kept.append(row)
    assert 40 <= len(kept) < 250
    for block in (2048, 7):
        monkeypatch.setattr(duplicates, "_BLOCK_ROWS", block)
        found = find_alike(index.snapshot, 0.95)
        copies = {row for group in found for row, _ in group.others}
        assert sorted(set(range(300)) - copies) == kept


def test_deleted_and_filtered_rows_are_left_out(index):
    index.delete(["d0"], IndexConfig(compact_share=1))
    # Row 2 comes first now: row 3 and row 5 are both 10 degrees from it.
    assert groups(index) == {1: {4: 1.0}, 2: {3: 0.985, 5: 0.985}}
    assert groups(index, where="n in [1, 4, 5]") == {1: {4: 1.0}}


def test_only_a_cosine_can_be_asked_for(index):
    with pytest.raises(UsageError, match="above is 1.5; expected a cosine"):
        find_alike(index.snapshot, 1.5)


def test_the_first_of_what_is_alike(index):
    assert first_of_alike(index.snapshot.stored.rows(np.array([5, 2, 1, 4, 3]))) == [0, 2, 4]
    assert first_of_alike(np.zeros((0, 2), np.float32)) == []


class TestDistinctSearch:
    def test_the_best_of_each_is_a_hit_and_k_of_them_are_found(self, index):
        query = np.array([[1.0, 0.0]], np.float32)
        hits = index.search(query, 3, distinct=True)[0]
        # Both documents at 0 degrees score 1; d0 comes first, and d5 and d2 (10 degrees) go.
        assert [(hit.rank, hit.doc_id) for hit in hits] == [(1, "d0"), (2, "d3"), (3, "d1")]
        assert [hit.doc_id for hit in index.search(query, 3)[0]] == ["d0", "d5", "d2"]

    def test_where_fewer_are_left_fewer_come(self, index):
        hits = index.search(np.array([[1.0, 0.0]], np.float32), 6, distinct=True)[0]
        assert len(hits) == 3

    def test_words_and_both_arms_too(self, index):
        for mode in ("lexical", "hybrid"):
            vectors = np.array([[1.0, 0.0]], np.float32)
            hits = index.search(vectors, 4, texts=["0 2 5 3"], mode=mode, distinct=True)[0]
            shown = {hit.doc_id for hit in hits}
            assert len(shown & {"d0", "d2", "d5"}) == 1
            assert "d3" in shown
