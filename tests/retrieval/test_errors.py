import inspect

import pytest

from retrieval import errors
from retrieval.errors import (
    DuplicateIdError,
    FailureError,
    MillpondError,
    MissingDependencyError,
    RecordError,
    UnknownNameError,
    UsageError,
    count_noun,
)

BESIDES = {"Registry", "check_fork", "check_type", "count_noun", "import_optional"}
CLASSES = [getattr(errors, name) for name in errors.__all__ if name not in BESIDES]


def test_all_lists_every_class_of_the_module():
    defined = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and value.__module__ == errors.__name__
    }
    assert set(errors.__all__) - BESIDES == defined - BESIDES


@pytest.mark.parametrize("error", CLASSES)
def test_every_class_is_drawn_in_the_tree_under_its_base(error):
    drawn = {}
    stack = []
    for line in errors.__doc__.splitlines():
        head, _, rest = line.partition("-- ")
        name = (rest or line.strip()).split(" ")[0]
        if not name.endswith("Error") or (not rest and name != "MillpondError"):
            continue
        depth = 0 if not rest else len(head) // 4
        stack = [*stack[:depth], name]
        drawn[name] = stack[-2] if len(stack) > 1 else "Exception"
    assert drawn[error.__name__] == error.__base__.__name__


@pytest.mark.parametrize("error", [c for c in CLASSES if c is not MillpondError])
def test_every_error_is_either_the_users_or_the_machines(error):
    assert error in (UsageError, FailureError) or (
        issubclass(error, UsageError) != issubclass(error, FailureError)
    )


def test_an_unknown_name_is_answered_with_the_nearest_and_all():
    error = UnknownNameError("pooling", "maen", ["mean", "eos"], hint="Type: millpond models")
    assert str(error) == (
        "Unknown pooling 'maen'. Did you mean 'mean'? Accepted: mean, eos. Type: millpond models"
    )
    assert error.known == ("mean", "eos")


def test_an_unknown_name_far_from_all_gets_no_guess():
    assert str(UnknownNameError("pooling", "zzz", ["mean"])) == (
        "Unknown pooling 'zzz'. Accepted: mean."
    )


@pytest.mark.parametrize("error", [RecordError, DuplicateIdError])
def test_a_record_error_starts_with_file_and_line(error):
    assert str(error("c.jsonl", 3, "bad")) == "c.jsonl:3: bad"
    assert str(error("docs/a.txt", None, "bad")) == "docs/a.txt: bad"


def test_a_missing_package_is_answered_with_what_to_type():
    error = MissingDependencyError("faiss", "The flat index", "pip install 'millpond[cpu]'")
    assert str(error) == (
        "The flat index needs faiss, which is not installed. Type: pip install 'millpond[cpu]'"
    )


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
