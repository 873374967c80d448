"""The text of a filter: what it parses to, its canonical form, and what is refused."""

import pytest

from retrieval.errors import UsageError
from retrieval.filters import parse_filter
from retrieval.filters.tree import And, Compare, Contains, Member, Not, Or

A, B, C = (Compare(name, "==", 1) for name in "abc")


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("year >= 2020", Compare("year", ">=", 2020)),
        ("year>=-2.5e3", Compare("year", ">=", -2500.0)),
        ('lang == "en"', Compare("lang", "==", "en")),
        ("lang != 'it\\'s'", Compare("lang", "!=", "it's")),
        (r'x == "\"\\\/\n\u00e9\ud83d\ude00"', Compare("x", "==", '"\\/\né\U0001f600')),
        ("draft == true", Compare("draft", "==", True)),
        ("draft != null", Compare("draft", "!=", None)),
        ('x in ["a", 1, null]', Member("x", ("a", 1, None))),
        ("x not in []", Member("x", (), negated=True)),
        ('tags contains "x"', Contains("tags", "x")),
        ("meta.data-set_2 == 1", Compare("meta.data-set_2", "==", 1)),
        ("größe == 1", Compare("größe", "==", 1)),
        ("`2nd ``not``` == 1", Compare("2nd `not`", "==", 1)),
        ("`and` == 1", Compare("and", "==", 1)),
        ("a == 1 or b == 1 and c == 1", Or((A, And((B, C))))),
        ("(a == 1 or b == 1) and c == 1", And((Or((A, B)), C))),
        ("not a == 1 and b == 1", And((Not(A), B))),
        ("not (a == 1 and b == 1)", Not(And((A, B)))),
        ("not not a == 1", A),
        ("not (not (not a == 1))", Not(A)),
        ("(a == 1 and (b == 1 and c == 1))", And((A, B, C))),
        ("(a == 1 or b == 1) or c == 1", Or((A, B, C))),
    ],
)
def test_text_becomes_this_tree_and_its_canonical_text_the_same_again(text, tree):
    parsed = parse_filter(text)
    assert parsed == tree
    assert parse_filter(str(parsed)) == tree


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("year>=2020 and(lang=='en')", 'year >= 2020 and lang == "en"'),
        (
            "not(a==1.50 or b!=TRUE_NAME)".replace("TRUE_NAME", "true"),
            "not (a == 1.5 or b != true)",
        ),
        ("(a==1 and b==2) or not(c in[1,2.0])", "a == 1 and b == 2 or not c in [1, 2.0]"),
        ("(a == 1 or b == 2) and c not  in ['x']", '(a == 1 or b == 2) and c not in ["x"]'),
        ("`plain` == 1 and `in` == 2 and `a b` == 3", "plain == 1 and `in` == 2 and `a b` == 3"),
    ],
)
def test_the_canonical_text_is(text, canonical):
    assert str(parse_filter(text)) == canonical


FIELD = "expected a field name."
FIRST = "expected a field name. The field comes first, as in: year >= 2020"
VALUE = 'expected a value (a number, "text", true, false or null).'
OPERATOR = "expected ==, !=, <, <=, >, >=, in, not in or contains."
ANY = "expected a field name, a value, an operator or a parenthesis."
END = "expected 'and', 'or' or the end."
DIGIT = "expected a number. A field name that begins with a digit goes in backticks."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"column 1: found the end; {FIRST}"),
        ("year", f"column 5: found the end; {OPERATOR}"),
        ("year ==", f"column 8: found the end; {VALUE}"),
        ("year == 1 and", f"column 14: found the end; {FIRST}"),
        ("2020 <= year", f"column 1: found '2020'; {FIRST}"),
        ("year = 2020", "column 6: found '='; expected '=='."),
        ("year <> 2020", "column 6: found '<>'; expected '!='."),
        ("a == 1 && b == 1", "column 8: found '&'; expected 'and'."),
        ("a == 1 || b == 1", "column 8: found '|'; expected 'or'."),
        ("!a == 1", "column 1: found '!'; expected 'not', or '!='."),
        ("a == “x”", "column 6: found '“'; expected straight quotes, as in \"text\"."),
        ("a == 1 AND b == 1", f"column 8: found 'AND'; {END} Write and in small letters."),
        ("lang == en", f"column 9: found 'en'; {VALUE} Text goes in quotes."),
        ("draft == True", f"column 10: found 'True'; {VALUE} Write true."),
        ("draft == None", f"column 10: found 'None'; {VALUE} Write null."),
        ("a == 1)", f"column 7: found ')'; {END} This parenthesis closes nothing."),
        (
            "b == 1 and (a == 1",
            "column 19: found the end; expected 'and', 'or' or ')'. "
            "The parenthesis of column 12 is still open.",
        ),
        ("()", f"column 2: found ')'; {FIELD}"),
        ("1 < a < 3", f"column 1: found '1'; {FIRST}"),
        ("a < 3 < 4", f"column 7: found '<'; {END}"),
        ("a not 3", "column 7: found '3'; expected 'in' after 'not'."),
        ("a in 3", "column 6: found '3'; expected '[' and the values, as in [1, 2]."),
        ("a in [1 2]", "column 9: found '2'; expected ',' or ']'."),
        ("a in [1,]", f"column 9: found ']'; {VALUE}"),
        (
            "in == 1",
            f"column 1: found 'in'; {FIELD} A keyword used as a field name goes in backticks.",
        ),
        ("2nd == 1", f"column 1: found '2nd'; {DIGIT}"),
        ("a == 1.2.3", f"column 6: found '1.2.3'; {DIGIT}"),
        ("a == 1e999", "column 6: found '1e999'; expected a number within 64-bit floating point."),
        ("a == " + 4001 * "9", "column 6: found a number of 4001 digits; expected at most 4000."),
        ("a == $", f"column 6: found '$'; {ANY}"),
        (
            'a == "x',
            'column 6: found text that begins with " and does not end; expected a closing ".',
        ),
        (
            "`a",
            "column 1: found a field name that begins with ` and does not end; "
            "expected a closing `.",
        ),
        (
            r'a == "x\q"',
            r"column 8: found '\q'; expected one of \" \' \\ \/ \b \f \n \r \t \u0041.",
        ),
        (
            r'a == "\ud800"',
            "column 6: found half of a surrogate pair (U+D800); expected text that UTF-8 can hold.",
        ),
        (f"a == 1 '{50 * 'x'}'", f'column 8: found "\'{36 * "x"}..."; {END}'),
    ],
)
def test_a_syntax_error_says_where_what_was_found_and_what_was_expected(text, message):
    with pytest.raises(UsageError) as caught:
        parse_filter(text)
    assert str(caught.value) == f"Filter, {message}"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", range(30))
def test_a_filter_that_is_cut_off_is_read_or_refused(length):
    text = '(year >= 2020 or `a b` in [1, "\\u00e9"])'[:length]
    with pytest.raises(UsageError, match=r"^Filter, column \d+: found "):
        parse_filter(text)


def test_parentheses_that_change_nothing_cost_nothing():
    assert parse_filter(100 * "(" + "a == 1" + 100 * ")") == A
    assert parse_filter(10_001 * "not " + "a == 1") == Not(A)
    assert parse_filter(100 * "(" + "a == 1" + 100 * " and b == 1)") == And((A, *100 * [B]))


@pytest.mark.parametrize(
    ("fits", "too_much", "says"),
    [
        (
            "a in [" + 30_000 * "1," + "1]",
            "a in [" + 40_000 * "1," + "1]",
            "The filter is 80,008 characters long; expected at most 65,536. ",
        ),
        (
            " and ".join(1000 * ["a == 1"]),
            " and ".join(1001 * ["a == 1"]),
            "column 11001: found comparison 1001; expected at most 1000. Use in [...] ",
        ),
        (
            100 * "(" + "a == 1" + 100 * ")",
            50_000 * "(",
            "column 101: found parenthesis 101 inside the others; expected at most 100.",
        ),
    ],
)
def test_a_filter_ends_somewhere(fits, too_much, says):
    parse_filter(fits)
    with pytest.raises(UsageError) as caught:
        parse_filter(too_much)
    assert says in str(caught.value)


def nest(levels):
    """Return a filter of and in or in and ..., ``levels`` deep."""
    text = "a == 1"
    for level in range(levels):
        text = f"({text}) {('and', 'or')[level % 2]} b == 1"
    return text


def test_real_depth_ends_at_32():
    parse_filter(nest(32))
    message = (
        "The filter nests and, or and not 33 levels deep; expected at most 32. "
        "Write it flatter, with in [...] for many values of one field."
    )
    with pytest.raises(UsageError) as caught:
        parse_filter(nest(33))
    assert str(caught.value) == message
    with pytest.raises(UsageError, match="99 levels deep"):
        parse_filter(nest(99))
