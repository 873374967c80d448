"""Modes, several indexes, and texts from stdin, on the command line."""

import json

import pytest

from cli.searching import explain, lay_out
from indexes import Index, IndexConfig
from retrieval import Document, Hit
from retrieval.types import ArmScore
from tests.cli.conftest import WordEncoder


def objects(result):
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_lexical_search_loads_no_model(millpond, index_folder, loaded):
    loaded.clear()
    found = objects(millpond("search", index_folder, "mill", "--mode", "lexical", "--json"))
    assert [(hit["doc_id"], hit["matched"]) for hit in found] == [("b", ["mills"])]
    assert loaded == []


def test_a_dense_search_says_nothing_of_arms(millpond, index_folder):
    for hit in objects(millpond("search", index_folder, "mill", "--mode", "dense", "--json")):
        assert not {"arms", "matched"} & set(hit)


def test_a_mode_that_the_index_lacks_is_refused_before_the_model_is_loaded(
    millpond, tmp_path, loaded
):
    documents = [Document("a", "water"), Document("b", "mills")]
    Index.create(tmp_path / "one", WordEncoder("fake"), documents, IndexConfig(arms=("dense",)))
    for mode in ("hybrid", "lexical"):
        result = millpond("search", tmp_path / "one", "water", "--mode", mode)
        assert (result.exit_code, loaded) == (2, [])
        assert f"{tmp_path / 'one'} has no lexical arm" in result.stderr
        assert "--arms dense,lexical" in result.stderr
    plain = millpond("search", tmp_path / "one", "water", "--json")
    assert [hit["doc_id"] for hit in objects(plain)] == ["a", "b"]
    assert "The search is by meaning alone" in plain.stderr
    asked = millpond("search", tmp_path / "one", "water", "--mode", "dense")
    assert "meaning alone" not in asked.stderr


def test_of_several_indexes_each_that_cannot_be_searched_by_words_is_named_with_what_to_type(
    millpond, tmp_path, loaded
):
    documents = [Document("a", "water"), Document("b", "mills")]
    whole, dense, damaged = folders = [tmp_path / name for name in ("whole", "no words", "flipped")]
    for folder in folders:
        arms = ("dense",) if folder == dense else ("dense", "lexical")
        Index.create(folder, WordEncoder("fake"), documents, IndexConfig(arms=arms))
    [words] = (damaged / "lexical").glob("*.idx")
    words.write_bytes(b"short")
    for places, named in ((folders, 2), ([damaged], 1)):
        for choice in (("--mode", "lexical"), ("--mode", "hybrid"), ("--weight", "0.3")):
            result = millpond("search", *places, "water", *choice)
            assert (result.exit_code, loaded) == (2, [])
            assert f"{words} is damaged: it has" in result.stderr
            assert f"Make it again with: millpond reindex {damaged} --arms" in result.stderr
            assert result.stderr.count("millpond reindex") == named
            assert f"reindex {whole}" not in result.stderr
            typed = f"{dense} has no lexical arm. Make it with: millpond reindex '{dense}' --arms"
            assert (typed in result.stderr) == (named == 2)
    lines = millpond("search", *folders, "water").stderr.splitlines()
    starts = ("The search is by meaning alone. ", "Warning: The search is by meaning alone. ")
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=False))


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("zebra", "lexical", "No document has a word of the text."),
        ("?!", "lexical", "No document has a word of the text."),
        ("zebra", "hybrid", "its meaning alone decides"),
        ("水車", "hybrid", "its meaning alone decides"),
    ],
)
def test_a_text_without_a_word_of_the_index_is_told(text, mode, says, millpond, index_folder):
    result = millpond("search", index_folder, text, "--mode", mode)
    assert result.exit_code == 0
    assert says in result.stderr


def test_a_text_of_100_kb_is_searched(millpond, index_folder):
    found = objects(millpond("search", index_folder, "mills " * 16_667, "--json", "-k", 1))
    assert found[0]["doc_id"] == "b"


@pytest.fixture
def halves(millpond, write_jsonl, tmp_path):
    """The corpus of ``index_folder`` in two indexes."""
    rows = [
        {"_id": "a", "title": "Rivers", "text": "water flows down hill"},
        {"_id": "b", "text": "mills grind corn"},
        {"_id": "c", "text": "a pond holds still water"},
    ]
    for name, part in (("one", rows[:1]), ("two", rows[1:])):
        path = write_jsonl(f"{name}.jsonl", *part)
        assert millpond("index", path, "--out", tmp_path / name).exit_code == 0
    return tmp_path / "one", tmp_path / "two"


def test_several_indexes_are_searched_as_one_and_hits_name_theirs(
    millpond, halves, index_folder, loaded
):
    loaded.clear()
    found = objects(millpond("search", *halves, "still water", "--mode", "dense", "--json"))
    assert loaded == ["fake"]
    whole = objects(millpond("search", index_folder, "still water", "--mode", "dense", "--json"))
    assert [(hit["doc_id"], hit["score"]) for hit in found] == [
        (hit["doc_id"], hit["score"]) for hit in whole
    ]
    assert {hit["doc_id"]: hit["index"] for hit in found} == {"a": "one", "b": "two", "c": "two"}
    shown = millpond("search", *halves, "still water", "-k", 1).stdout
    assert "  two: c\n" in shown
    hybrid = objects(millpond("search", *halves, "still water", "--json"))
    assert hybrid[0]["doc_id"] == "c"
    assert all(hit["arms"] for hit in hybrid)


def test_an_index_twice_and_indexes_of_two_models_are_refused(millpond, halves, corpus, tmp_path):
    twice = millpond("search", halves[0], halves[0], "water")
    assert twice.exit_code == 2
    assert "arrived 2 times" in twice.stderr
    millpond("index", corpus, "--out", tmp_path / "other", "--model", "other")
    mixed = millpond("search", halves[0], tmp_path / "other", "water")
    assert mixed.exit_code == 2
    assert "one was made with 'fake' and other with 'other'" in mixed.stderr


def test_a_last_place_that_is_an_index_is_not_taken_for_a_text(millpond, halves):
    result = millpond("search", *halves)
    assert result.exit_code == 2
    assert f'type it with a blank: "{halves[1]} "' in result.stderr


def test_a_text_a_line_is_read_from_stdin(millpond, index_folder):
    result = millpond("search", index_folder, "-", "-k", 1, stdin="mills\n\n  still water \n")
    assert result.exit_code == 0, result.stderr
    shown = [line for line in result.stdout.splitlines() if not line.startswith("    ")]
    assert [line.split()[-1] for line in shown] == ["mills", "b", "water", "c"]
    assert shown[0] == "> mills"
    found = objects(millpond("search", index_folder, "-", "-k", 1, "--json", stdin="mills\n"))
    assert [(hit["query"], hit["doc_id"]) for hit in found] == [("mills", "b")]


def test_many_queries_can_be_answered_in_json(millpond, index_folder, write_jsonl):
    queries = write_jsonl("q.jsonl", {"_id": "q1", "text": "mills"}, {"_id": "q2", "text": "pond"})
    found = objects(millpond("search", index_folder, "--queries", queries, "--json", "-k", 1))
    assert [(hit["query_id"], hit["doc_id"]) for hit in found] == [("q1", "b"), ("q2", "c")]
    assert found[0]["text"] == "mills grind corn"
    assert found[0]["matched"] == ["mills"]


def test_a_run_has_the_hits_of_the_mode(millpond, index_folder, write_jsonl):
    queries = write_jsonl("q.jsonl", {"_id": "q1", "text": "mills"})
    asked = ("search", index_folder, "--queries", queries, "--run", "-")
    lexical = millpond(*asked, "--mode", "lexical").stdout.splitlines()
    assert [line.split()[2] for line in lexical] == ["b"]
    fused = millpond(*asked, "--fusion", "rrf").stdout.splitlines()
    assert float(fused[0].split()[4]) == pytest.approx(2 / 61, abs=1e-7)


def test_a_terminal_says_why_a_hit_is_one():
    arms = {"dense": ArmScore(0.48531, 12), "lexical": ArmScore(8.214, None)}
    hit = Hit(1, "doc", 0.5, "", "text", arms=arms, matched=("delete", "folder"))
    assert explain(hit) == "dense 0.4853 (rank 12), lexical 8.21: delete, folder"
    assert list(lay_out(hit, 80))[-1] == "    " + explain(hit)
    assert len(list(lay_out(hit, None))) == 2  # a pipe gets what it got
    many = Hit(1, "doc", 0.5, "", "text", arms=arms, matched=tuple(f"word{n}" for n in range(40)))
    assert len(list(lay_out(many, 80))[-1]) <= 80


def test_a_matched_word_is_told_once_whatever_its_case():
    assert explain(Hit(1, "doc", 0.5, matched=("Mill", "corn", "mill", "MILL"))) == "Mill, corn"


def test_matched_words_cannot_steer_the_terminal():
    hit = Hit(1, "doc", 0.5, matched=("evil\x1b[2J", "a\nb"))
    assert explain(hit) == "evil [2J, a b"
