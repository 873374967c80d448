import math

import pytest

from embedder.training.config import EvaluateConfig
from embedder.training.evaluate import DevSets, ndcg_at_10, spearman
from embedder.training.log import draw_curve
from retrieval.errors import RecordError, SourceNotFoundError, UsageError


def test_spearman_is_the_correlation_of_ranks():
    assert spearman([1, 2, 3], [10, 200, 201]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # Ranks 1 2 3 4 against 2 1 4 3: 1 - 6 * 4 / (4 * 15) = 0.6.
    assert spearman([1, 2, 3, 4], [2, 1, 4, 3]) == pytest.approx(0.6)


def test_equal_values_share_the_mean_of_their_ranks():
    # Ranks 1.5 1.5 3 against 1 2 3: deviations (-.5 -.5 1) and (-1 0 1), 1.5 / sqrt(1.5 * 2).
    assert spearman([0, 0, 5], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(3))
    assert spearman([1, 1], [1, 2]) == 0


def test_ndcg_discounts_gains_by_rank():
    # Ranked 2, 0, 1; gains 0, 2, 1: (2 / log2(3) + 1 / 2) / (2 + 1 / log2(3)).
    found = ndcg_at_10([0.5, 0.1, 0.9], {0: 2, 1: 1})
    assert found == pytest.approx((2 / math.log2(3) + 0.5) / (2 + 1 / math.log2(3)))


def test_a_document_after_rank_ten_has_no_gain():
    assert ndcg_at_10(list(range(20, 0, -1)), {10: 1}) == 0
    assert ndcg_at_10(list(range(20, 0, -1)), {9: 1}) == pytest.approx(1 / math.log2(11))


def test_bad_dev_files_are_named_by_line(tmp_path):
    path = tmp_path / "dev.tsv"
    path.write_text("score\tsentence1\tsentence2\n1\ta\tb\nmany\ta\tb\n")
    with pytest.raises(RecordError, match=r"dev\.tsv:3"):
        DevSets(EvaluateConfig(sts=path))
    path.write_text("a\tb\n")
    with pytest.raises(RecordError, match="the header must name score"):
        DevSets(EvaluateConfig(sts=path))
    path.write_text("score\tsentence1\tsentence2\n1\ta\tb\n")
    with pytest.raises(UsageError, match="it holds 1 pairs"):
        DevSets(EvaluateConfig(sts=path))
    with pytest.raises(SourceNotFoundError, match="see evaluate.sts"):
        DevSets(EvaluateConfig(sts=tmp_path / "none.tsv"))
    with pytest.raises(SourceNotFoundError, match="the splits of this folder are: none"):
        DevSets(EvaluateConfig(beir=tmp_path))


def test_the_curve_ends_at_the_last_step_and_keeps_at_most_600_points():
    svg = draw_curve([(step, 1 / step) for step in range(1, 5001)])
    points = svg.split('points="')[1].split('"')[0].split()
    assert 500 < len(points) <= 601
    assert points[-1].startswith("624.0,")
    assert "prefers-color-scheme:dark" in svg
    assert draw_curve([(1, 0.0)]).startswith("<svg")
