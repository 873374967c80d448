"""Any file of an index, damaged in any way: a search gives the right hits, or names the file."""

import random
import shutil
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.lab.attack.flip import DAMAGES
from indexes import Index, IndexConfig, read_manifest
from indexes.storage.manifest import MANIFEST_NAME
from retrieval import Document
from retrieval.errors import IndexCorruptError
from tests.indexes import fakes

KEEP = IndexConfig(compact_share=1.0)
KINDS = [("faiss", "Flat"), ("faiss", "HNSW8"), ("faiss", "IVF4,Flat"), ("qdrant", "HNSW")]
QUERIES = fakes.HashingEncoder().encode_queries(["one", "two", "three"])
FILTERS = (None, "n >= 7 and n != 12")


def make(folder, backend, factory):
    """Write an index of two shards with fields, a deleted row, a blank one and a lexical arm."""
    if backend == "qdrant":
        pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
    encoder = fakes.HashingEncoder()
    config = IndexConfig(backend=backend, factory=factory)
    index = Index.create(folder, encoder, [*fakes.make_documents(25), Document("b", "-")], config)
    index.add(fakes.make_documents(5, "e"), KEEP)
    index.delete(["d3"], KEEP)
    return folder


def ask(folder):
    index = Index.open(folder)
    return [index.search(QUERIES, 10, where=where) for where in FILTERS]


def damaged_answers(folder, name, trials, seed):
    """Yield what each trial did to a file, and what came of it: the hits, or an error."""
    file = folder / name
    whole = file.read_bytes()
    for trial in range(trials):
        chosen = random.Random(f"{seed} {name} {trial}")
        change = DAMAGES[trial % len(DAMAGES)]
        content = bytearray(whole)
        change(content, chosen)
        file.unlink()  # the mapping of the last trial keeps its own file
        file.write_bytes(content)
        try:
            yield f"{change.__name__} {trial} of {name}", content == whole, ask(folder)
        except IndexCorruptError as error:
            yield f"{change.__name__} {trial} of {name}", content == whole, error
    file.write_bytes(whole)


@pytest.mark.parametrize(("backend", "factory"), KINDS)
@pytest.mark.parametrize(
    "trials", [5, pytest.param(40, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_a_search_gives_the_right_hits_or_names_the_damaged_file(
    tmp_path, backend, factory, trials
):
    folder = make(tmp_path / "i", backend, factory)
    expected, manifest = ask(folder), read_manifest(folder)
    names = {entry.name: role for role, entry in manifest.files.items() if entry.bytes}
    if trials == 5:  # the engine's files, of which Qdrant has many, are all read alike
        engine = sorted(name for name, role in names.items() if role.startswith("qdrant/"))
        for name in random.Random(0).sample(engine, max(0, len(engine) - 4)):
            del names[name]
    refused = 0
    for name in [*names, MANIFEST_NAME]:
        for what, same, answer in damaged_answers(folder, name, trials, seed=1):
            if isinstance(answer, IndexCorruptError):
                refused += 1
                assert str(folder / name) in str(answer), what
                assert "\n" not in str(answer), what
                assert not same, what
            else:
                assert answer == expected, what
                # Without the lexical arm, vectors are searched as before.
                assert same or names.get(name) in manifest.lexical_files, what
    assert ask(folder) == expected
    assert refused > 5 * trials


@pytest.mark.parametrize("role", ["documents/00000", "vectors/00000", "index"])
def test_what_is_damaged_in_an_index_without_block_checksums_is_found_by_check(tmp_path, role):
    """As an earlier millpond made it; it stays readable, and is compared as it was then."""
    folder = make(tmp_path / "i", "faiss", "HNSW8")
    expected = ask(folder)
    forget_blocks(folder)
    assert ask(folder) == expected
    file = read_manifest(folder).place(folder, role)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(IndexCorruptError, match=f"{file} is damaged: "):
        Index.open(folder).check()


def forget_blocks(folder):
    """Take the checksums of blocks out of a manifest."""
    manifest = read_manifest(folder)
    files = {role: replace(entry, blocks="") for role, entry in manifest.files.items()}
    (folder / MANIFEST_NAME).write_bytes(replace(manifest, files=files).encode())


def test_a_block_of_a_large_index_is_compared_when_a_search_first_reads_it(tmp_path):
    """Vectors of several MiB: hits that lie in whole blocks come back beside a damaged one."""
    vectors = np.random.default_rng(0).standard_normal((40_000, 32)).astype(np.float32)
    documents = (Document(str(number), f"t {number}") for number in range(40_000))
    folder = tmp_path / "i"
    encoder = fakes.TableEncoder(vectors)
    encoder.encode_documents = lambda texts: vectors[[int(text[2:]) for text in texts]]
    Index.create(folder, encoder, documents, IndexConfig(arms=["dense"]))
    copy = shutil.copytree(folder, tmp_path / "copy")
    file = copy / "vectors" / "00000.npy"
    content = bytearray(file.read_bytes())
    content[128 + 39_999 * 128] ^= 1  # the last row, in the fifth block
    file.write_bytes(content)
    damaged, whole = Index.open(copy), Index.open(folder)
    unsure = 0
    for row in range(0, 40_000, 1000):
        hits = whole.search(vectors[row : row + 1], 1)
        try:
            assert damaged.search(vectors[row : row + 1], 1) == hits
        except IndexCorruptError as error:
            assert str(file) in str(error)
            unsure += 1
    assert 0 < unsure < 40
