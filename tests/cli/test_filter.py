"""``millpond search --filter``: what is found, what is refused before a model is loaded."""

import json

import pytest

YEARS = {"a": 1990, "b": 2020, "c": 2021, "d": None}


@pytest.fixture
def folder(millpond, write_jsonl, tmp_path):
    rows = [
        {"_id": name, "text": f"still water {name}", "year": year, "mixed": year or "x"}
        for name, year in YEARS.items()
    ]
    path = write_jsonl("years.jsonl", *rows)
    assert millpond("index", path, "--out", tmp_path / "years").exit_code == 0
    return tmp_path / "years"


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("year >= 2020", "bc"),
        ("not year >= 2020", "ad"),
        ("year == null", "d"),
        ("year in [1990, 2021]", "ac"),
    ],
)
def test_only_documents_that_match_are_found(where, ids, millpond, folder):
    result = millpond("search", folder, "still water", "--filter", where, "--json")
    assert result.exit_code == 0, result.stderr
    found = [json.loads(line)["doc_id"] for line in result.stdout.splitlines()]
    assert sorted(found) == list(ids)


def test_a_filter_holds_for_every_query_of_a_file(millpond, folder, write_jsonl):
    queries = write_jsonl("q.jsonl", {"_id": "1", "text": "a"}, {"_id": "2", "text": "b"})
    args = ("--queries", queries, "--run", "-", "--filter", "year > 2020")
    rows = [line.split()[:3] for line in millpond("search", folder, *args).stdout.splitlines()]
    assert rows == [["1", "Q0", "c"], ["2", "Q0", "c"]]


def test_a_filter_that_nothing_matches_says_so(millpond, folder):
    result = millpond("search", folder, "water", "--filter", "year > 3000")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Warning: No document matches the filter." in result.stderr.splitlines()


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("yeer >= 2020", ["Unknown filter field 'yeer'", "Did you mean 'year'?"]),
        ('year == "2020"', ["'year'", "int"]),
        ('year contains "x"', ["'year'", "int"]),
        ("mixed == 1", ["'mixed' cannot be filtered", "int, string"]),
        ("year >= ", ["column 9"]),
        ("year >= 2020 and or", ["column 18"]),
        ("", ["--filter is empty"]),
    ],
)
def test_a_filter_that_cannot_be_is_one_line_before_a_model_is_loaded(
    where, words, millpond, folder, loaded
):
    loaded.clear()
    result = millpond("search", folder, "water", "--filter", where)
    assert (result.exit_code, result.stdout, loaded) == (2, "", [])
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    for word in words:
        assert word in result.stderr


def test_an_index_without_fields_says_that_it_has_none(millpond, write_jsonl, tmp_path, loaded):
    path = write_jsonl("plain.jsonl", {"_id": "a", "text": "x"})
    millpond("index", path, "--out", tmp_path / "plain")
    loaded.clear()
    result = millpond("search", tmp_path / "plain", "x", "--filter", "year > 1")
    assert (result.exit_code, loaded) == (2, [])
    assert "no fields beside id, title and text" in result.stderr
