"""benchmarks/lab/speed/gpu.py: the whole command on a CPU in small, and its arithmetic by hand."""

import json

import pytest
import torch

from benchmarks.lab.speed import gpu
from benchmarks.lab.speed.gpu import NAIVE, OURS, PADDED, SHAPES, Shape, describe

HAND = Shape("hand", width=4, inner=6, layers=2, heads=2, key_heads=1, vocabulary=200)


def test_operations_worked_by_hand():
    """Width 4, 2 heads of 2, 1 of keys: q 16, k 8, v 8, o 16; three of 4 x 6: 120 a layer.

    Texts of 2 and 4 tokens: 2 x 240 weights x 6 tokens = 2,880. Attention: (4 + 16) / 2 = 10
    pairs, 2 products of 2 x 4 operations each, 2 layers: 320.
    """
    assert HAND.layer_parameters == 240
    assert HAND.flops([2, 4]) == 2880 + 320


@pytest.mark.parametrize(
    ("name", "millions"), [("smollm2-135m", 106), ("llama-0.5b", 440), ("llama-7b", 6476)]
)
def test_the_shapes_are_as_large_as_they_are_called(name, millions):
    """Without embeddings; 135M and 0.5B have 28M and 50M of those, 7B 131M (and a head)."""
    assert round(SHAPES[name].layer_parameters / 1e6) == millions


def test_a_shape_is_built_as_counted_and_texts_have_the_lengths_asked_for_with_the_eos():
    embedder = gpu.build_embedder(HAND, torch.device("cpu"), torch.float32)
    layers = embedder.backbone.blocks()
    found = sum(weight.numel() for weight in layers.parameters() if weight.dim() == 2)
    assert found == HAND.layer_parameters
    rows = embedder.tokenize(gpu.make_texts([1, 2, 30], HAND.vocabulary))
    assert [len(row) for row in rows] == [1, 2, 30]
    assert {row[-1] for row in rows} == {1}


def test_lengths_are_all_the_same_or_mostly_short():
    assert list(gpu.draw_lengths(32, 90)) == [32, 32, 32]
    lengths = list(gpu.draw_lengths("mixed", 200_000))
    assert 200_000 <= sum(lengths) < 200_000 + 2048
    assert 50 < sorted(lengths)[len(lengths) // 2] < 80  # the median asked for is 64
    assert min(lengths) >= 4 and 1000 < max(lengths) <= 2048


def test_mfu_and_table_worked_by_hand():
    """640,000 operations in a median of 2 s, of a peak of 640,000 a second: half."""
    row = {"shape": "s", "length": 32, "batch_tokens": 16, "attention": "a", "tokens": 320}
    row |= {"flops": 640_000.0, "seconds": {OURS: [1, 2, 4], NAIVE: [4, 4, 4]}}
    title, _, _, _, ours, naive = describe(
        row | {"lowest_cosine": {OURS: 1.0, NAIVE: 0.99}}, 640_000.0
    )
    assert title == "**s, 32** (320 tokens, 16 a batch, attention: a)"
    cells = [[cell.strip() for cell in line.split("|")[2:-1]] for line in (ours, naive)]
    assert cells == [
        ["160", "2.00 (1.00 to 4.00)", "50.0%", "1.00000"],
        ["80", "1.00", "25.0%", "0.99000"],
    ]


def test_the_whole_command_runs_on_a_cpu_in_small(tmp_path, capsys):
    pytest.importorskip("sentence_transformers", reason="the baseline is not installed")
    out = tmp_path / "gpu.json"
    assert gpu.main(["--out", str(out), "--device", "cpu", "--seconds", "100000"]) == 0
    rows = {(row["shape"], row["length"]): row for row in json.loads(out.read_text())["rows"]}
    assert set(rows) == {(shape, length) for shape in SHAPES for length in ("mixed", 32)}
    for (shape, length), row in rows.items():
        library = [gpu.BASELINE] if shape == "smollm2-135m" else []
        wanted = [OURS, PADDED, *library, NAIVE] if length == "mixed" else [OURS, NAIVE]
        assert list(row["seconds"]) == wanted
        assert min(row["lowest_cosine"].values()) > 0.99999
    assert "**smollm2-135m, mixed**" in capsys.readouterr().out


def test_what_fails_or_comes_too_late_is_left_out_with_a_line(tmp_path, capsys, monkeypatch):
    options = ["--out", str(tmp_path / "gpu.json"), "--device", "cpu", "--shapes", "llama-7b"]
    assert gpu.main([*options, "--seconds", "0"]) == 0
    monkeypatch.setattr(gpu, "encode_naively", lambda *_: 1 / 0)
    assert gpu.main(options) == 1
    told = capsys.readouterr().err
    assert "left out: llama-7b at mixed: 0 s are over" in told
    assert "left out: llama-7b at 32: ZeroDivisionError: division by zero" in told
