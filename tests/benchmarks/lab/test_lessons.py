import json
from random import Random

import pytest

from benchmarks.lab.builtin import lessons
from benchmarks.lab.builtin.decontaminate import read_benchmarks

PAIRS = [
    {"query": "How do plants make food?", "positive": "Plants make sugar from light."},
    {"query": "How do plants make food?", "positive": "Leaves hold the green pigment."},
    {"query": "Which card was lost?", "positive": "A plane takes off.", "negatives": ["A dog."]},
]


@pytest.fixture
def shared(tmp_path):
    """Return a folder of benchmarks with one text in each of three layouts."""
    folder = tmp_path / "shared"
    for name in ("sts", "beir", "classification/banking"):
        (folder / name).mkdir(parents=True)
    (folder / "sts" / "STSB-test.tsv").write_text(
        "score\tsentence1\tsentence2\n5\tA plane takes off.\tA plane departs.\n"
    )
    scifact = folder / "beir" / "scifact"
    (scifact / "qrels").mkdir(parents=True)
    (scifact / "corpus.jsonl").write_text('{"_id": "1", "title": "", "text": "Cells divide."}\n')
    (scifact / "queries.jsonl").write_text('{"_id": "q", "text": "Do cells divide?"}\n')
    (scifact / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n")
    (folder / "classification" / "banking" / "test.tsv").write_text(
        "label\ttext\nlost\tWhich card was lost?\n"
    )
    return folder


@pytest.fixture
def pairs(tmp_path):
    """Return a folder of pairs as ``build_data`` writes it."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    (folder / "snli.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    return folder


def test_lessons_are_distinct_texts_and_none_is_of_a_benchmark(shared, pairs):
    found, report = lessons.build_lessons(shared, pairs, seed=1)
    assert sorted(found["snli"]) == [
        "How do plants make food?",
        "Leaves hold the green pigment.",
        "Plants make sugar from light.",
    ]
    assert report["snli"]["dropped"] == {
        "repeated": 1,  # the question
        "equal to a benchmark text": 2,  # the STS sentence and the text of banking
        "too short or too long": 1,  # "A dog."
    }


def test_a_classification_text_is_known_as_a_benchmark(shared):
    assert read_benchmarks(shared).find_overlap("which card was LOST") is not None


def test_held_out_lessons_are_in_no_other_file(shared, pairs, monkeypatch):
    monkeypatch.setattr(lessons, "HELD_OUT_SHARE", 0.34)
    found, report = lessons.build_lessons(shared, pairs, seed=1)
    assert (len(found["snli"]), len(found["held-out"])) == (2, 1)
    assert not set(found["snli"]) & set(found["held-out"])
    assert report["snli"]["held_out"] == 1


def test_a_long_document_gives_a_sentence_or_its_beginning(tmp_path):
    path = tmp_path / "long.jsonl"
    sentences = [f"Sentence number {n} says something." for n in range(30)]
    path.write_text(json.dumps({"query": "q", "positive": " ".join(sentences)}) + "\n")
    cuts = {list(lessons.cut_pairs(path, Random(seed)))[1] for seed in range(99)}
    beginning = " ".join(sentences[:14])  # 10 x 33 + 4 x 34 characters and 13 blanks: 479
    assert beginning in cuts
    assert cuts - {beginning} <= set(sentences)


def test_no_pairs_is_said(shared, tmp_path, capsys):
    options = ["--shared", shared, "--pairs", tmp_path, "--out", tmp_path / "out"]
    assert lessons.main([str(option) for option in options]) == 2
    assert "build_data" in capsys.readouterr().err
