"""benchmarks/lab/speed/gpu.py: the whole command on a CPU in small, and its arithmetic by hand."""

import json

import pytest
import torch

from benchmarks.lab.speed import gpu, gpu_models
from benchmarks.lab.speed.gpu import NAIVE, OURS, PADDED, describe_length, to_markdown
from benchmarks.lab.speed.gpu_models import SHAPES, TINY, Shape, build_embedder, make_texts
from benchmarks.lab.speed.interleaved import Timings

CPU = torch.device("cpu")


def test_operations_worked_by_hand():
    """Width 4, 2 heads of 2, 1 of keys: q 16, k 8, v 8, o 16; three of 4 x 6: 120 a layer.

    Texts of 2 and 4 tokens: 2 x 240 weights x 6 tokens = 2,880. Attention: (4 + 16) / 2 = 10
    pairs, 2 products of 2 x 4 operations each, 2 layers: 320.
    """
    shape = Shape("hand", width=4, inner=6, layers=2, heads=2, key_heads=1, vocabulary=9)
    assert shape.layer_parameters == 240
    assert shape.flops([2, 4]) == 2880 + 320


@pytest.mark.parametrize(
    ("name", "millions"), [("smollm2-135m", 106), ("llama-0.5b", 440), ("llama-7b", 6476)]
)
def test_the_shapes_are_as_large_as_they_are_called(name, millions):
    """Without embeddings; 135M and 0.5B have 28M and 50M of those, 7B 131M (and a head)."""
    assert round(SHAPES[name].layer_parameters / 1e6) == millions


def test_a_shapes_count_is_that_of_the_model_built_from_it():
    shape = TINY["llama-7b"]
    embedder = build_embedder(shape, CPU, torch.float32)
    layers = embedder.backbone.blocks()
    found = sum(weight.numel() for weight in layers.parameters() if weight.dim() == 2)
    assert found == shape.layer_parameters


def test_texts_have_the_lengths_asked_for_with_the_eos():
    lengths = [1, 2, 30]
    embedder = build_embedder(TINY["llama-7b"], CPU, torch.float32)
    rows = embedder.tokenize(make_texts(lengths, 200))
    assert [len(row) for row in rows] == lengths
    assert {row[-1] for row in rows} == {1}
    assert [len(row) for row in gpu_models.random_rows(lengths, embedder)] == lengths


def test_mixed_lengths_are_mostly_short_and_the_same_each_time():
    lengths = gpu_models.mixed_lengths(200_000, 2048)
    assert lengths == gpu_models.mixed_lengths(200_000, 2048)
    assert 200_000 <= sum(lengths) < 200_000 + 2048
    assert min(lengths) >= 4
    assert 50 < sorted(lengths)[len(lengths) // 2] < 80  # the median asked for is 64
    assert 1000 < max(lengths) <= 2048


def test_naive_and_ours_embed_the_same():
    embedder = build_embedder(TINY["llama-0.5b"], CPU, torch.float32)
    rows = gpu_models.random_rows([3, 17, 5, 64] * 20, embedder)
    ours, naive = embedder.encode_tokens(rows), gpu_models.encode_naively(embedder, rows)
    assert abs(ours - naive).max() < 1e-5


def test_rates_ratios_mfu_and_tables_worked_by_hand():
    """320 tokens in a median of 2 s: 160/s; 2,000 operations each; of a peak of 640,000 half."""
    row = describe_length(Timings({OURS: [1, 2, 4], NAIVE: [4, 4, 4]}), 320, 640_000.0, 640_000.0)
    assert row["tokens_per_second"] == {OURS: 160, NAIVE: 80}
    assert row["mfu"] == {OURS: 0.5, NAIVE: 0.25}
    row |= {"shape": "s", "length": "32", "batch_tokens": 16, "lowest_cosine": 0.99}
    results = {"machine": {"device": "a card"}, "matmul_peak_tflops": 6.4e-7, "packing": {}}
    text = to_markdown(results | {"lengths": [row], "skipped": ["llama-7b: no time"]}, {})
    assert "| 32 | 160 | 50.0% | - | 2.00 (1.00 to 4.00) | 25.0% | 16 | 0.99000 |" in text
    assert text.endswith("Left out:\n\n- llama-7b: no time")


@pytest.mark.slow
def test_the_whole_command_runs_on_a_cpu_in_small(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(gpu, "_TINY_TURN_SECONDS", 0.001)
    monkeypatch.setattr(gpu, "_ROUNDS", 1)
    monkeypatch.setattr(gpu, "_SORTED_TEXTS", 64)
    out = tmp_path / "gpu.json"
    assert gpu.main(["--out", str(out), "--device", "cpu", "--seconds", "100000"]) == 0
    found = json.loads(out.read_text())
    assert found["matmul_peak_tflops"] > 0
    cells = {(cell["shape"], cell["length"]): cell for cell in found["lengths"]}
    assert set(cells) == {(shape, length) for shape in SHAPES for length in ("mixed", "32", "64")}
    for (_, length), cell in cells.items():
        contestants = [OURS, PADDED, NAIVE] if length == "mixed" else [OURS, NAIVE]
        assert list(cell["tokens_per_second"]) == contestants
        assert min(cell["tokens_per_second"].values()) > 0
        assert cell["lowest_cosine"] > 0.99999
    shown = capsys.readouterr().out
    assert "**smollm2-135m** (attention: one call per group of equal lengths)" in shown
    try:
        import sentence_transformers  # noqa: F401
    except ModuleNotFoundError:
        assert found["skipped"] == ["smollm2-135m against sentence-transformers"]
    else:
        assert found["skipped"] == []
        assert float(found["machine"]["lowest cosine to sentence-transformers"]) > 0.99999
        assert "sentence-transformers, batches of 32" in shown


def test_parts_without_time_are_left_out_with_a_line(tmp_path, capsys):
    out = tmp_path / "gpu.json"
    assert gpu.main(["--out", str(out), "--quick", "--device", "cpu", "--seconds", "0"]) == 0
    found = json.loads(out.read_text())
    assert found["lengths"] == []
    assert [line.partition(":")[0] for line in found["skipped"]] == list(gpu._ORDER)
    assert "s are left, about" in capsys.readouterr().err


def test_a_part_that_fails_does_not_lose_the_others(tmp_path, capsys, monkeypatch):
    real = gpu.measure_shape

    def measure(run, shape):
        if shape.name == "llama-7b":
            raise ValueError("of no use")
        real(run, shape)

    monkeypatch.setattr(gpu, "measure_shape", measure)
    monkeypatch.setattr(gpu, "_TINY_TURN_SECONDS", 0.001)
    monkeypatch.setattr(gpu, "_ROUNDS", 1)
    out = tmp_path / "gpu.json"
    options = ["--quick", "--device", "cpu", "--seconds", "100000"]
    assert gpu.main(["--out", str(out), *options, "--shapes", "llama-7b", "llama-0.5b"]) == 1
    found = json.loads(out.read_text())
    assert found["skipped"] == ["llama-7b: ValueError: of no use"]
    assert {cell["shape"] for cell in found["lengths"]} == {"llama-0.5b"}
