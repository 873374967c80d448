import pytest

from retrieval.plurals import count_noun


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((1, "pair"), "1 pair"),
        ((0, "pair"), "0 pairs"),
        ((1234, "pair"), "1,234 pairs"),
        ((1, "query", "queries"), "1 query"),
        ((2, "query", "queries"), "2 queries"),
        ((1, "row was", "rows were"), "1 row was"),
        ((3, "row was", "rows were"), "3 rows were"),
    ],
)
def test_a_number_has_its_noun(arguments, expected):
    assert count_noun(*arguments) == expected
