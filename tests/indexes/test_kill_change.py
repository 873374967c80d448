"""A change that is killed while the index is compacted after it is done; the next one goes on."""

import os
import signal
import subprocess
import sys

import pytest

from indexes import Index, IndexConfig, read_manifest
from indexes.storage.staging import read_unfinished
from tests.indexes import fakes
from tests.indexes.test_kill import assert_tidy

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL")

SCRIPT = """
import sys
from pathlib import Path
import indexes.build, indexes.index, indexes.transaction, indexes.storage.staging
from indexes import Index
from tests.indexes.fakes import HashingEncoder, die, make_documents

point, path = sys.argv[1:]
compact = indexes.index.compact

def dying(place, name, before):
    original = getattr(place, name)
    def replacement(*arguments, **options):
        found = None if before else original(*arguments, **options)
        die()
    setattr(place, name, replacement)

def arm(change):
    if point == "before it begins":
        die()
    if point == "after its shards":
        dying(indexes.storage.staging.Staging, "finish", before=False)
    if point == "after the arm":
        dying(indexes.build, "build_arm", before=False)
    if point == "after the build":
        dying(indexes.transaction.Transaction, "staged_files", before=True)
    if point == "between two renames":
        dying(Path, "rename", before=False)
    if point == "before the commit":
        dying(indexes.transaction, "commit", before=True)
    if point == "after the commit":
        dying(indexes.transaction, "commit", before=False)
    compact(change)

indexes.index.compact = arm
Index.open(path, HashingEncoder()).update(make_documents(10), delete_missing=True)
"""

POINTS = [
    "before it begins",
    "after its shards",
    "after the arm",
    "after the build",
    "between two renames",
    "before the commit",
    "after the commit",
]


def build_then_kill(point, path, backend="faiss"):
    """Kill an update that leaves 10 of 25 documents, in the compaction that follows it."""
    config = IndexConfig(backend=backend, language="english")
    Index.create(path, fakes.HashingEncoder(), fakes.make_documents(25), config)
    done = subprocess.run([sys.executable, "-c", SCRIPT, point, str(path)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
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
