"""The script that times commands beside busy processes."""

import re

import pytest

from benchmarks.lab.speed import beside

SENTENCES = "score\tsentence1\tsentence2\n5\ta mill\ta mill turns\n1\ta pond\tthe sky\n"


def test_what_is_kept_worked_by_hand():
    """Half as fast and a quarter as fast, where ONNX Runtime is half as fast."""
    lines = beside.format_kept({beside.ONNX: [(2.0, 4.0)], "embed, exact": [(1.0, 4.0)]})
    assert lines[2:] == [
        "| ONNX Runtime | 2.0 | 4.0 | 0.50 (0.50 to 0.50) | 1.00 (1.00 to 1.00) |",
        "| embed, exact | 1.0 | 4.0 | 0.25 (0.25 to 0.25) | 0.50 (0.50 to 0.50) |",
    ]


@pytest.mark.slow
def test_a_server_is_timed_too(tiny_base, tmp_path, capsys):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the export extra is not installed")
    (tmp_path / "sts.tsv").write_text(SENTENCES)
    model = f"{tiny_base}:mean+causal,max_tokens=16"
    options = [
        "--model",
        model,
        "--texts",
        "4",
        "--rounds",
        "1",
        "--busy",
        "1",
        "--only",
        "serve, exact",
    ]
    assert beside.main([str(tmp_path / "sts.tsv"), *options]) == 0
    table = capsys.readouterr().out.splitlines()[3:]
    assert [re.split(r" \| |\| ", line)[1] for line in table] == [beside.ONNX, "serve, exact"]


def test_a_command_that_fails_is_told_with_its_own_words(tmp_path, capsys):
    (tmp_path / "sts.tsv").write_text(SENTENCES)
    assert beside.main([str(tmp_path / "sts.tsv"), "--model", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err
