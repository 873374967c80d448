import errno
import os

import pytest

from retrieval import disk
from retrieval.disk import replace_file, sync_path, sync_tree
from retrieval.errors import StorageError


def test_a_tree_is_synced_file_by_file_and_folder_by_folder(tmp_path, monkeypatch):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("x")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    sync_tree(tmp_path)
    expected = [tmp_path, tmp_path / "inner", tmp_path / "inner" / "file"]
    assert sorted(synced) == sorted(path.stat().st_ino for path in expected)


def test_what_is_missing_cannot_be_synced(tmp_path):
    with pytest.raises(FileNotFoundError):
        sync_path(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "Free some space"), (errno.EDQUOT, "Free some"), (errno.EACCES, "Check the")],
)
def test_a_file_that_cannot_be_replaced_is_as_it_was_and_the_error_advises(
    tmp_path, monkeypatch, number, advice
):
    (tmp_path / "f").write_text("old")

    def refuse(path, data):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(disk, "write_synced", refuse)
    with pytest.raises(StorageError, match=f"f: cannot be written .*[)][.] {advice}"):
        replace_file(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_text() == "old"
