"""The engine in the index folder: what is published, what a kill or a reader leaves."""

import errno
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections import namedtuple

import numpy as np
import pytest
import qdrant_edge

from indexes import Index, IndexConfig, list_backends, read_manifest, transaction
from indexes.backends.qdrant import edge as edge_module
from indexes.backends.qdrant import points as points_module
from indexes.backends.qdrant.edge import EdgeSearcher
from indexes.storage.vectors import VectorWriter
from retrieval.errors import IndexCorruptError, SourceNotFoundError, StorageError
from tests.indexes import fakes

FACTORIES = ["Flat", "HNSW"]


def digests(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def run(script, *arguments):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def find_own(encoder, documents, index):
    hits = index.search(encoder.encode_queries([d.content for d in documents]), 1)
    return [hit.doc_id for [hit] in hits] == [d.doc_id for d in documents]


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Where views of an index are made while it is open."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_qdrant_is_a_backend_and_its_libraries_are_imported_late():
    assert "qdrant" in list_backends()
    done = run("import sys, indexes; print({'qdrant_edge', 'qdrant_client'} & set(sys.modules))")
    assert done.stdout == "set()\n", done.stderr


@pytest.mark.parametrize("factory", FACTORIES)
def test_searching_changes_no_published_file(tmp_path, temporary, encoder, documents, factory):
    Index.create(tmp_path / "i", encoder, documents, IndexConfig(backend="qdrant", factory=factory))
    before = digests(tmp_path / "i")
    index = Index.open(tmp_path / "i")
    assert find_own(encoder, documents, index)
    del index
    assert digests(tmp_path / "i") == before
    assert Index.open(tmp_path / "i").check().documents == 25
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("factory", FACTORIES)
def test_every_file_is_in_the_manifest_or_has_its_checksum_beside_it(
    tmp_path, encoder, documents, factory
):
    path = tmp_path / "i"
    Index.create(path, encoder, documents, IndexConfig(backend="qdrant", factory=factory))
    listed = {entry.name for entry in read_manifest(path).files.values()}
    for name in digests(path).keys() - listed - {"manifest.json"}:
        content = bytearray((path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (path / name).write_bytes(content)
        with pytest.raises(IndexCorruptError, match="is damaged: its checksum"):
            Index.open(path)
        content[len(content) // 2] ^= 1
        (path / name).write_bytes(content)
    Index.open(path).check()


@pytest.mark.parametrize("role", ["qdrant/store", "qdrant/shard/edge_config"])
@pytest.mark.parametrize("damage", ["truncate", "delete", "flip"])
def test_damage_is_noticed(tmp_path, encoder, documents, role, damage):
    path = tmp_path / "i"
    file = (
        path
        / Index.create(path, encoder, documents, IndexConfig(backend="qdrant"))
        .manifest.files[role]
        .name
    )
    content = file.read_bytes()
    if damage == "delete":
        file.unlink()
    else:
        changed = content[:-7] if damage == "truncate" else b"}" + content[1:]
        file.write_bytes(changed)
    with pytest.raises(IndexCorruptError, match=r"is damaged: .*--overwrite") as caught:
        Index.open(path).check()
    assert "\n" not in str(caught.value)


def test_files_that_the_engine_cannot_read_are_one_line(tmp_path, index_of):
    index_of(np.eye(4, dtype=np.float32), tmp_path / "i")
    [file] = (tmp_path / "i" / "qdrant" / "shard").rglob("segment.json")
    file.write_text("{")
    with pytest.raises(IndexCorruptError, match=r"Failed to deserialize.*--overwrite") as caught:
        EdgeSearcher(tmp_path / "i" / "qdrant" / "shard")
    assert "\n" not in str(caught.value)


def test_two_processes_search_one_index(tmp_path, encoder, documents):
    Index.create(tmp_path / "i", encoder, documents, IndexConfig(backend="qdrant"))
    index = Index.open(tmp_path / "i")
    script = (
        "import sys; from indexes import Index; from tests.indexes.fakes import *\n"
        "query = HashingEncoder().encode_queries([make_documents(25)[3].content])\n"
        "print(Index.open(sys.argv[1]).search(query, 1)[0][0].doc_id)"
    )
    done = run(script, tmp_path / "i")
    assert done.stdout == "d3\n", done.stderr
    assert find_own(encoder, documents, index)


def test_a_reader_keeps_the_index_that_was_replaced(tmp_path, encoder, documents):
    Index.create(tmp_path / "i", encoder, documents, IndexConfig(backend="qdrant"))
    reader = Index.open(tmp_path / "i")
    new = fakes.make_documents(9, "new")
    Index.create(tmp_path / "i", encoder, new, IndexConfig(backend="qdrant", overwrite=True))
    assert not (tmp_path / "i" / "qdrant").exists()
    assert find_own(encoder, documents, reader)
    assert find_own(encoder, new, Index.open(tmp_path / "i"))


@pytest.mark.parametrize("writable", [True, False])
@pytest.mark.parametrize("rewrites", [1, 2])
def test_a_reader_whose_index_is_replaced_while_it_opens_gets_the_new_one(
    tmp_path, temporary, monkeypatch, encoder, documents, writable, rewrites
):
    path = tmp_path / "i"
    Index.create(path, encoder, documents, IndexConfig(backend="qdrant"))
    new = fakes.make_documents(9, "new")
    left = [rewrites]
    original = edge_module._is_writable

    def look(file):
        # It is asked about every file, in the middle of making a view or of copying a folder.
        if left[0] and "i" in file.parts:
            left[0] -= 1
            monkeypatch.setattr(edge_module, "_is_writable", original)
            Index.create(path, encoder, new, IndexConfig(backend="qdrant", overwrite=True))
            monkeypatch.setattr(edge_module, "_is_writable", look)
        return writable

    monkeypatch.setattr(edge_module, "_is_writable", look)
    index = Index.open(path)
    assert left == [0]
    assert find_own(encoder, new, index)
    del index
    assert list(temporary.iterdir()) == []


def test_a_folder_whose_file_vanishes_while_it_is_copied_is_not_a_full_disk(
    tmp_path, temporary, monkeypatch, encoder, documents
):
    Index.create(tmp_path / "i", encoder, documents, IndexConfig(backend="qdrant"))
    shard = tmp_path / "i" / "qdrant" / "shard"
    monkeypatch.setattr(edge_module, "_is_writable", lambda path: False)
    original = edge_module.shutil.copyfile
    copied = []

    def copyfile(source, place):
        if source.parent.parent.name != "segments" and source.parent != shard:
            source.unlink()  # in a folder of a segment
            copied.append(source.name)
        return original(source, place)

    monkeypatch.setattr(edge_module.shutil, "copyfile", copyfile)
    with pytest.raises(IndexCorruptError, match="is missing. Index the corpus again") as caught:
        EdgeSearcher(shard)
    assert len(copied) == 1
    assert copied[0] in str(caught.value)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "where", "advice"),
    [
        ("ENOSPC", "overlay", "Free some space there, or name another place in TMPDIR"),
        ("EACCES", "overlay", "Name another place for temporary files in TMPDIR"),
        ("EACCES", "shard", "Change its permissions, or search a copy of the index"),
    ],
)
def test_a_view_that_cannot_be_made_says_what_to_change(
    tmp_path, temporary, monkeypatch, encoder, documents, number, where, advice
):
    Index.create(tmp_path / "i", encoder, documents, IndexConfig(backend="qdrant"))

    def copyfile(source, place):
        code = getattr(errno, number)
        raise OSError(code, os.strerror(code), str(source if where == "shard" else place))

    monkeypatch.setattr(edge_module.shutil, "copyfile", copyfile)
    with pytest.raises(StorageError, match=f"cannot be opened: .*{advice}") as caught:
        Index.open(tmp_path / "i")
    assert ("Free some space" in str(caught.value)) == (number == "ENOSPC")


INTERRUPTED = """
import os, signal, sys, time
import indexes.backends.qdrant.edge as edge
from indexes import Index

original = edge._remove_overlay
def remove(overlay):
    os.kill(os.getpid(), signal.SIGINT)
    original(overlay)

index = Index.open(sys.argv[1])
edge._remove_overlay = remove
try:
    del index
    print("deleted", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_while_a_reader_is_cleared_away_arrives_afterwards(
    tmp_path, monkeypatch, encoder, documents
):
    Index.create(tmp_path / "i", encoder, documents, IndexConfig(backend="qdrant"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    done = run(INTERRUPTED, tmp_path / "i")
    assert (done.stdout, done.stderr, done.returncode) == ("deleted\ninterrupted\n", "", 0)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_index_that_may_not_be_written_is_copied_to_be_read(
    tmp_path, temporary, monkeypatch, encoder, documents
):
    Index.create(tmp_path / "i", encoder, documents, IndexConfig(backend="qdrant", factory="HNSW"))
    monkeypatch.setattr(edge_module, "_is_writable", lambda path: False)
    index = Index.open(tmp_path / "i")
    [view] = temporary.iterdir()
    assert [path for path in view.rglob("*") if path.is_symlink()] == []
    assert find_own(encoder, documents, index)
    del index
    assert list(temporary.iterdir()) == []


def test_a_shard_that_another_process_locks_is_named(tmp_path):
    # Ours have no lock, since they have no write-ahead log; one that was made with a log has.
    path = tmp_path / "shard"
    params = qdrant_edge.EdgeVectorParams(size=2, distance=qdrant_edge.Distance.Dot)
    qdrant_edge.EdgeShard.create(str(path), qdrant_edge.EdgeConfig(vectors=params)).close()
    script = (
        "import sys, qdrant_edge\n"
        "shard = qdrant_edge.EdgeShard.load(sys.argv[1])\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(StorageError, match=r"Another process has .*shard open") as caught:
            EdgeSearcher(path)
    assert "WouldBlock" not in str(caught.value)
    assert EdgeSearcher(path).count() == 0


def write_and_die(point, path):
    """Write an index of 30 documents, and die on the way."""
    if point == "between two batches":
        edge_module.FLUSH_BATCHES, points_module.BATCH_BYTES = 1, 5000
        original = edge_module.read_batches

        def read_batches(*arguments):
            for batch in original(*arguments):
                yield batch
                if batch[0][2]["row"]:
                    fakes.die()

        edge_module.read_batches = read_batches
    if point == "after the build":
        edge_module.EdgeSearcher = lambda path: fakes.die()
    if point == "before the commit":
        transaction.commit = lambda *arguments: fakes.die()
    config = IndexConfig(backend="qdrant", overwrite=True)
    Index.create(path, fakes.HashingEncoder(), fakes.make_documents(30, "new"), config)


@pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL")
@pytest.mark.parametrize("point", ["between two batches", "after the build", "before the commit"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_kill_leaves_the_earlier_index_or_none(tmp_path, encoder, documents, point, earlier):
    path = tmp_path / "i"
    if earlier:
        Index.create(path, encoder, documents, IndexConfig(backend="qdrant"))
    assert fakes.exit_code_of(write_and_die, point, path) == -signal.SIGKILL
    if earlier:
        assert Index.open(path).check().documents == 25
        assert find_own(encoder, documents, Index.open(path))
    else:
        with pytest.raises((IndexCorruptError, SourceNotFoundError), match="interrupted"):
            Index.open(path)
    config = IndexConfig(backend="qdrant", overwrite=earlier, restart=True)
    Index.create(path, encoder, documents[:7], config)
    manifest = Index.open(path).check()
    assert manifest.documents == 7
    tops = {entry.name.partition("/")[0] for entry in manifest.files.values()}
    assert {entry.name for entry in path.iterdir()} == tops | {"manifest.json"}


def test_a_disk_that_is_too_full_is_refused_before_the_engine_writes(
    tmp_path, monkeypatch, encoder, documents
):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(edge_module.shutil, "disk_usage", lambda path: usage(100, 99, 1_000_000))
    with pytest.raises(StorageError, match=r"has 1.0 MB free, .* need 16.8 MB"):
        Index.create(tmp_path / "i", encoder, documents, IndexConfig(backend="qdrant"))
    assert not (tmp_path / "i" / "manifest.json").exists()


@pytest.mark.parametrize("factory", ["Flat", "HNSW"])
def test_ten_thousand_points_are_built(tmp_path, factory):
    from indexes.backends.qdrant.edge import build_shard
    from indexes.backends.qdrant.options import Factory
    from indexes.backends.qdrant.points import Payload
    from indexes.storage.document_writer import DocumentWriter
    from indexes.storage.documents import DocumentStore
    from indexes.storage.vectors import Shards
    from retrieval import Document

    vectors = np.random.default_rng(0).standard_normal((10_000, 64)).astype(np.float32)
    for name in ("documents", "vectors"):
        (tmp_path / name).mkdir()
    with VectorWriter(tmp_path / "vectors" / "00000.npy", 64) as shards:
        shards.append(vectors)
    with DocumentWriter(tmp_path / "documents" / "00000.arrow") as documents:
        for number in range(10_000):
            documents.extend([Document(f"d{number}", "")])
    store = DocumentStore(fakes.stored_in(tmp_path / "documents"))
    chosen = Factory.parse(factory, 64)
    stored = Shards(fakes.stored_in(tmp_path / "vectors"), 64)
    build_shard(tmp_path / "shard", chosen, stored, store, Payload())
    assert EdgeSearcher(tmp_path / "shard").count() == 10_000
