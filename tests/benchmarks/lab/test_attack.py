"""The attacks of the lab: a few of each, and that they notice what they look for."""

import json
import os

import pytest

from benchmarks.lab.attack import flip, fuzz, kill, serve
from benchmarks.lab.attack.common import MODEL, Attack, Tally, make_documents, run_child
from embedder.training.config import load_config
from embedder.variants import parse_model_name
from indexes import Index
from retrieval.corpus import read_corpus, read_queries
from retrieval.errors import UsageError
from retrieval.filters import parse_filter

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL")


def test_a_table_counts_tests_and_failures_and_names_them():
    tally = Tally()
    tally.add("kill, faiss")
    tally.add("kill, faiss", "two documents are lost")
    assert tally.show().splitlines()[2:] == [
        "| kill, faiss | 2 | 1 |",
        "| all | 2 | 1 |",
        "- kill, faiss: two documents are lost",
    ]


def test_a_child_that_is_killed_or_raises_is_told():
    assert run_child(abs, -3) == (3, "")
    assert run_child(os.kill, os.getpid(), 0) == (None, "")
    assert run_child(os.abort) == (None, "killed by signal 6")
    assert run_child(int, "x")[1].startswith("ValueError: ")


@pytest.mark.parametrize(
    ("raised", "failure"),
    [
        (UsageError("one line"), ""),
        (UsageError("two\nlines"), "several lines"),
        (KeyError("k"), "KeyError: 'k'"),
    ],
)
def test_malformed_input_may_be_refused_in_one_line_alone(raised, failure):
    def case():
        raise raised

    assert fuzz._try(case).startswith(failure) and bool(fuzz._try(case)) == bool(failure)


def test_every_input_is_read_before_it_is_damaged(tmp_path):
    for name, content in {**fuzz.CORPORA, **fuzz.QUERIES}.items():
        (tmp_path / name).write_bytes(content)
        read = read_queries if name.startswith("q") else read_corpus
        assert list(read(tmp_path / name)), name
    (tmp_path / "train.toml").write_text(fuzz.CONFIG)
    load_config(tmp_path / "train.toml")
    for name in fuzz.NAMES:
        parse_model_name(name, "model1")
    for text in fuzz.FILTERS:
        parse_filter(text)
    refused = {"/tokenize"}  # the model of the attack does not show its tokens
    index = Index.create(tmp_path / "i", MODEL, make_documents(12))
    with serve.serving(index) as post:
        answers = {
            path: post(path, json.dumps(body).encode()) for path, body in fuzz.BODIES.items()
        }
    assert {path for path, (status, _) in answers.items() if status != 200} == refused


def test_a_damaged_file_has_to_be_named_by_check_and_by_a_wrong_search(tmp_path):
    file = tmp_path / "f"
    assert flip._judge(file, True, [1], [1], "", "") == ""
    assert flip._judge(file, True, [1], None, f"{file} is damaged", "") != ""
    assert flip._judge(file, False, [1], [1], "", f"{file} is damaged") == ""
    assert flip._judge(file, False, [1], [1], "", "") == "check calls the index whole"
    assert flip._judge(file, False, [1], [2], "", f"{file} is damaged") == "wrong hits"
    assert "does not name" in flip._judge(file, False, [1], None, "damaged", f"{file} is damaged")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attack", "count"),
    [(kill.attack_by_kills, 4), (flip.attack_by_damage, 8), (fuzz.attack_by_input, 140)],
)
def test_no_attack_of_a_few_of_each_kind_finds_a_fault(attack, count):
    tally = attack(Attack(seed=3, count=count, seconds=600))
    assert tally.done.total() == count
    assert tally.failures == []


@pytest.mark.slow
def test_hostile_clients_keep_no_honest_one_from_the_right_answer():
    tally = serve.attack_by_load(Attack(seed=3, count=8, seconds=4))
    assert tally.done["honest requests"] > 0
    assert tally.done["the server lives"] == 1
    assert [failure for failure in tally.failures if not failure[0].startswith("memory")] == []
