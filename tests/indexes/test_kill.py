"""A writer that is killed leaves the old index or none, and the next one goes on or cleans up."""

import os
import signal
from pathlib import Path

import pytest

from indexes import Index, IndexConfig, build, read_manifest, transaction
from indexes.lexical import build as lexical_build
from indexes.storage import staging
from retrieval.errors import IndexCorruptError, SourceNotFoundError
from tests.indexes import fakes

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL")


MOMENTS = {
    "after the shards": (build, "infer_fields", True),
    "after the build": (transaction.Transaction, "staged_files", True),
    "before publishing": (transaction.Transaction, "publish", True),
    "between two renames": (Path, "rename", False),
    "before the commit": (transaction, "commit", True),
    "after the commit": (transaction, "commit", False),
}
"""Which function kills, and whether before it does its work."""

POINTS = ["1", "2", "3", "half of the arm", *MOMENTS]
"""A number is that of the chunk that is embedded."""


def write_and_die(point, path):
    """Write an index of 30 documents, a shard for each 10, and die on the way."""
    encoder = fakes.HashingEncoder(die_at=int(point) if point.isdigit() else 0)
    if point in MOMENTS:
        place, name, before = MOMENTS[point]
        fakes.dying(place, name, before=before)
    if point == "half of the arm":
        write_rows = lexical_build.write_rows

        def write_half(folder, rows, analyser):
            write_rows(folder, list(rows)[::2], analyser)
            fakes.die()

        lexical_build.write_rows = write_half
    staging.SHARD_SECONDS = 0.0
    config = IndexConfig(overwrite=True, batch_documents=10, language="english")
    Index.create(path, encoder, fakes.make_documents(30, "new"), config)


def write_until_killed(point, path):
    assert fakes.exit_code_of(write_and_die, point, path) == -signal.SIGKILL


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
