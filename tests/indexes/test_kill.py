"""A writer that is killed leaves the old index or none, and the next writer cleans up."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from indexes import open_index, read_manifest, verify_index, write_corpus
from retrieval.errors import IndexCorruptError, SourceNotFoundError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL")

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
from pathlib import Path
import indexes.folder, indexes.write
from indexes import write_corpus
from fakes import HashingEncoder, die, make_documents

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

if point == "after the shards":
    dying(indexes.write, "_build", before=True)
if point == "after the build":
    dying(indexes.write, "_build", before=False)
if point == "before publishing":
    dying(indexes.folder.Workspace, "publish", before=True)
if point == "between two renames":
    dying(Path, "rename", before=False)
if point == "before the commit":
    dying(indexes.folder, "commit", before=True)
if point == "after the commit":
    dying(indexes.folder, "commit", before=False)
write_corpus(encoder, make_documents(30, "new"), path, overwrite=True, batch_documents=10)
"""

POINTS = [
    "1",
    "2",
    "3",
    "after the shards",
    "after the build",
    "before publishing",
    "between two renames",
    "before the commit",
    "after the commit",
]


def write_until_killed(point, path):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, point, str(path)], env=environment, capture_output=True
    )
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
        assert verify_index(path).documents == 30
    else:
        with pytest.raises((IndexCorruptError, SourceNotFoundError), match="interrupted"):
            open_index(path)
    write_corpus(encoder, documents, path, overwrite=point == "after the commit")
    assert verify_index(path).documents == 25
    assert_tidy(path)


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_during_an_overwrite_leaves_the_old_index_or_the_new_one(
    tmp_path, encoder, documents, point
):
    path = tmp_path / "i"
    write_corpus(encoder, documents, path)
    write_until_killed(point, path)
    assert verify_index(path).documents == (30 if point == "after the commit" else 25)
    hit = open_index(path).search(encoder.encode_queries([documents[3].content]), 1)[0][0]
    assert (hit.doc_id == "d3") == (point != "after the commit")
    write_corpus(encoder, documents[:7], path, overwrite=True)
    assert verify_index(path).documents == 7
    assert_tidy(path)
