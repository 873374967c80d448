"""Which instruction goes with a task."""

from pathlib import Path

import pytest

from benchmarks.tasks import Task
from benchmarks.tasks.instructions import Instructions, read_instructions
from retrieval.errors import SourceNotFoundError, UnknownNameError, UsageError


def task(name, task_type="retrieval", split="test"):
    return Task(name, task_type, Path(name), split)


def test_the_published_ones_are_those_of_e5_mistral_by_name_and_of_mteb_by_type():
    found = read_instructions("published")
    assert found.find(task("nfcorpus")) == (
        "Given a question, retrieve relevant documents that best answer the question"
    )
    assert found.find(task("SciFact-dev", split="dev")) == (
        "Given a scientific claim, retrieve documents that support or refute the claim"
    )
    assert found.find(task("my-own")) == (
        "Given a web search query, retrieve relevant passages that answer the query"
    )
    assert found.find(task("pairs", "sts")) == "Retrieve semantically similar text."
    found.check([task(name, name) for name in ("sts", "classification", "clustering")])


def test_a_file_names_tasks_before_types_and_may_leave_one_out(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[types]\nsts = "same"\n[tasks]\nPairs = "equal"\nplain = ""\n')
    found = read_instructions(str(path))
    assert [found.find(task(name, "sts")) for name in ("pairs", "other", "plain")] == [
        "equal",
        "same",
        "",
    ]
    with pytest.raises(UsageError, match=r"no instruction for the retrieval task 'ponds'.*\[tasks"):
        found.check([task("pairs", "sts"), task("ponds")])


def test_one_instruction_is_for_every_type():
    assert Instructions.of_all("find it").find(task("x", "clustering")) == "find it"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("[types", UsageError, "this is not TOML"),
        ('[kinds]\nsts = "a"', UnknownNameError, "kinds"),
        ('[types]\nst = "a"', UnknownNameError, "Did you mean 'sts'"),
        ("[types]\nsts = 3", UsageError, r"\[types\] sts is 3; expected a text"),
        ('types = "a"', UsageError, r"expected a table \[types\]"),
    ],
)
def test_a_file_that_says_something_else_is_one_clear_line(tmp_path, text, error, message):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(error, match=message):
        read_instructions(str(path))


def test_a_file_that_is_not_there_is_said():
    with pytest.raises(SourceNotFoundError, match="'published' for those that come with"):
        read_instructions("no-such.toml")
