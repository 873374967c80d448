import math

import numpy as np
import pytest

from benchmarks.tasks import Task
from benchmarks.tasks.sts import load_sts, score_sts
from retrieval.errors import RecordError, UsageError
from tests.benchmarks import fakes

pytest.importorskip("scipy", reason="the bench extra is not installed")

HEADER = "score\tsentence1\tsentence2"


@pytest.fixture
def load(tmp_path):
    def run(*rows, header=HEADER, skip_bad=False):
        path = fakes.write_tsv(tmp_path / "pairs.tsv", header, *rows)
        return load_sts(Task("pairs", "sts", path), skip_bad)

    return run


def table(**vectors):
    """An encoder that knows the vector of each text."""
    return lambda texts: np.array([vectors[text] for text in texts], dtype=np.float32)


EMBED = table(x=[1, 0], y=[0, 1], z=[1, 1], w=[2, 0])


def test_cosines_are_ranked_against_the_gold_scores(load):
    data = load((1, "x", "y"), (2, "x", "z"), (5, "x", "w"), (4, "y", "y"))
    scores = score_sts(data, EMBED)
    assert scores.items["cosine"] == pytest.approx([0, 1 / math.sqrt(2), 1, 1])
    assert scores.items["gold"] == [1, 2, 5, 4]
    assert scores.item_ids == ["0", "1", "2", "3"]
    # ranks 1, 2, 3.5, 3.5 against 1, 2, 4, 3: the deviations multiply to 4.5, squares 4.5 and 5
    assert scores.metrics["spearman"] == pytest.approx(4.5 / math.sqrt(4.5 * 5))
    assert scores.main_metric == "spearman"
    assert scores.notes == []


def test_a_quote_is_text_and_columns_may_be_in_any_order(load):
    data = load(('"x', "y", 1), ("x", "z", 2), header="sentence1\tsentence2\tscore")
    assert list(data.first) == ['"x', "x"]
    assert data.scores == [1, 2]


def test_constant_gold_scores_are_undefined_and_said_so(load):
    scores = score_sts(load((3, "x", "y"), (3, "x", "z")), EMBED)
    assert math.isnan(scores.metrics["spearman"])
    assert math.isnan(scores.metrics["pearson"])
    assert scores.notes == ["All gold scores are equal, so the correlation is undefined."]


def test_a_model_that_gives_one_cosine_is_undefined_and_said_so(load):
    scores = score_sts(load((1, "x", "x"), (2, "y", "y")), EMBED)
    assert math.isnan(scores.metrics["spearman"])
    assert scores.notes == ["All cosines of this model are equal, so the correlation is undefined."]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (("high", "x", "y"), "the score is 'high'; expected a number"),
        (("nan", "x", "y"), "the score is 'nan'; expected a number"),
        ((1, "x"), "the row has 2 columns; expected 3, separated by tabs"),
    ],
)
def test_a_bad_row_stops_with_its_line_and_is_left_out_when_asked(load, row, problem):
    rows = [(1, "x", "y"), row, (2, "x", "z")]
    with pytest.raises(RecordError) as caught:
        load(*rows)
    assert f"pairs.tsv:3: {problem}" in str(caught.value)
    data = load(*rows, skip_bad=True)
    assert data.counts == {"pairs": 2}
    assert data.notes == (f"1 bad row was left out of pairs.tsv; the first: line 3: {problem}.",)


def test_bytes_that_are_no_text_are_a_bad_row(load, tmp_path):
    load((1, "x", "y"), (2, "x", "z"))
    path = tmp_path / "pairs.tsv"
    path.write_bytes(path.read_bytes() + b"3\t\xff\ty\n")
    with pytest.raises(RecordError, match="pairs.tsv:4: not UTF-8: byte 0xff"):
        load_sts(Task("pairs", "sts", path), False)


def test_one_pair_and_a_missing_column_are_refused(load):
    with pytest.raises(UsageError, match="it holds 1 pair; expected 2 or more"):
        load((1, "x", "y"))
    with pytest.raises(RecordError, match="the header has no 'score'; expected score, sentence1"):
        load((1, "x", "y"), header="gold\tsentence1\tsentence2")
