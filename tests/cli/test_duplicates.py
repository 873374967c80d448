"""``millpond duplicates`` and ``search --distinct``, and where the snippet of a hit begins."""

import json

import pytest

from cli.commands.duplicates import ABOVE
from cli.searching import lay_out
from indexes.search.duplicates import ALIKE
from retrieval import Hit


@pytest.fixture
def folder(millpond, write_jsonl, tmp_path):
    rows = [
        {"_id": "a", "title": "Mills", "text": "mills grind corn"},
        {"_id": "b", "text": "frogs sing"},
        {"_id": "c", "text": "corn mills grind mills"},  # the same words as a with its title
    ]
    millpond("index", write_jsonl("rows.jsonl", *rows), "--out", tmp_path / "i")
    return tmp_path / "i"


def test_groups_are_shown_with_the_cosine_of_each_copy(millpond, folder):
    result = millpond("duplicates", folder)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == " 1          a  Mills\n    1.0000  c\n"
    assert "1 group with 1 document that repeat an earlier one, of 3." in result.stderr


def test_as_json(millpond, folder):
    (line,) = millpond("duplicates", folder, "--json").stdout.splitlines()
    assert json.loads(line) == {
        "doc_id": "a",
        "title": "Mills",
        "duplicates": [{"similarity": 1.0, "doc_id": "c", "title": ""}],
    }


def test_where_nothing_is_alike_that_is_said(millpond, folder):
    result = millpond("duplicates", folder, "--filter", "year > 1", "--above", 0.9)
    assert result.exit_code == 2  # there is no such field
    millpond("delete", folder, "c")
    result = millpond("duplicates", folder)
    assert (result.stdout, result.exit_code) == ("", 0)
    assert result.stderr.endswith("No two documents have a cosine of 0.95 or more.\n")


def test_of_an_index_of_passages_passages_are_named(millpond, write_jsonl, tmp_path):
    rows = [{"_id": "a", "text": "mills grind corn frogs sing now mills grind corn"}]
    path = write_jsonl("rows.jsonl", *rows)
    options = ("--passages", 3, "--overlap", 0, "--out", tmp_path / "p")
    millpond("index", path, *options)
    shown = millpond("duplicates", tmp_path / "p").stdout
    assert shown == " 1          a passage 1\n    1.0000  a passage 3\n"


def test_a_distinct_search_shows_one_of_them(millpond, folder):
    ids = [
        [json.loads(line)["doc_id"] for line in millpond(*search).stdout.splitlines()]
        for search in (
            ("search", folder, "mills grind corn", "--json"),
            ("search", folder, "mills grind corn", "--json", "--distinct"),
        )
    ]
    assert sorted(ids[0]) == ["a", "b", "c"]
    assert len(set(ids[1]) & {"a", "c"}) == 1
    assert "b" in ids[1]


def test_the_default_is_that_of_the_library():
    assert ABOVE == ALIKE


LONG = "Nothing to see. " * 20


@pytest.mark.parametrize(
    ("text", "matched", "begins"),
    [
        ("Mills grind corn.", ["corn"], "Mills grind corn."),
        (f"Mills. {LONG}Corn and mills.", ["Mills", "Corn", "mills"], "Mills. Nothing"),
        (f"{LONG}The mill grinds corn.", ["corn"], "… The mill grinds corn."),
        (f"{LONG}Corn. {LONG}A mill for corn.", ["Corn", "mill", "corn"], "… A mill for corn."),
        (f"{LONG}The mill.", [], "Nothing to see."),
        ("无" * 400 + "。磨坊磨玉米。", ["磨坊"], "… 磨坊磨玉米。"),
    ],
)
def test_a_snippet_shows_the_words_that_matched(text, matched, begins):
    _, line = lay_out(Hit(1, "a", 1.0, text=text, matched=tuple(matched)), None)
    assert line.strip().startswith(begins)
