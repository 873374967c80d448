import pytest

from benchmarks.significance.compare import compare
from benchmarks.significance.comparison import CompareConfig
from benchmarks.significance.power import plan_power
from tests.benchmarks.significance.test_comparing import STEPS, make

QUICK = CompareConfig(resamples=999, bootstrap_resamples=200)


def test_the_number_of_queries_for_a_difference_by_hand():
    # Differences 0.01 to 0.06 have a standard deviation of 0.0187083, and z(0.975) + z(0.8) is
    # 1.95996 + 0.84162 = 2.80159: (2.80159 x 0.0187083 / 0.01)**2 = 27.47, so 28 queries.
    [row] = plan_power(
        compare([make("a", values=[1.5 * x for x in STEPS]), make("b")], QUICK), 0.01
    )
    assert (row.where, row.items, row.tests) == ("scifact", 6, 1)
    assert row.deviation == pytest.approx(0.0187083, rel=1e-4)
    assert (row.needed, row.needed_corrected) == (28, 28)
    assert row.detectable == pytest.approx(2.80159 * 0.0187083 / 6**0.5, rel=1e-4)


def test_more_tests_need_more_queries_and_half_the_difference_four_times_as_many():
    results = [make(m, values=[x * f for x in STEPS]) for m, f in (("a", 1.5), ("b", 1), ("c", 2))]
    found = compare(results, QUICK)
    [row], [half] = (plan_power(found, one) for one in (0.01, 0.005))
    assert row.tests == 3
    assert row.needed_corrected > row.needed
    assert half.needed == pytest.approx(4 * row.needed, abs=4)


def test_no_difference_is_nothing_to_plan_for():
    found = compare([make("a"), make("b")], QUICK)
    assert plan_power(found, 0.01) == []  # equal everywhere: no spread is known
    with pytest.raises(ValueError, match="above 0"):
        plan_power(found, 0)
