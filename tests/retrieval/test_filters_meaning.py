"""What filters mean: hand-worked tables over the reference, and what the types refuse."""

import math

import pytest

from retrieval.errors import UnknownNameError, UsageError
from retrieval.filters import Schema, evaluate_filter, infer_schema, parse_filter, plan_filter
from retrieval.filters.plan import AnyOf, Constant, Every, Inverse, Ordered, Present
from retrieval.filters.schema import FieldType
from retrieval.filters.tree import Compare, Not

ROWS = [
    {"year": 2020, "lang": "en", "score": 0.5, "draft": True, "day": "2020-12-31", "tags": '["a"]'},
    {"year": 2021, "lang": "de", "score": -0.0, "draft": False, "day": "2021-01-01T00:00Z"},
    {"year": None, "lang": "", "score": math.nan, "day": "2021-01-01T00:30+01:00", "tags": "[]"},
    {"lang": "EN", "score": math.inf, "tags": '["b", "a", null]'},
    {"year": 2**53 + 1, "score": 3, "day": None, "tags": '["2020-12-31"]'},
]
SCHEMA = infer_schema([*ROWS, {"mixed": 1, "empty": None}, {"mixed": "x"}])


def select(text, rows=ROWS, schema=SCHEMA):
    return [n for n, held in enumerate(evaluate_filter(parse_filter(text), schema, rows)) if held]


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("year >= 2020", [0, 1, 4]),
        ("year < 2021", [0]),
        ("not year < 2021", [1, 2, 3, 4]),  # no year is not below 2021
        ("year != 2020", [1, 4]),  # but a comparison with no year is false
        ("not year == 2020", [1, 2, 3, 4]),
        ("year == null", [2, 3]),  # null, and missing
        ("year != null", [0, 1, 4]),
        ("not year == null", [0, 1, 4]),
        ("year == 2020.0", [0]),
        ("year > 2020.5", [1, 4]),
        ("year == 2020.5", []),
        ("year == 9007199254740992", []),  # 2**53, one less than what row 4 holds
        ("year > 9007199254740992", [4]),
        ("year <= 9007199254740992.0", [0, 1]),
        ("year < 9223372036854775808", [0, 1, 4]),  # 2**63: any year
        ("year > 9223372036854775807", []),
        ("year in [2021, 2020.0]", [0, 1]),
        ("year in [2020, null]", [0, 2, 3]),
        ("year not in [2020]", [1, 4]),
        ("year not in []", [0, 1, 4]),
        ("year in []", []),
        ("not year in [2020]", [1, 2, 3, 4]),
        ("score == 0", [1]),  # -0.0
        ("score >= 0", [0, 1, 3, 4]),  # NaN is null, infinity a large number
        ("score > 1e308", [3]),
        ("score == null", [2]),
        ("score == 3", [4]),
        ("score < 3.0 or score == null", [0, 1, 2]),
        ("draft == true", [0]),
        ("draft != true", [1]),
        ("draft in [true, false]", [0, 1]),
        ('lang == "en"', [0]),
        ('lang == ""', [2]),
        ('lang in ["en", "EN"] and not draft == true', [3]),
        ('day == "2020-12-31"', [0]),
        ('day >= "2021-01-01"', [1]),  # half past midnight in Paris is still 2020 in UTC
        ('day < "2021-01-01T00:00:00Z"', [0, 2]),
        ('day > "2020-12-31 23:29:59.999999"', [1, 2]),
        ('tags contains "a"', [0, 3]),
        ('not tags contains "a"', [1, 2, 4]),
        ("tags == null", [1, 2]),  # missing, and the empty list
        ('tags contains "2020-12-31"', [4]),
        ("empty == null", [0, 1, 2, 3, 4]),
        ("empty != null", []),
        ("empty != null or year == 2021", [1]),
        ("empty == null and year == 2021", [1]),
    ],
)
def test_these_rows_are_let_through(text, rows):
    assert select(text) == rows


def test_numbers_between_two_floats_compare_exactly():
    rows = [{"x": 2.0**53}, {"x": 2.0**53 + 2}, {"x": 0.5}]
    schema = infer_schema(rows)
    assert select("x == 9007199254740993", rows, schema) == []
    assert select("x < 9007199254740993", rows, schema) == [0, 2]
    assert select("x >= 9007199254740993", rows, schema) == [1]
    assert select(f"x < 1{400 * '0'}", rows, schema) == [0, 1, 2]
    assert select(f"x > -1{400 * '0'}", rows, schema) == [0, 1, 2]
    assert select(f"x >= 1{400 * '0'}", rows, schema) == []


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("year < 2020", Ordered("year", FieldType("int"), "<=", 2019)),
        ("year > 2019.5", Ordered("year", FieldType("int"), ">=", 2020)),
        ("year >= -9223372036854775808", Present("year")),
        ("year == 0.5", Constant(False)),
        ("not year == 2020", Inverse(AnyOf("year", FieldType("int"), (2020,)))),
        (
            "year != 2020",
            Every((Present("year"), Inverse(AnyOf("year", FieldType("int"), (2020,))))),
        ),
        ("year in [3, 3.0, 3]", AnyOf("year", FieldType("int"), (3,))),
        ("score < 9007199254740993", Ordered("score", FieldType("float"), "<=", 2.0**53)),
        ("score < 0.5", Ordered("score", FieldType("float"), "<=", math.nextafter(0.5, 0))),
        ("score > -5e-324", Ordered("score", FieldType("float"), ">=", 0.0)),
        ("score > 1.7976931348623157e308", Constant(False)),
        ("score <= 1.7976931348623157e308", Present("score")),
        ("score > -1" + 400 * "0", Present("score")),
        ('day > "9999-12-31T23:59:59.999999Z"', Constant(False)),
        ('day <= "1970-01-01T00:00:01"', Ordered("day", FieldType("date"), "<=", 1_000_000)),
        ("year == 0.5 and lang == 'x' or draft == null", Inverse(Present("draft"))),
    ],
)
def test_plans_are_plain(text, plan):
    assert plan_filter(parse_filter(text), SCHEMA) == plan


NUMBER = "Expected a number."
DAY = 'Expected a date, as in "2020-12-31" or "2020-12-31T23:59:59Z".'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('year == "x"', f"'year' is of type int; it cannot be compared with \"x\". {NUMBER}"),
        ("year in [1, true]", f"'year' is of type int; it cannot be compared with true. {NUMBER}"),
        (
            "year < null",
            f"'year' is of type int; it cannot be compared with null. {NUMBER} "
            "null goes with == and != only.",
        ),
        ("score == 'x'", f"'score' is of type float; it cannot be compared with \"x\". {NUMBER}"),
        (
            "draft == 1",
            "'draft' is of type bool; it cannot be compared with 1. Expected true or false.",
        ),
        (
            "lang == 3",
            "'lang' is of type string; it cannot be compared with 3. "
            'Expected text in quotes, as in "en".',
        ),
        ("day == 'soon'", f"'day' is of type date; it cannot be compared with \"soon\". {DAY}"),
        ("day > 2020", f"'day' is of type date; it cannot be compared with 2020. {DAY}"),
        (
            "lang < 'x'",
            "'lang' is of type string, which does not have '<'; "
            "expected one of ==, !=, in, not in. "
            "A field has an order where all of its values are numbers or ISO 8601 dates.",
        ),
        (
            "lang contains 'x'",
            "'lang' is of type string, which does not have 'contains'; "
            "expected one of ==, !=, in, not in.",
        ),
        (
            "draft > false",
            "'draft' is of type bool, which does not have '>'; expected one of ==, !=, in, not in.",
        ),
        (
            "tags == 'a'",
            "'tags' is of type list of string, which does not have '=='; "
            "expected one of contains, == null, != null.",
        ),
        (
            "year contains 3",
            "'year' is of type int, which does not have 'contains'; "
            "expected one of ==, !=, <, <=, >, >=, in, not in.",
        ),
        (
            "mixed == 1",
            "'mixed' cannot be filtered: its values are of the types int, string; expected one "
            "type per field, or float with ints that float64 holds exactly. Make them alike in "
            "the corpus and index it again.",
        ),
        (
            "empty == 1",
            "'empty' is null in every document; expected empty == null or empty != null.",
        ),
    ],
)
def test_a_comparison_that_the_type_does_not_have_is_refused(text, message):
    with pytest.raises(UsageError) as caught:
        plan_filter(parse_filter(text), SCHEMA)
    assert str(caught.value) == f"Filter field {message}"


def test_an_unknown_field_is_named_with_the_nearest_and_with_all():
    with pytest.raises(UnknownNameError) as caught:
        evaluate_filter(parse_filter("lang == 'en' or yaer == 1"), SCHEMA, iter(()))
    assert str(caught.value) == (
        "Unknown filter field 'yaer'. Did you mean 'year'? "
        "Accepted: year, lang, score, draft, day, tags, mixed, empty."
    )


def test_an_index_without_fields_says_so():
    with pytest.raises(UsageError) as caught:
        plan_filter(parse_filter("year == 1"), Schema())
    assert str(caught.value) == (
        "Unknown filter field 'year'. The documents of this index have no fields beside id, "
        "title and text; leave the filter out."
    )


def test_an_error_in_a_branch_that_decides_nothing_is_still_an_error():
    with pytest.raises(UsageError, match="'lang' is of type string"):
        plan_filter(parse_filter("year == 0.5 and lang == 3"), SCHEMA)


def test_trees_made_in_python_are_checked_as_well():
    with pytest.raises(UsageError, match=r"cannot be compared with NaN\. Expected a number"):
        plan_filter(Compare("score", "==", math.nan), SCHEMA)
    tree = Compare("year", "==", 1)
    for _ in range(5000):
        tree = Not(tree)
    with pytest.raises(UsageError, match="5000 levels deep; expected at most 32"):
        plan_filter(tree, SCHEMA)
