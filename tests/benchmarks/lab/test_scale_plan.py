"""The plan's arithmetic, worked by hand, and against a real FAISS index."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.lab.speed.scale_plan import Plan, main, measure, plan_lines

SMALL = Plan(
    passages=1000,
    tokens=10,
    text_bytes=68,
    dimension=8,
    weights=100,
    layers=2,
    width=4,
    peak=52_000,
    utilisation=0.5,
    tokenized=25,
    cores=2,
    node_bytes=100_000,
    node_share=0.5,
    edges=2,
    lists=16,
    codes=4,
)


def test_hours_follow_from_the_model_and_the_peak():
    # 2 x 100 + 4 x 2 layers x 10 tokens x 4 wide = 520; 52,000 x 0.5 / 520 = 50 tokens a second,
    # after 25 x 2 = 50 a second were cut out of texts: 1 / (1/50 + 1/50) = 25 in turn.
    # 1000 passages x 10 tokens / 25 = 400 seconds.
    assert SMALL.operations_per_token == 520
    assert SMALL.rate == pytest.approx(25)
    assert SMALL.worker_hours == pytest.approx(400 / 3600)


def test_a_measured_rate_goes_before_the_computed_one():
    plan = replace(SMALL, tokens_per_second=4)
    assert plan.worker_hours == pytest.approx(1000 * 10 / 4 / 3600)
    assert {name: value for name, value, _ in plan_lines(plan)}["price"] == "0.69"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("float32", 32_000), ("float16", 16_000), ("int8", 8_000), ("binary", 1_000)],
)
def test_vectors_take_the_bytes_of_their_numbers(kind, expected):
    assert SMALL.vector_bytes(kind) == expected  # 1000 x 8 x 4, 2, 1, 1/8


def test_documents_take_their_text_and_four_offsets():
    assert SMALL.document_bytes == 1000 * (68 + 32)


def test_qdrants_memory_is_its_own_formula_and_ours_for_what_is_compressed():
    assert SMALL.qdrant_bytes("float32") == 1000 * 8 * 4 * 1.5
    # Compressed: 8 bytes x 1.5, and 2 x 2 links of 4 bytes.
    assert SMALL.qdrant_bytes("int8") == 1000 * (8 * 1.5 + 16)
    assert replace(SMALL, replicas=3).qdrant_bytes("int8") == 3 * 1000 * (8 * 1.5 + 16)
    # The documentation's example: 1 million vectors of 1024 are 6,144,000,000 bytes.
    assert Plan(passages=1e6, dimension=1024).qdrant_bytes("float32") == 6_144_000_000


def test_nodes_are_counted_up():
    # 48,000 bytes on nodes that give 100,000 x 0.5; three copies are 144,000.
    assert SMALL.qdrant_nodes("float32") == 1
    assert replace(SMALL, replicas=3).qdrant_nodes("float32") == 3


@pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "factory"),
    [("Flat", "Flat"), ("SQ8", "SQ8"), ("IVFSQ8", "IVF16,SQ8"), ("IVFPQ", "IVF16,PQ4")],
)
def test_faiss_writes_as_many_bytes_as_the_plan_says(kind, factory):
    faiss = pytest.importorskip("faiss", reason="faiss is not installed")
    vectors = np.random.default_rng(0).standard_normal((1000, 8), dtype=np.float32)
    index = faiss.index_factory(8, factory)
    index.train(vectors)
    index.add(vectors)
    written = len(faiss.serialize_index(index))
    # Beside what grows with N: the header, and the lengths of 16 lists.
    assert SMALL.faiss_bytes(kind) <= written <= SMALL.faiss_bytes(kind) + 600


def test_the_table_prints_what_is_asked_for(capsys):
    main(["--passages", "1e9", "--dimension", "576"])
    printed = capsys.readouterr().out
    assert "vectors, float32                         2.30 TB   N D 4" in printed  # 2,304 GB
    assert "vectors, binary                            72 GB" in printed


def test_the_write_rate_is_measured_and_leaves_nothing(tmp_path, capsys):
    rates = measure(tmp_path / "scale", SMALL, documents=100, chunk_documents=30)
    assert 0 < rates.both_documents < min(rates.read_documents, rates.write_documents)
    # A stored passage has 8 numbers of 4 bytes, an id of 10 bytes and 68 of text, at least.
    assert rates.write_bytes / rates.write_documents >= 8 * 4 + 10 + 68
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileExistsError):
        measure(tmp_path, SMALL)


@pytest.mark.parametrize("change", [{"passages": 0}, {"utilisation": float("nan")}, {"price": -1}])
def test_numbers_that_cannot_be_are_refused(change):
    with pytest.raises(ValueError, match="it must be above 0"):
        replace(SMALL, **change)
