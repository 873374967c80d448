"""Sources split by topic: every pair once, topics that hold together, a config that trains."""

import json
import tomllib
from collections import Counter

import pytest

from benchmarks.lab.builtin import split_by_topic
from benchmarks.lab.builtin.split_by_topic import split_config, split_rows

TOPICS = ["sea", "sky", "wood", "town", "farm", "cave"]


def make_rows(topic, count):
    """Pairs that share three words with their topic, and one with pairs of any topic."""
    return [
        {
            "query": f"{topic}one {topic}two number{n}",
            "positive": f"{topic}two {topic}three {topic}one shared{n % 10}",
        }
        for n in range(count)
    ]


@pytest.fixture(autouse=True)
def small_topics(monkeypatch):
    monkeypatch.setattr(split_by_topic, "FEWEST_PAIRS", 20)
    monkeypatch.setattr(split_by_topic, "PAIRS_OF_A_TOPIC", 50)


def test_topics_hold_together_and_no_pair_is_lost():
    rows = [row for topic in TOPICS for row in make_rows(topic, 60)]
    topics = split_rows(rows, 60)
    assert sorted(map(json.dumps, [row for topic in topics for row in topic])) == sorted(
        map(json.dumps, rows)
    )
    assert all(len(topic) >= 20 for topic in topics)
    kinds = [Counter(row["query"].split("one")[0] for row in topic) for topic in topics]
    together = sum(kind.most_common(1)[0][1] for kind in kinds)
    assert together >= 0.9 * len(rows)  # chance would be a sixth
    assert split_rows(rows, 60) == topics  # the seed is fixed


def test_a_config_names_the_topics_in_the_place_of_their_source(tmp_path):
    rows = [row for topic in TOPICS for row in make_rows(topic, 50)]
    (tmp_path / "data").mkdir()
    (tmp_path / "config").mkdir()
    for name in ("mixed", "whole"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "data" / f"{name}.jsonl").write_text(text)
    config = tmp_path / "config" / "train.toml"
    config.write_text(
        'steps = 2\n\n[[data]]\npath = "../data/mixed.jsonl"\nweight = 0.5\n\n'
        '[[data]]\npath = "../data/whole.jsonl"\nweight = 2.0\n'
    )
    sizes = split_config(config, {"mixed"}, tmp_path / "out")
    written = tomllib.loads((tmp_path / "out" / "train.toml").read_text())
    assert written["steps"] == 2
    *topics, whole = written["data"]
    assert whole == {"path": "../data/whole.jsonl", "weight": 2.0}
    assert [one["weight"] for one in topics] == [0.5] * len(sizes["mixed"])
    lines = [(tmp_path / "out" / one["path"]).read_text().splitlines() for one in topics]
    assert [len(one) for one in lines] == sizes["mixed"]
    assert sum(sizes["mixed"]) == 300


def test_a_source_that_the_config_does_not_name_is_refused(tmp_path):
    (tmp_path / "train.toml").write_text("steps = 2\n")
    with pytest.raises(SystemExit, match="no source named other"):
        split_config(tmp_path / "train.toml", {"other"}, tmp_path / "out")
