"""The indexing benchmarks run in small, and what they compare does the same work."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.lab.speed.generated import ENCODERS, make_documents
from benchmarks.lab.speed.index_memory import Memory, MemoryConfig, measure_memory, memory_lines
from benchmarks.lab.speed.index_overhead import BARE, OverheadConfig, measure_overhead, run_bare
from benchmarks.lab.speed.index_search import BareIndex
from benchmarks.lab.speed.index_throughput import KINDS, Table, find_recall, make_clusters
from benchmarks.lab.speed.indexing import main
from indexes import Index
from retrieval.errors import UsageError


def ignore(line):
    pass


def numbers(line):
    """The cells of a table's line after the first, as numbers."""
    return [float(cell.replace(",", "")) for cell in line.split("|")[2:-1]]


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_gives_unit_vectors_that_depend_on_the_text_alone(name):
    encoder = ENCODERS[name](24)
    vectors = encoder.encode_documents(["one two", "three", "one two"])
    assert vectors.shape == (3, 24)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert np.array_equal(vectors[0], vectors[2])
    assert not np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(ENCODERS[name](24).encode_documents(["three"])[0], vectors[1])


def test_a_word_adds_one_or_minus_one_to_one_place():
    encoder = ENCODERS["words"](1000)
    once, twice = encoder.encode_documents(["word", "word word"])
    assert np.array_equal(once, twice)  # 1 and 2, of length 1 both
    assert sorted(np.unique(np.abs(once))) == [0, 1]
    assert np.count_nonzero(encoder.encode_documents(["a few words"])) == 3
    assert not encoder.encode_documents([""]).any()


def test_documents_are_as_long_as_asked_and_all_different():
    made = list(make_documents(3000, 200))
    assert {len(document.text) for document in made} == {200}
    assert len({document.text for document in made}) == 3000
    assert len({document.doc_id for document in made}) == 3000
    assert made[76].metadata == {"year": 1951, "lang": "en"}  # 76 = 75 + 1; 76 = 15 x 5 + 1
    assert not any(document.metadata for document in make_documents(5, with_metadata=False))


@pytest.mark.parametrize("name", ENCODERS)
def test_the_bare_loop_and_the_pipeline_write_the_same_faiss_file(tmp_path, name):
    documents = list(make_documents(1500, 100))  # two batches
    run_bare(ENCODERS[name](16), documents, tmp_path)
    Index.create(tmp_path / "i", ENCODERS[name](16), documents)
    index = Index.open(tmp_path / "i")
    assert index.snapshot.documents.documents(np.array([1499]))[1499] == documents[1499]
    ours = index.manifest.place(tmp_path / "i", "index")
    assert ours.read_bytes() == (tmp_path / "index.faiss").read_bytes()


def test_every_contestant_is_timed_on_both_clocks_and_nothing_is_left(tmp_path):
    config = OverheadConfig(documents=200, dimension=8, characters=50, rounds=2)
    wall, processor = measure_overhead(ENCODERS["text"](8), config, tmp_path, ignore)
    assert next(iter(wall.seconds)) == BARE
    for timings in (wall, processor):
        assert timings.rounds == 2
        assert len(timings.seconds) == 3
        assert min(min(seconds) for seconds in timings.seconds.values()) > 0
    assert list(tmp_path.iterdir()) == []


def test_clusters_are_unit_vectors_around_the_same_centres():
    stored, asked = make_clusters(2000, 32, seed=0), make_clusters(50, 32, seed=1)
    assert stored.dtype == np.float32
    assert np.allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-6)
    # Of one cluster: 1 / (1 + 0.7^2) = 0.67; of two, about 0 +- 1 / sqrt(32).
    assert (asked @ stored.T).max(axis=1).mean() > 0.6
    assert not np.array_equal(make_clusters(50, 32, seed=2), asked)


def test_recall_is_the_share_of_the_true_ones():
    # 2 of 3 and 1 of 3.
    assert find_recall([set("abc"), set("def")], [set("abx"), set("dyz")]) == 0.5


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.mark.slow
@needs_proc
def test_the_memory_of_a_build_is_what_it_holds(tmp_path):
    config = MemoryConfig(dimension=1024, factory="HNSW4,Flat")
    sizes = [measure_memory(config, documents, tmp_path) for documents in (100, 4100)]
    # HNSW holds every vector: 4000 x 1024 x 4 bytes = 16.4 MB more.
    assert sizes[1].anonymous - sizes[0].anonymous > 4000 * 1024 * 4 * 0.9
    for size in sizes:
        assert size.together <= size.anonymous + size.file_pages + 8 * 2**20
        assert size.together >= max(size.anonymous, size.file_pages)
    assert list(tmp_path.iterdir()) == []


@needs_proc
def test_a_build_that_fails_says_why(tmp_path, capfd):
    with pytest.raises(UsageError, match=r"build of 50 documents failed"):
        measure_memory(MemoryConfig(factory="no such type"), 50, tmp_path)
    assert "no such type" in capfd.readouterr().err


def test_the_memory_table_has_ratios(tmp_path, monkeypatch):
    heights = {10: Memory(100 * 2**20, 50 * 2**20, 140 * 2**20)}
    heights[110] = Memory(101 * 2**20, 150 * 2**20, 238 * 2**20)
    monkeypatch.setattr(
        "benchmarks.lab.speed.index_memory.measure_memory",
        lambda config, size, folder: heights[size],
    )
    lines = memory_lines(replace(MemoryConfig(), small=10, large=110), tmp_path)
    assert "| anonymous (RssAnon) | 100.0 MiB | 101.0 MiB | 1.010 |" in lines
    assert "| together | 140.0 MiB | 238.0 MiB | 1.700 |" in lines
    assert any(line.startswith("10485.8 bytes of anonymous memory") for line in lines)  # 2^20 / 100


def test_the_quick_table_of_throughput_has_every_kind(capsys):
    pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")
    assert main(["throughput", "--quick", "--documents", "300"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {
        line.split("|")[1].strip(): numbers(line)
        for line in lines
        if line.startswith(("| FAISS", "| Qdrant"))
    }
    assert list(rows) == list(KINDS)
    for name in KINDS:
        assert min(rows[name][:6]) > 0
        exact = name.endswith("Flat")
        assert rows[name][6] == 1 if exact else rows[name][6] > 0.5


def test_the_quick_table_of_search_compares_equal_recall(capsys):
    assert main(["search", "--quick", "--documents", "300"]) == 0
    printed = capsys.readouterr().out
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if "| Flat |" in line]
    rows += [line.split("|")[1:-1] for line in printed.splitlines() if "| HNSW |" in line]
    assert [row[1].strip() for row in rows] == ["one by one", "in batches of 8"] * 2
    for row in rows:
        assert min(float(cell.replace(",", "")) for cell in row[2:4]) > 0
        loop, ours = float(row[5]), float(row[6])
        assert loop == pytest.approx(ours, abs=0.01)
        assert ours > 0.9


def test_the_bare_loop_finds_what_a_search_finds(tmp_path):
    documents = list(make_documents(300, 50))
    vectors = make_clusters(300, 16, seed=0)
    index = Index.create(tmp_path / "i", Table(vectors), documents)
    bare = BareIndex(index.manifest.place(tmp_path / "i", "index"), documents)
    ours = [[(h.doc_id, h.text) for h in hits] for hits in index.search(vectors[:5], 3)]
    assert [[(i, text) for i, _, text in hits] for hits in bare.search(vectors[:5], 3)] == ours


def test_the_quick_table_of_overhead_has_every_contestant(capsys):
    assert main(["overhead", "--quick", "--documents", "100"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("overhead: documents 100, dimension 64, characters 600, rounds 2")
    for encoder in ENCODERS:
        assert f"| {encoder} | bare loop | " in printed
        assert f"| {encoder} | Index.create, 2 fields | " in printed
