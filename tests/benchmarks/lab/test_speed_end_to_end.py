"""benchmarks/speed/end_to_end.py: both do the same work, and the share is a ratio of times."""

import json
from argparse import Namespace

import numpy as np
import pytest

from benchmarks.lab.speed.end_to_end import ALONE, BUILD, describe_share, main, measure
from benchmarks.lab.speed.interleaved import Timings
from embedder import Embedder
from indexes import Index
from retrieval import read_corpus

pytest.importorskip("faiss", reason="faiss is not installed")


@pytest.fixture
def corpus(tmp_path):
    """Twelve documents with titles."""
    path = tmp_path / "corpus.jsonl"
    rows = [{"_id": f"d{n}", "title": f"T{n}", "text": "the mill turns " * n} for n in range(12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_share_is_the_time_of_a_build_by_that_of_encoding_within_rounds():
    """4.4/4, 2.08/2 and 10.2/10 are 1.1, 1.04 and 1.02."""
    timings = Timings({ALONE: [4, 2, 10], BUILD: [4.4, 2.08, 10.2]})
    said = describe_share(timings)
    assert said == "Index.create takes 1.040 (1.020 to 1.100) of the time of encoding alone"


def test_the_build_stores_the_vectors_that_encoding_alone_gives(corpus, tiny_base, tmp_path):
    model = Embedder.load(f"{tiny_base}:mean+causal,max_tokens=24", device="cpu")
    config = Namespace(corpus=str(corpus), documents=10, rounds=2, seconds=100.0, cpu_time=False)
    texts = [document.content for document in read_corpus(corpus, limit=10)]
    expected = model.encode_documents(texts)
    calls = []
    encode = model.encode_documents
    model.encode_documents = lambda some: calls.append(len(some)) or encode(some)
    timings = measure(model, texts, config, tmp_path)
    assert calls == [8, 8, 10, 10, 10, 10]  # both warm up, then two rounds of both
    assert {name: len(seconds) for name, seconds in timings.seconds.items()} == {ALONE: 2, BUILD: 2}
    index = Index.open(tmp_path / "build2")  # after the warming one and that of the first round
    assert len(index) == 10
    for row, text in enumerate(texts):
        [hits] = index.search(expected[row : row + 1], 1)
        assert hits[0].score == pytest.approx(1, abs=1e-5), text
    assert np.allclose(encode(texts), expected, atol=1e-5)


def test_the_command_prints_the_machine_a_table_and_a_verdict(corpus, tiny_base, tmp_path, capsys):
    work = tmp_path / "work"
    work.mkdir()
    options = ["--model", f"{tiny_base}:mean+causal,max_tokens=24", "--documents", "9"]
    assert main([str(corpus), *options, "--rounds", "2", "--folder", str(work)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"9 documents of {corpus}" in lines[0]
    assert "2 interleaved rounds in wall time" in lines[0]
    assert [line.split("|")[1].strip() for line in lines if line.startswith("|")][2:] == [
        ALONE,
        BUILD,
    ]
    assert lines[-1].startswith("Index.create takes ")
    assert list(work.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["no-such-corpus.jsonl"], "no-such-corpus.jsonl"),
        (["c", "--documents", "0"], "--documents is 0; it must be 1 or more."),
    ],
)
def test_what_cannot_be_measured_is_one_line(arguments, problem, capsys):
    assert main(arguments) == 1
    assert problem in capsys.readouterr().err
