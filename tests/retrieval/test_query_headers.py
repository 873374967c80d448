"""Whether the first line of a queries file names its columns, or is a query."""

import pytest

from retrieval import Query, read_queries
from retrieval.errors import RecordError


@pytest.fixture
def read(tmp_path):
    def run(*lines):
        path = tmp_path / "queries.tsv"
        path.write_text("".join("\t".join(line) + "\n" for line in lines))
        return list(read_queries(path))

    return run


@pytest.mark.parametrize(
    "header",
    [
        ("_id", "text"),
        ("query-id", "text"),
        ("Query ID", "Query"),
        ("qid", "question"),
        ("QID", "query_text"),
        ("topic", "title"),
    ],
)
def test_names_of_columns_are_no_query(read, header):
    assert read(header, ("1", "a mill")) == [Query("1", "a mill")]


def test_named_columns_stand_in_any_order_among_others(read):
    found = read(("lang", "Query", "Query-ID"), ("en", "a mill", "q7"))
    assert found == [Query("q7", "a mill")]


@pytest.mark.parametrize(
    "lines",
    [
        [("1", "a mill"), ("2", "text")],
        [("a", "a mill"), ("b", "a pond")],
        [("warm", "query"), ("cold", "x")],
        [("alone", "a mill")],
    ],
)
def test_a_file_without_names_begins_with_a_query(read, lines):
    assert read(*lines) == [Query(*line) for line in lines]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (("query-id", "frage"), ("q", "a mill")),
        (("nummer", "frage"), ("17", "a mill")),
        (("kennung", "frage", "sprache"), ("q17", "a mill", "en")),
    ],
)
def test_what_looks_like_a_header_and_is_not_known_is_refused(read, header, row):
    with pytest.raises(RecordError, match=r"queries\.tsv:1: the first line is .*looks like a head"):
        read(header, row)
