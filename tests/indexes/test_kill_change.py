"""A change that is killed while the index is compacted after it is done; the next one goes on."""

import os
import signal
from pathlib import Path

import pytest

from indexes import Index, IndexConfig, build, read_manifest, transaction
from indexes import index as index_module
from indexes.storage import staging
from indexes.storage.staging import read_unfinished
from tests.indexes import fakes
from tests.indexes.test_kill import assert_tidy

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL")

MOMENTS = {
    "after its shards": (staging.Staging, "finish", False),
    "after the arm": (build, "build_arm", False),
    "after the build": (transaction.Transaction, "staged_files", True),
    "between two renames": (Path, "rename", False),
    "before the commit": (transaction, "commit", True),
    "after the commit": (transaction, "commit", False),
}
"""Which function kills, and whether before it does its work."""

POINTS = ["before it begins", *MOMENTS]


def compact_and_die(point, path):
    """Keep 10 documents by an update, and die in the compaction that follows it."""
    compact = index_module.compact

    def compact_armed(change):
        if point == "before it begins":
            fakes.die()
        place, name, before = MOMENTS[point]
        fakes.dying(place, name, before=before)
        compact(change)

    index_module.compact = compact_armed
    index = Index.open(path, fakes.HashingEncoder())
    index.update(fakes.make_documents(10), delete_missing=True)


def build_then_kill(point, path, backend="faiss"):
    """Kill an update that leaves 10 of 25 documents, in the compaction that follows it."""
    config = IndexConfig(backend=backend, language="english")
    Index.create(path, fakes.HashingEncoder(), fakes.make_documents(25), config)
    assert fakes.exit_code_of(compact_and_die, point, path) == -signal.SIGKILL
    assert read_manifest(path).documents == 10  # the update itself is done


@pytest.mark.parametrize(
    ("backend", "point"),
    [*[("faiss", point) for point in POINTS], ("qdrant", POINTS[1]), ("qdrant", POINTS[5])],
)
def test_an_update_that_was_killed_in_the_compaction_after_it_goes_on(tmp_path, backend, point):
    path, encoder = tmp_path / "i", fakes.HashingEncoder()
    build_then_kill(point, path, backend)
    index = Index.open(path, encoder)
    change = index.update(fakes.make_documents(10), delete_missing=True)
    assert (change.unchanged, change.added, change.deleted) == (10, 0, 0)
    assert encoder.calls == 0
    assert (change.manifest.documents, change.manifest.rows) == (10, 10)
    assert index.check() == change.manifest
    assert fakes.ids_by_words(index) == sorted(f"d{number}" for number in range(10))
    assert_tidy(path)


@pytest.mark.parametrize("change", ["add", "overwrite", "delete", "compact"])
def test_any_change_goes_on_after_a_killed_compaction(tmp_path, change):
    path, encoder = tmp_path / "i", fakes.HashingEncoder()
    build_then_kill("after its shards", path)
    unfinished = read_unfinished(path)
    assert (unfinished.change, unfinished.shards) == ("compaction", 0)
    if change == "add":
        Index.open(path, encoder).add(fakes.make_documents(2, "new"))
    elif change == "delete":
        Index.open(path).delete(["d1"])
    elif change == "compact":
        Index.open(path).compact()
    else:
        Index.create(path, encoder, fakes.make_documents(9), IndexConfig(overwrite=True))
    expected = {"add": 12, "delete": 9, "compact": 10, "overwrite": 9}
    assert Index.open(path).check().documents == expected[change]
    assert len(fakes.ids_by_words(Index.open(path))) == expected[change]
    assert read_unfinished(path) is None
    assert_tidy(path)


def test_what_a_kill_leaves_after_a_finished_change_is_swept_by_the_next(tmp_path):
    path, encoder = tmp_path / "i", fakes.HashingEncoder()
    Index.create(path, encoder, fakes.make_documents(5))
    (path / ".lock").touch()
    (path / ".building").mkdir()
    Index.open(path, encoder).add(fakes.make_documents(1, "new"))
    assert_tidy(path)
