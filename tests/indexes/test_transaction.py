"""A change starts from what the index is once it is locked, not from what it was before."""

import numpy as np
import pytest
from filelock import FileLock

from indexes import Index, IndexConfig, build
from retrieval import Document
from retrieval.errors import StorageError

KEEP = IndexConfig(compact_share=1.0)


@pytest.fixture
def before_the_lock(monkeypatch):
    """Takes what another process does right before the next lock is taken."""

    def arm(action):
        acquire = FileLock.acquire

        def interrupted(self, *arguments, **options):
            monkeypatch.setattr(FileLock, "acquire", acquire)
            action()
            return acquire(self, *arguments, **options)

        monkeypatch.setattr(FileLock, "acquire", interrupted)

    return arm


@pytest.fixture
def path(tmp_path, encoder, documents):
    """An index of d0 to d24 without d3."""
    Index.create(tmp_path / "i", encoder, documents).delete(["d3"], KEEP)
    return tmp_path / "i"


def found_ids(path):
    vectors = np.ones((1, 16), dtype=np.float32)
    return {hit.doc_id for hit in Index.open(path).search(vectors, 100)[0]}


def ids_without(*gone):
    return {f"d{number}" for number in range(25)} - set(gone)


@pytest.mark.parametrize("compacted", [False, True])
def test_a_deletion_before_the_lock_of_a_reindex_stays_deleted(path, before_the_lock, compacted):
    def meanwhile():
        other = Index.open(path)
        other.delete(["d9"], KEEP)
        if compacted:
            other.compact()

    before_the_lock(meanwhile)
    index = Index.open(path).reindex(factory="HNSW16")
    assert found_ids(path) == ids_without("d3", "d9")
    assert len(index) == 23
    index.check()


@pytest.mark.parametrize("change", ["delete", "add", "update", "compact"])
@pytest.mark.parametrize("compacted", [False, True])
def test_every_change_starts_from_what_was_published_before_its_lock(
    path, encoder, before_the_lock, change, compacted
):
    def meanwhile():
        other = Index.open(path)
        other.delete(["d9"], KEEP)
        if compacted:
            other.compact()

    index = Index.open(path, encoder)
    before_the_lock(meanwhile)
    if change == "delete":
        index.delete(["d11"], KEEP)
        assert found_ids(path) == ids_without("d3", "d9", "d11")
    elif change == "compact":
        assert index.compact().rows == 23
        assert found_ids(path) == ids_without("d3", "d9")
    else:
        getattr(index, change)([Document("new", "new")], KEEP)
        assert found_ids(path) == ids_without("d3", "d9") | {"new"}
    assert found_ids(path) == {hit.doc_id for hit in index.search("x", 100)}
    index.check()


@pytest.mark.parametrize("compacted", [False, True])
def test_another_folder_gets_one_state_of_an_index_that_changes_meanwhile(
    tmp_path, path, monkeypatch, compacted
):
    share, calls = build._share, []

    def interrupted(*arguments):
        if not calls:
            calls.append("first file")
            other = Index.open(path)
            other.delete(["d9"], KEEP)
            if compacted:
                other.compact()
        return share(*arguments)

    monkeypatch.setattr(build, "_share", interrupted)
    Index.open(path).reindex(out=tmp_path / "other", factory="HNSW16").check()
    assert found_ids(tmp_path / "other") == ids_without("d3", "d9")


def test_an_index_that_never_rests_is_not_copied(tmp_path, path, encoder, monkeypatch):
    share, numbers = build._share, iter(range(100))

    def interrupted(*arguments):
        Index.open(path, encoder).add([Document(f"new {next(numbers)}", "")], KEEP)
        return share(*arguments)

    monkeypatch.setattr(build, "_share", interrupted)
    with pytest.raises(StorageError, match=r"was changed by another process.*Type the command"):
        Index.open(path).reindex(out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_a_transaction_stages_is_dropped_unless_it_is_published(path, documents):
    index = Index.open(path)
    with index.transaction() as change:
        assert change.snapshot is index.snapshot  # nobody changed it: not opened again
        staging = change.stage({}, source="c", dimension=16, vector_type="float32")
        staging.append([documents[3]], np.ones((1, 16), dtype=np.float32))
        staging.finish()
    assert not (path / ".building").exists()
    assert found_ids(path) == ids_without("d3")
    assert len(index) == 24


def test_a_transaction_locks_the_index(path):
    with (
        Index.open(path).transaction(),
        pytest.raises(StorageError, match="Another process is writing"),
    ):
        Index.open(path).delete(["d1"])
