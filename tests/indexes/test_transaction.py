"""A change starts from what the index is once it is locked, not from what it was before."""

import errno
import io
import shutil

import numpy as np
import pytest
from filelock import FileLock

from indexes import Index, IndexConfig, build, check_target, read_manifest
from indexes.storage import staging
from indexes.storage.staging import read_unfinished
from indexes.transaction import Transaction
from retrieval import Document
from retrieval.errors import StorageError, UsageError
from tests.indexes import fakes

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


@pytest.mark.parametrize("change", ["compact", "add"])
def test_an_interrupted_change_closes_what_it_was_writing(path, encoder, monkeypatch, change):
    written = []

    def interrupted(self, chunk, vectors):
        append(self, chunk, vectors)
        written.extend([self._open._documents._stream, self._open._vectors._stream])
        raise KeyboardInterrupt

    append = staging.Staging.append
    monkeypatch.setattr(staging.Staging, "append", interrupted)
    index = Index.open(path, encoder)
    with pytest.raises(KeyboardInterrupt):
        index.compact() if change == "compact" else index.add(fakes.make_documents(2, "new"))
    assert [stream.closed for stream in written] == [True, True]
    assert found_ids(path) == ids_without("d3")


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


def make_unfinished(path, encoder, monkeypatch):
    """Leave a build of which one shard is finished."""
    monkeypatch.setattr(staging, "SHARD_SECONDS", 0.0)

    def broken():
        yield from fakes.make_documents(10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Index.create(path, encoder, broken(), IndexConfig(batch_documents=4))
    assert read_unfinished(path).documents


def test_reindex_drops_no_unfinished_build_of_the_other_folder(
    path, encoder, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    make_unfinished(out, encoder, monkeypatch)
    with pytest.raises(UsageError, match="unfinished index, whose embedded documents would be"):
        Index.open(path).reindex(out=out)
    assert read_unfinished(out).documents
    Index.open(path).reindex(out=out, overwrite=True)
    assert found_ids(out) == found_ids(path)


@pytest.mark.parametrize("write", ["create", "reindex", "delete"])
def test_a_lock_of_another_program_is_left_alone(path, encoder, tmp_path, write):
    target = path if write == "delete" else tmp_path / "out"
    target.mkdir(exist_ok=True)
    (target / ".lock").write_text("pid 7")
    with pytest.raises(UsageError, match=r"\.lock belongs to another program"):
        if write == "create":
            Index.create(target, encoder, fakes.make_documents(3))
        elif write == "reindex":
            Index.open(path).reindex(out=target)
        else:
            Index.open(path).delete(["d1"])
    assert (target / ".lock").read_text() == "pid 7"


@pytest.mark.parametrize("inside", ["", "inside"])
def test_a_link_to_nothing_is_no_place_for_an_index(path, encoder, tmp_path, inside):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    out = tmp_path / "link" / inside
    with pytest.raises(UsageError, match="is a symbolic link to .*nowhere, which is not there"):
        check_target(out)
    with pytest.raises(UsageError, match="is a symbolic link to .*nowhere, which is not there"):
        Index.create(out, encoder, fakes.make_documents(3))
    with pytest.raises(UsageError, match="is a symbolic link to .*nowhere, which is not there"):
        Index.open(path).reindex(out=out)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("place", ["manifest", "documents", "vectors"])
def test_what_may_not_be_read_is_not_called_damaged(path, place, monkeypatch):
    """As root reads everything, the refusal is the system's answer to ``open`` alone."""
    name = (
        "manifest.json" if place == "manifest" else read_manifest(path).files[f"{place}/00000"].name
    )
    opened = io.open

    def refuse(file, *arguments, **options):
        if str(file).endswith(name):
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return opened(file, *arguments, **options)

    monkeypatch.setattr(io, "open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(StorageError, match="may not be read") as refused:
        Index.open(path).search(np.ones((1, 16), dtype=np.float32), 3)
    assert "damaged" not in str(refused.value)


@pytest.mark.parametrize("moment", [6, 12, 25, "publish"])
@pytest.mark.parametrize("gone", ["moved", "deleted"])
def test_a_folder_that_is_moved_while_it_is_written_is_named(
    tmp_path, encoder, documents, monkeypatch, moment, gone
):
    path, there = tmp_path / "i", tmp_path / "there"

    def leave(*_):
        path.rename(there) if gone == "moved" else shutil.rmtree(path)

    def corpus():
        for number, document in enumerate(documents):
            if number == moment:
                leave()
            yield document
        if moment == len(documents):
            leave()

    publish = Transaction.publish
    if moment == "publish":
        monkeypatch.setattr(Transaction, "publish", lambda *all: (leave(), publish(*all)))
    with pytest.raises(StorageError, match="was moved or deleted while it was written"):
        Index.create(path, encoder, corpus(), IndexConfig(batch_documents=5))
    assert not (path / "manifest.json").exists()
    if gone == "moved":
        monkeypatch.undo()
        assert len(Index.create(there, encoder, documents, IndexConfig(batch_documents=5))) == 25


def test_a_change_of_a_moved_index_leaves_it_as_it_was(tmp_path, path, encoder):
    there = tmp_path / "there"

    def corpus():
        path.rename(there)
        yield Document("new", "text")

    index = Index.open(path, encoder)
    with pytest.raises(StorageError, match="was moved or deleted while it was written"):
        index.add(corpus())
    assert found_ids(there) == ids_without("d3")
