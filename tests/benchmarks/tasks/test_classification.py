from collections import Counter

import numpy as np
import pytest

from benchmarks.tasks import Task
from benchmarks.tasks.classification import (
    draw_examples,
    load_classification,
    score_classification,
)
from retrieval.errors import RecordError, UsageError
from tests.benchmarks import fakes

pytest.importorskip("sklearn", reason="the bench extra is not installed")


def load(folder, skip_bad=False):
    return load_classification(Task("t", "classification", folder), skip_bad)


def embed_first_word(texts):
    """wet and dry are the two axes; anything else lies between them."""
    table = {"wet": [1.0, 0.0], "dry": [0.0, 1.0]}
    rows = [table.get(text.split()[0], [0.5, 0.5]) for text in texts]
    return np.array(rows, dtype=np.float32)


def test_each_draw_takes_eight_of_each_label_and_the_draws_differ():
    labels = ["a"] * 30 + ["b"] * 12 + ["c"] * 8
    draws = draw_examples(labels)
    assert len(draws) == 10
    for draw in draws:
        assert Counter(labels[place] for place in draw) == {"a": 8, "b": 8, "c": 8}
        assert len(set(draw)) == 24
    assert len({tuple(sorted(draw)) for draw in draws}) > 1
    assert draws == draw_examples(labels)


def test_the_draws_are_those_of_mteb():
    abstask = pytest.importorskip("mteb.abstasks", reason="mteb is not installed")
    datasets = pytest.importorskip("datasets", reason="mteb is not installed")

    class FakeTask:
        seed, samples_per_label, label_column_name = 42, 8, "label"

    chance = np.random.default_rng(0)
    labels = chance.integers(0, 4, size=100).tolist()
    dataset = datasets.Dataset.from_dict({"label": labels})
    draw = abstask.AbsTaskClassification._undersample_data
    order, theirs = None, []
    for number in range(10):
        _, order, chosen = draw(FakeTask(), dataset, number, order)
        theirs.append(chosen)
    assert draw_examples(labels) == theirs


def test_labels_that_vectors_decide_are_all_found(tmp_path):
    scores = score_classification(load(fakes.write_labels(tmp_path)), embed_first_word)
    assert scores.metrics == {"accuracy": 1.0, "macro_f1": 1.0}
    assert scores.items == {"accuracy": [1.0, 1.0]}
    assert scores.draws == {"accuracy": [1.0] * 10, "macro_f1": [1.0] * 10}
    assert scores.item_ids == ["0", "1"]


def test_macro_f1_weighs_labels_alike_and_accuracy_weighs_texts(tmp_path):
    fakes.write_labels(tmp_path)
    # Three texts are found, the fourth is called wet but reads dry:
    # f1 of dry: 2 * 1 / (2 + 1 + 0) = 2/3, of wet: 2 * 2 / (4 + 0 + 1) = 4/5
    rows = [("wet", "wet a"), ("wet", "wet b"), ("dry", "dry a"), ("wet", "dry b")]
    fakes.write_tsv(tmp_path / "test.tsv", "label\ttext", *rows)
    scores = score_classification(load(tmp_path), embed_first_word)
    assert scores.metrics["accuracy"] == pytest.approx(3 / 4)
    assert scores.metrics["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert scores.items["accuracy"] == [1.0, 1.0, 1.0, 0.0]


def test_only_drawn_examples_are_embedded(tmp_path):
    fakes.write_labels(tmp_path, per_label=200)
    counts = []

    def embed(texts):
        counts.append(len(texts))
        return embed_first_word(texts)

    score_classification(load(tmp_path), embed)
    drawn, test = counts
    assert drawn <= 2 * 8 * 10 < 400
    assert test == 2


def test_a_label_with_too_few_examples_is_named_or_drawn_whole_when_asked(tmp_path):
    fakes.write_labels(tmp_path, per_label=7)
    with pytest.raises(RecordError) as caught:
        load(tmp_path)
    assert "too few examples of 2 labels: 'dry' (7), 'wet' (7); a draw takes 8" in str(caught.value)
    data = load(tmp_path, skip_bad=True)
    assert data.notes == [
        "2 labels with fewer than 8 training examples had all of them drawn each time: "
        "'dry' (7), 'wet' (7)."
    ]
    assert score_classification(data, embed_first_word).metrics["accuracy"] == 1


def test_a_label_that_only_the_test_set_has_is_one_with_no_example(tmp_path):
    fakes.write_labels(tmp_path)
    fakes.write_tsv(tmp_path / "test.tsv", "label\ttext", ("damp", "damp thing"))
    with pytest.raises(RecordError, match=r"too few examples of 1 label: 'damp' \(0\)"):
        load(tmp_path)


def test_a_single_label_and_an_empty_one_are_refused(tmp_path):
    fakes.write_labels(tmp_path)
    with (tmp_path / "train.tsv").open("a") as stream:
        stream.write("\tno label\n")
    with pytest.raises(RecordError, match="train.tsv:20: the label is empty"):
        load(tmp_path)
    rows = [("wet", f"wet {number}") for number in range(9)]
    fakes.write_tsv(tmp_path / "train.tsv", "label\ttext", *rows)
    with pytest.raises(UsageError, match="its only label is 'wet'"):
        load(tmp_path)
