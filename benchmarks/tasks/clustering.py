"""Clustering: do the vectors of one label lie together?

The protocol is MTEB's (arXiv 2210.07316, section 3; mteb 2's AbsTaskClusteringLegacy):
mini-batch k-means with as many clusters as a split has labels, scored by V-measure.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.optional import import_optional
from benchmarks.tasks.classification import COLUMNS, LabelledTexts, check_label
from benchmarks.tasks.task import Embed, Scores, Task, TextTaskType
from retrieval.corpus.labelled import read_table
from retrieval.errors import UsageError

SPLITS = 10
ROWS_A_LABEL = 8
BATCH_SIZE = 500
SEED = 42


@dataclass(frozen=True)
class ClusteringData:
    """Texts with labels, and the places that each split holds."""

    rows: LabelledTexts
    splits: Sequence[Sequence[int]]
    notes: Sequence[str]

    @property
    def counts(self) -> Mapping[str, int]:
        """The numbers of texts, labels and splits."""
        return {
            "texts": len(self.rows.texts),
            "labels": len(set(self.rows.labels)),
            "splits": len(self.splits),
        }


def load_clustering(task: Task, skip_bad: bool) -> ClusteringData:
    """Return the rows of a .tsv file with the columns label and text, cut into splits.

    Raises
    ------
    RecordError : a bad row, unless ``skip_bad``.
    UsageError : a single label.
    """
    table = read_table(task.path, COLUMNS, check_label, skip_bad=skip_bad)
    labels, texts = zip(*table.rows, strict=True)
    if len(set(labels)) < 2:
        raise UsageError(
            f"{task.path}: its only label is {labels[0]!r}; expected 2 or more, since one "
            f"cluster is always right."
        )
    splits = split_rows(len(labels), len(set(labels)))
    return ClusteringData(LabelledTexts(labels, texts), splits, table.notes)


def split_rows(rows: int, labels: int) -> list[list[int]]:
    """Return the places of each split: ten disjoint ones that hold every row, shuffled.

    Fewer where a split would hold fewer than eight rows per label on average.
    """
    count = max(1, min(SPLITS, rows // (ROWS_A_LABEL * labels)))
    order = np.random.RandomState(SEED).permutation(rows)
    return [part.tolist() for part in np.array_split(order, count)]


def score_clustering(data: ClusteringData, embed: Embed) -> Scores:
    """Return "v_measure", the mean over the splits; the items are the splits' own values."""
    cluster = import_optional("sklearn.cluster", "Scoring clustering")
    scorers = import_optional("sklearn.metrics", "Scoring clustering")
    vectors = embed(data.rows.texts)
    found = []
    for places in data.splits:
        labels = [data.rows.labels[place] for place in places]
        model = cluster.MiniBatchKMeans(
            n_clusters=len(set(labels)), batch_size=BATCH_SIZE, n_init="auto", random_state=SEED
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fewer distinct vectors than clusters is a result too
            model.fit(vectors[places])
        found.append(float(scorers.v_measure_score(labels, model.labels_)))
    return Scores(
        "v_measure",
        {"v_measure": float(np.mean(found))},
        [str(number) for number in range(len(found))],
        {"v_measure": found},
    )


CLUSTERING = TextTaskType(
    lambda task: {"rows": task.path},
    load_clustering,
    score_clustering,
    {
        "protocol": 1,
        "splits": SPLITS,
        "rows_a_label": ROWS_A_LABEL,
        "batch_size": BATCH_SIZE,
        "seed": SEED,
    },
)
