import pytest

from benchmarks.tasks import find_tasks
from retrieval.errors import SourceNotFoundError, UsageError
from tests.benchmarks import fakes


@pytest.fixture
def find():
    """Find tasks and collect the messages."""

    def run(*sources, split="test", fetch=None):
        lines = []
        tasks = find_tasks([str(source) for source in sources], split, lines.append, fetch)
        return tasks, lines

    return run


def test_a_folder_of_folders_is_expanded_by_task_type_and_name(find, tmp_path):
    tasks, lines = find(fakes.write_all(tmp_path))
    assert [(task.name, task.task_type) for task in tasks] == [
        ("ponds", "retrieval"),
        ("wetness", "classification"),
        ("weather", "clustering"),
        ("pairs", "sts"),
    ]
    assert lines == []


def test_each_task_can_be_named_by_itself(find, tmp_path):
    fakes.write_all(tmp_path)
    for source, name in (
        ("beir/ponds", "ponds"),
        ("classification/wetness", "wetness"),
        ("clustering/weather.tsv", "weather"),
        ("sts/pairs.tsv", "pairs"),
    ):
        tasks, _ = find(tmp_path / source)
        assert [task.name for task in tasks] == [name]


def test_what_is_no_task_is_passed_over_with_a_message(find, tmp_path):
    fakes.write_pairs(tmp_path / "pairs.tsv")
    (tmp_path / "INDEX.md").write_text("notes")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "pairs.jsonl").write_text("{}\n")
    fakes.write_tsv(tmp_path / "other.tsv", "one\ttwo", (1, 2))
    tasks, lines = find(tmp_path)
    assert [task.name for task in tasks] == ["pairs"]
    assert [line.split(": ")[0].rpartition("/")[2] for line in lines] == [
        "INDEX.md",
        "other.tsv",
        "train",
    ]
    assert lines[0] == f"Passed over {tmp_path / 'INDEX.md'}: it is no task."


def test_a_beir_folder_without_the_split_is_passed_over_in_a_folder_of_several(find, tmp_path):
    fakes.write_ponds(tmp_path / "ponds")
    fakes.write_beir(tmp_path / "trained", {"a": "x"}, {"q": "x"}, [("q", "a", 1)], split="train")
    tasks, lines = find(tmp_path)
    assert [task.name for task in tasks] == ["ponds"]
    assert lines == [f"Passed over {tmp_path / 'trained'}: it has no qrels/test.tsv."]


def test_another_split_is_part_of_the_name(find, tmp_path):
    fakes.write_beir(tmp_path / "ponds", {"a": "x"}, {"q": "x"}, [("q", "a", 1)], split="dev")
    tasks, _ = find(tmp_path / "ponds", split="dev")
    assert [(task.name, task.split) for task in tasks] == [("ponds-dev", "dev")]


def test_a_beir_name_is_fetched(find, tmp_path):
    folder = fakes.write_ponds(tmp_path / "scifact")
    asked = []

    def fetch(name, notify):
        asked.append(name)
        return folder

    tasks, _ = find("beir:scifact", fetch=fetch)
    assert asked == ["scifact"]
    assert [(task.name, task.path) for task in tasks] == [("scifact", folder)]


def test_two_tasks_of_one_name_are_refused_and_one_named_twice_is_one(find, tmp_path):
    one = fakes.write_pairs(tmp_path / "one" / "pairs.tsv")
    other = fakes.write_pairs(tmp_path / "other" / "pairs.tsv")
    with pytest.raises(UsageError, match=r"Two tasks are called 'pairs': .*one.*other"):
        find(one, other)
    assert len(find(one, tmp_path / "one")[0]) == 1


def test_sources_that_hold_no_task_are_refused(find, tmp_path):
    with pytest.raises(SourceNotFoundError, match="nowhere: there is no such file or folder"):
        find(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceNotFoundError, match="empty: the folder holds no task. Expected a"):
        find(tmp_path / "empty")
    text = tmp_path / "notes.txt"
    text.write_text("notes")
    with pytest.raises(UsageError, match="notes.txt: this is no task. Expected a BEIR folder"):
        find(text)
