"""The script that times first answers: it runs real commands, and a failure is told."""

import re

import pytest

from benchmarks.lab.speed.first_answer import BASELINE, LIGHT, WHOLE, main
from embedder import Embedder
from indexes import Index
from retrieval import Document


@pytest.fixture
def index(tiny_base, tmp_path):
    model = Embedder.load(f"{tiny_base}:mean+causal,max_tokens=16", device="cpu")
    documents = [Document(str(n), text=f"pond {n}") for n in range(4)]
    Index.create(tmp_path / "index", model, documents)
    return tmp_path / "index"


@pytest.mark.slow
def test_it_prints_seconds_and_a_ratio_for_each_contestant(index, capsys):
    assert main([str(index), "--rounds", "1"]) == 0
    printed, progress = capsys.readouterr()
    for name in (LIGHT, WHOLE):
        row = next(line for line in printed.splitlines() if line.startswith(f"| {name} |"))
        assert all(float(number) > 0 for number in re.findall(r"\d+\.\d+", row))
        assert f"Round 1: {name} took" in progress
    assert BASELINE not in printed


def test_a_command_that_fails_is_told_with_its_own_words(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere"), "--rounds", "1"]) == 1
    assert "nowhere" in capsys.readouterr().err
