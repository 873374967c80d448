"""A writer that is killed leaves the old index or none, and the next one goes on or cleans up."""

import os
import signal
import subprocess
import sys

import pytest

from indexes import Index, IndexConfig, read_manifest
from retrieval.errors import IndexCorruptError, SourceNotFoundError
from tests.indexes import fakes

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL")


SCRIPT = """
import sys
from pathlib import Path
import indexes.build, indexes.lexical.build, indexes.transaction, indexes.storage.staging
from indexes import Index, IndexConfig
from tests.indexes.fakes import HashingEncoder, die, make_documents

point, path = sys.argv[1:]
encoder = HashingEncoder(die_at=int(point) if point.isdigit() else 0)
renames = []

def dying(module, name, before):
    original = getattr(module, name)
    def replacement(*arguments):
        if not before:
            original(*arguments)
        die()
    setattr(module, name, replacement)

if point == "half of the arm":
    write_rows = indexes.lexical.build.write_rows
    def write_half(folder, rows, analyser):
        write_rows(folder, list(rows)[::2], analyser)
        die()
    indexes.lexical.build.write_rows = write_half
if point == "after the shards":
    dying(indexes.build, "infer_fields", before=True)
if point == "after the build":
    dying(indexes.transaction.Transaction, "staged_files", before=True)
if point == "before publishing":
    dying(indexes.transaction.Transaction, "publish", before=True)
if point == "between two renames":
    dying(Path, "rename", before=False)
if point == "before the commit":
    dying(indexes.transaction, "commit", before=True)
if point == "after the commit":
    dying(indexes.transaction, "commit", before=False)
indexes.storage.staging.SHARD_SECONDS = 0.0  # a shard for each chunk
config = IndexConfig(overwrite=True, batch_documents=10, language="english")
Index.create(path, encoder, make_documents(30, "new"), config)
"""

POINTS = [
    "1",
    "2",
    "3",
    "after the shards",
    "half of the arm",
    "after the build",
    "before publishing",
    "between two renames",
    "before the commit",
    "after the commit",
]


def write_until_killed(point, path):
    done = subprocess.run([sys.executable, "-c", SCRIPT, point, str(path)], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


def assert_tidy(path):
    listed = {entry.name for entry in read_manifest(path).files.values()}
    present = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    assert present == listed | {"manifest.json"}


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_during_the_first_build_leaves_no_index_or_a_whole_one(
    tmp_path, encoder, documents, point
):
    path = tmp_path / "i"
    write_until_killed(point, path)
    if point == "after the commit":
        assert Index.open(path).check().documents == 30
    else:
        with pytest.raises((IndexCorruptError, SourceNotFoundError), match="interrupted"):
            Index.open(path)
    Index.create(
        path, encoder, documents, IndexConfig(overwrite=point == "after the commit", restart=True)
    )
    assert Index.open(path).check().documents == 25
    assert fakes.ids_by_words(Index.open(path)) == sorted(one.doc_id for one in documents)
    assert_tidy(path)


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_during_an_overwrite_leaves_the_old_index_or_the_new_one(
    tmp_path, encoder, documents, point
):
    path = tmp_path / "i"
    Index.create(path, encoder, documents)
    write_until_killed(point, path)
    assert Index.open(path).check().documents == (30 if point == "after the commit" else 25)
    hit = Index.open(path).search(encoder.encode_queries([documents[3].content]), 1)[0][0]
    assert (hit.doc_id == "d3") == (point != "after the commit")
    prefix, count = ("new", 30) if point == "after the commit" else ("d", 25)
    expected = sorted(f"{prefix}{number}" for number in range(count))
    assert fakes.ids_by_words(Index.open(path)) == expected
    Index.create(path, encoder, documents[:7], IndexConfig(overwrite=True, restart=True))
    assert Index.open(path).check().documents == 7
    assert_tidy(path)


@pytest.mark.parametrize("point", POINTS[:-1])
def test_a_killed_build_goes_on_and_embeds_nothing_twice(tmp_path, point):
    path, documents = tmp_path / "i", fakes.make_documents(30, "new")
    write_until_killed(point, path)
    encoder, known = fakes.HashingEncoder(), []
    config = IndexConfig(overwrite=True, batch_documents=10)
    Index.create(path, encoder, documents, config, resumed=known.append)
    # Killed while chunk n is embedded, n - 1 chunks of 10 are kept; killed later, all of them.
    kept = 10 * (int(point) - 1) if point.isdigit() else 30
    assert known == [kept] * (kept > 0)
    assert encoder.calls == (30 - kept) / 10
    assert Index.open(path).check().documents == 30
    assert_tidy(path)
    index = Index.open(path)
    assert fakes.ids_by_words(index) == sorted(document.doc_id for document in documents)
    for document in documents:
        hit = index.search(encoder.encode_documents([document.content]), 1)[0][0]
        assert (hit.doc_id, hit.text) == (document.doc_id, document.text)
