import os

import pytest

from retrieval.disk import sync_path, sync_tree


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
