import numpy as np
import pytest

from benchmarks.tasks import Task
from benchmarks.tasks.clustering import load_clustering, score_clustering, split_rows
from retrieval.errors import UsageError
from tests.benchmarks import fakes

pytest.importorskip("sklearn", reason="the bench extra is not installed")


def load(path):
    return load_clustering(Task("t", "clustering", path), False)


@pytest.mark.parametrize(
    ("rows", "labels", "splits"),
    [(8000, 4, 10), (160, 2, 10), (159, 2, 9), (31, 2, 1), (3, 2, 1)],
)
def test_ten_splits_or_fewer_with_eight_rows_a_label(rows, labels, splits):
    found = split_rows(rows, labels)
    assert len(found) == splits
    assert sorted(place for split in found for place in split) == list(range(rows))
    assert max(map(len, found)) - min(map(len, found)) <= 1
    assert found == split_rows(rows, labels)


def test_rows_are_shuffled_before_they_are_split():
    assert split_rows(160, 2)[0] != list(range(16))


def test_clusters_that_are_the_labels_have_v_measure_1(tmp_path):
    data = load(fakes.write_clusters(tmp_path / "c.tsv", per_label=40))
    axes = {"wet": [1.0, 0.0], "dry": [0.0, 1.0]}
    scores = score_clustering(
        data, lambda texts: np.array([axes[t.split()[0]] for t in texts], dtype=np.float32)
    )
    assert scores.metrics == {"v_measure": pytest.approx(1.0)}
    assert scores.item_ids == ["0", "1", "2", "3", "4"]  # 80 rows, 2 labels: 80 // 16
    assert scores.items["v_measure"] == pytest.approx([1.0] * 5)


def test_vectors_that_are_all_equal_have_v_measure_0(tmp_path):
    data = load(fakes.write_clusters(tmp_path / "c.tsv", per_label=10))
    scores = score_clustering(data, lambda texts: np.ones((len(texts), 3), dtype=np.float32))
    assert scores.metrics["v_measure"] == pytest.approx(0, abs=1e-9)


def test_the_score_is_that_of_mteb_s_evaluator_on_each_split(tmp_path):
    cluster = pytest.importorskip("sklearn.cluster")
    metrics = pytest.importorskip("sklearn.metrics")
    data = load(fakes.write_clusters(tmp_path / "c.tsv", per_label=40))
    chance = np.random.default_rng(0)
    vectors = chance.standard_normal((80, 4)).astype(np.float32)
    scores = score_clustering(data, lambda texts: vectors)
    expected = []
    for places in data.splits:
        # mteb 2.26, ClusteringEvaluator: batches of 500, n_init "auto", seed 42
        model = cluster.MiniBatchKMeans(
            n_clusters=2, batch_size=500, n_init="auto", random_state=42
        ).fit(vectors[places])
        labels = [data.rows.labels[place] for place in places]
        expected.append(metrics.v_measure_score(labels, model.labels_))
    assert scores.items["v_measure"] == pytest.approx(expected)


def test_a_single_label_is_refused(tmp_path):
    path = fakes.write_tsv(tmp_path / "c.tsv", "label\ttext", ("wet", "a"), ("wet", "b"))
    with pytest.raises(UsageError, match="its only label is 'wet'; expected 2 or more"):
        load(path)
