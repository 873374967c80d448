import numpy as np
import pytest

from embedder.training.config import EvaluateConfig
from embedder.training.evaluate import DevSets
from embedder.training.log import draw_curve
from retrieval.errors import RecordError, SourceNotFoundError, UsageError
from tests.benchmarks import fakes


def test_bad_dev_files_are_named_by_line(tmp_path):
    path = tmp_path / "dev.tsv"
    path.write_text("score\tsentence1\tsentence2\n1\ta\tb\nmany\ta\tb\n")
    with pytest.raises(RecordError, match=r"dev\.tsv:3"):
        DevSets(EvaluateConfig(sts=path))
    path.write_text("a\tb\n")
    with pytest.raises(RecordError, match="the header has no 'score'"):
        DevSets(EvaluateConfig(sts=path))
    path.write_text("score\tsentence1\tsentence2\n1\ta\tb\n")
    with pytest.raises(UsageError, match="it holds 1 pair;"):
        DevSets(EvaluateConfig(sts=path))
    path.write_text("score\tsentence1\tsentence2\n3\ta\tb\n3\tc\td\n")
    with pytest.raises(UsageError, match="every score is 3, so nothing correlates"):
        DevSets(EvaluateConfig(sts=path))
    with pytest.raises(SourceNotFoundError, match="see evaluate.sts"):
        DevSets(EvaluateConfig(sts=tmp_path / "none.tsv"))
    with pytest.raises(SourceNotFoundError, match=r"a BEIR folder holds corpus\.jsonl"):
        DevSets(EvaluateConfig(beir=tmp_path))
    for stem in ("corpus", "queries"):
        (tmp_path / f"{stem}.jsonl").touch()
    with pytest.raises(SourceNotFoundError, match="the splits of this folder are: none"):
        DevSets(EvaluateConfig(beir=tmp_path))


def test_the_correlation_of_a_collapsed_model_is_left_out(tmp_path):
    path = tmp_path / "dev.tsv"
    path.write_text("score\tsentence1\tsentence2\n1\ta\tb\n2\tc\td\n")
    assert DevSets(EvaluateConfig(sts=path)).score(_Collapsed()) == {}


class _Collapsed:
    """Gives every text the same vector."""

    training = False

    def encode_queries(self, texts):
        return np.ones((len(texts), 4), dtype=np.float32)

    def eval(self):
        """Nothing drops out."""

    def train(self, mode):
        """Nothing is trained."""


def test_the_curve_ends_at_the_last_step_and_keeps_at_most_600_points():
    svg = draw_curve([(step, 1 / step) for step in range(1, 5001)])
    points = svg.split('points="')[1].split('"')[0].split()
    assert 500 < len(points) <= 601
    assert points[-1].startswith("624.0,")
    assert "prefers-color-scheme:dark" in svg
    assert draw_curve([(1, 0.0)]).startswith("<svg")


def test_a_judged_document_that_is_missing_counts_as_not_found(tmp_path):
    documents, queries = {"a": "right", "b": "wrong"}, {"q": "?"}
    fakes.write_beir(tmp_path, documents, queries, [("q", "a", 1), ("q", "x", 1)], "dev")
    sets = DevSets(EvaluateConfig(beir=tmp_path))
    assert sets.notes == (
        "1 judged document is not in the corpus and counts as not found: 'x' (line 3).",
    )
    # Found at rank 1 of two: 1 / (1 + 1 / log2(3)).
    assert sets.score(_Alike())["ndcg"] == pytest.approx(1 / (1 + 1 / np.log2(3)))


class _Alike(_Collapsed):
    """Gives every text the same vector, so that documents rank in their order."""

    def encode_documents(self, texts):
        return np.ones((len(texts), 4), dtype=np.float32)
