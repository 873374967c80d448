from itertools import combinations

import numpy as np
import pytest

from benchmarks.report.leaderboard import share_letters


def joined(names, *different):
    return {name: "".join(row) for name, row in share_letters(list(names), set(different)).items()}


def test_models_that_do_not_differ_share_one_letter():
    assert joined("xyz") == {"x": "a", "y": "a", "z": "a"}


def test_models_that_all_differ_have_a_letter_each():
    assert joined("xyz", ("x", "y"), ("y", "z"), ("x", "z")) == {"x": "a", "y": "b", "z": "c"}


def test_a_model_between_two_that_differ_has_both_letters():
    # x and z differ; y differs from neither, so it is with x in a and with z in b.
    assert joined("xyz", ("z", "x")) == {"x": "a", "y": "ab", "z": "b"}


def test_piephos_step_by_step_example_of_four():
    # Insert 1-3: {2,3,4} {1,2,4}. Insert 1-4: {2,3,4}, {2,4} (absorbed), {1,2}.
    # Insert 2-4: {3,4}, {2,3}, {1,2}: a = {1,2}, b = {2,3}, c = {3,4}.
    found = joined("1234", ("1", "3"), ("1", "4"), ("2", "4"))
    assert found == {"1": "a", "2": "ab", "3": "bc", "4": "c"}


def test_the_sweep_removes_a_letter_that_says_nothing_new():
    # The largest groups that do not differ are {1,2,3}, {1,2,4}, {2,3,5} and {1,3,6}; the first
    # is spare, since each of its pairs is in another one. Left: a = 124, b = 136, c = 235.
    alike = {tuple(pair) for pair in ("12", "23", "13", "14", "24", "25", "35", "16", "36")}
    found = joined("123456", *(set(combinations("123456", 2)) - alike))
    assert found == {"1": "ab", "2": "ac", "3": "bc", "4": "a", "5": "c", "6": "b"}


def largest_groups(names, different):
    """Every group without a pair that differs which no further model could join, by enumeration."""
    groups = [
        set(group)
        for size in range(1, len(names) + 1)
        for group in combinations(names, size)
        if not any(pair in different for pair in combinations(group, 2))
    ]
    return [one for one in groups if not any(one < other for other in groups)]


@pytest.mark.parametrize("seed", range(60))
def test_two_share_a_letter_exactly_if_they_do_not_differ(seed):
    rng = np.random.default_rng(seed)
    names = [f"m{number}" for number in range(int(rng.integers(2, 9)))]
    different = {pair for pair in combinations(names, 2) if rng.random() < rng.random()}
    letters = share_letters(names, different)
    for one, other in combinations(names, 2):
        assert bool(set(letters[one]) & set(letters[other])) == ((one, other) not in different)
    assert all(letters.values())
    used = {letter for row in letters.values() for letter in row}
    assert len(used) <= len(largest_groups(names, different))
    assert letters[names[0]][0] == "a"


def test_more_groups_than_letters_go_on_with_a2():
    names = [f"m{number}" for number in range(60)]
    letters = share_letters(names, set(combinations(names, 2)))
    assert letters["m51"] == ("Z",)
    assert letters["m52"] == ("a2",)
    assert len(set(letters.values())) == 60


def test_pairs_of_models_that_are_not_ranked_do_not_count():
    assert joined("xy", ("x", "w")) == {"x": "a", "y": "a"}
    assert joined("") == {}
