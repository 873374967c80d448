"""Field types: inferred from values, merged in any order, and the dates they know."""

import json
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import UsageError
from retrieval.filters import FieldType, Schema, SchemaBuilder, infer_schema
from retrieval.filters.schema import FIRST_DATE, LAST_DATE, format_date, parse_date

MIXED = "mixed"


def type_of(*values):
    schema = infer_schema({"x": value} for value in values)
    try:
        kind = schema.type_of("x")
    except UsageError as error:
        assert "one type per field" in str(error)
        return MIXED
    return None if kind is None else str(kind)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None], None),
        ([float("nan"), None], None),
        ([1, None, -(2**63)], "int"),
        ([1, 2.5], "float"),
        ([2.0], "float"),
        ([float("nan"), 1], "int"),  # NaN says nothing about the type
        ([True], "bool"),
        ([True, 1], MIXED),
        ([1, "1"], MIXED),
        ([2**53 + 1, 2**53, -(2**63)], "int"),
        ([2**53, 2.5], "float"),
        ([2**53 + 1, 2.5], MIXED),  # float64 would round it, and comparisons would not be exact
        ([2**63 - 1025, 2.0**63], MIXED),
        ([2**63], MIXED),
        ([2**63, 0.5], MIXED),
        (["2020-12-31", "2020-12-31T10:00:00Z"], "date"),
        (["2020-12-31", "soon"], "string"),
        (["2020", "12"], "string"),
        (["20201231"], "string"),
        (["2021-02-29"], "string"),
        (["[1, 2]", "[]", None], "list of int"),
        (["[1]", "[2.5]"], "list of float"),
        ([f"[1, {2**53 + 1}]", "[1]"], "list of int"),
        ([f"[{2**53 + 1}]", "[2.5]"], "string"),
        ([f"[{2**53 + 1}, 2.5]"], "string"),
        (['["a"]', '["2020-12-31", null]'], "list of string"),
        (["[true]"], "list of bool"),
        (["[]"], "list of string"),
        (["[1]", '["a"]'], "string"),
        (['[1, "a"]'], "string"),
        (["[[1]]"], "string"),
        (['[{"a": 1}]'], "string"),
        (["[1]", "x"], "string"),
        (["[]", "2020-12-31"], "string"),
        (["[1]", 1], MIXED),
        (["[not json]"], "string"),
        (["[NaN]"], "string"),
        (["[9223372036854775808]"], "string"),
        (["[" * 100_000 + "]" * 100_000], "string"),
        ([f"[{5000 * '1'}]"], "string"),
    ],
)
def test_these_values_make_this_type(values, kind):
    assert type_of(*values) == kind
    for order in permutations(values):
        assert type_of(*order) == kind


SCALARS = st.sampled_from([None, 1, 2.5, True, "x", "2020-12-31", "[1]", "[2.5]", "[]", '["a"]'])
ROWS = st.lists(st.dictionaries(st.sampled_from("abc"), SCALARS), max_size=6)


@given(ROWS, ROWS)
def test_merging_schemas_is_inferring_from_all_rows(left, right):
    merged = infer_schema(left).merge(infer_schema(right))
    assert merged == infer_schema([*left, *right])
    assert merged.types == infer_schema([*right, *left]).types
    assert merged.merge(merged) == merged


@given(ROWS)
def test_a_schema_survives_json(rows):
    schema = infer_schema(rows)
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


def test_a_builder_can_be_asked_at_any_time():
    builder = SchemaBuilder()
    builder.add({"b": 1, "a": "x"})
    assert builder.build().types == {"b": FieldType("int"), "a": FieldType("string")}
    builder.add({"b": 0.5, "c": None})
    assert builder.build().types == {"b": FieldType("float"), "a": FieldType("string")}
    assert builder.build().to_json() == {"b": ["float", "int"], "a": ["string"], "c": ["null"]}


def test_a_value_that_the_schema_has_not_seen_is_refused():
    schema = infer_schema([{"year": 2020, "none": None}])
    with pytest.raises(UsageError) as caught:
        schema.read({"year": "x"}, "year")
    assert str(caught.value) == (
        "Metadata field 'year' is of type int, but a document holds 'x' (string). "
        "Infer the schema from all of the documents."
    )
    with pytest.raises(UsageError, match="'none' is of type null, but a document holds 3"):
        schema.read({"none": 3}, "none")


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01", 0),
        ("1970-01-01T00:00", 0),
        ("1970-01-01 00:00:01", 1_000_000),
        ("1970-01-01T00:00:00.5Z", 500_000),
        ("1970-01-01T00:00:00.123456789Z", 123_456),  # below a microsecond is cut off
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T23:00:00-0100", 0),
        ("2000-02-29", 951_782_400_000_000),  # 11016 days of 86,400 s
        ("0001-01-01", FIRST_DATE),
        ("9999-12-31T23:59:59.999999Z", LAST_DATE),
        ("0001-01-01T00:00+00:01", None),  # before the year 1
        ("0000-01-01", None),
        ("1900-02-29", None),
        ("2020-13-01", None),
        ("2020-04-31", None),
        ("2020-01-01T24:00", None),
        ("2020-01-01T00:60", None),
        ("2020-01-01T00:00:60", None),
        ("2020-01-01T00:00+24:00", None),
        ("2020-01-01Z", None),
        ("2020-1-1", None),
        ("2020-01-01T", None),
        (" 2020-01-01", None),
        ("2020-01-01\n", None),
        ("٢٠٢٠-01-01", None),
        ("2020-W01-1", None),
        ("", None),
    ],
)
def test_a_date_is_this_many_microseconds_after_1970(text, moment):
    assert parse_date(text) == moment


@given(st.integers(FIRST_DATE, LAST_DATE))
def test_dates_survive_being_written_and_sort_as_text(micros):
    written = format_date(micros)
    assert parse_date(written) == micros
    assert datetime.fromisoformat(written) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
        microseconds=micros
    )
    assert (written < format_date(0)) == (micros < 0)
