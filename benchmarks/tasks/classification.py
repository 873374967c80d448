"""Classification: how much a logistic regression learns from eight vectors per label.

The protocol is MTEB's (arXiv 2210.07316, section 3; mteb 2's AbsTaskClassification): ten draws of
eight training examples per label, each scored on the whole test set.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.optional import import_optional
from benchmarks.tasks.task import Embed, Scores, Task, TextTaskType
from retrieval.corpus.labelled import read_table
from retrieval.errors import RecordError, UsageError, count_noun

COLUMNS = ("label", "text")
DRAWS = 10
EXAMPLES = 8
SEED = 42
MAX_ITERATIONS = 100


@dataclass(frozen=True)
class LabelledTexts:
    """Texts and the label of each."""

    labels: Sequence[str]
    texts: Sequence[str]


@dataclass(frozen=True)
class ClassificationData:
    """Training and test examples."""

    train: LabelledTexts
    test: LabelledTexts
    notes: Sequence[str]

    @property
    def counts(self) -> Mapping[str, int]:
        """The numbers of examples and labels."""
        return {
            "train": len(self.train.labels),
            "test": len(self.test.labels),
            "labels": len(set(self.train.labels)),
        }


def load_classification(task: Task, skip_bad: bool) -> ClassificationData:
    """Return the examples of train.tsv and test.tsv, with the columns label and text.

    A label with fewer than eight training examples is refused. With ``skip_bad`` all of them
    are drawn each time, as MTEB does without a word, and a note says so.

    Raises
    ------
    RecordError : a bad row, unless ``skip_bad``, or a label with too few examples.
    UsageError : a single label.
    """
    parts: dict[str, LabelledTexts] = {}
    notes: list[str] = []
    for name, path in _files(task).items():
        table = read_table(path, COLUMNS, check_label, skip_bad=skip_bad)
        notes += table.notes
        labels, texts = zip(*table.rows, strict=True)
        parts[name] = LabelledTexts(labels, texts)
    train, test = parts["train"], parts["test"]
    if len(set(train.labels)) < 2:
        raise UsageError(
            f"{task.path / 'train.tsv'}: its only label is {train.labels[0]!r}; expected 2 or more."
        )
    counts = Counter(train.labels)
    few = {
        label: counts[label]
        for label in sorted({*train.labels, *test.labels})
        if counts[label] < EXAMPLES
    }
    if few:
        listing = ", ".join(f"{label!r} ({count})" for label, count in list(few.items())[:5])
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        if not skip_bad:
            raise RecordError(
                str(task.path / "train.tsv"),
                None,
                f"too few examples of {_labels(len(few))}: {listing}{more}; a draw takes "
                f"{EXAMPLES} of each. Add some, or pass --skip-bad to draw what there is",
            )
        notes.append(
            f"{_labels(len(few)).capitalize()} with fewer than {EXAMPLES} training examples had "
            f"all of them drawn each time: {listing}{more}."
        )
    return ClassificationData(train, test, notes)


def score_classification(data: ClassificationData, embed: Embed) -> Scores:
    """Return "accuracy" and "macro_f1" on the test set, means over the draws.

    The items are the test texts: the share of the draws in which each got its label. "draws" has
    both scores of each draw.
    """
    linear = import_optional("sklearn.linear_model", "Scoring classification")
    scorers = import_optional("sklearn.metrics", "Scoring classification")
    draws = draw_examples(data.train.labels)
    used = sorted({place for draw in draws for place in draw})
    vectors = embed([data.train.texts[place] for place in used])
    row = {place: number for number, place in enumerate(used)}
    test = embed(data.test.texts)
    by_draw: dict[str, list[float]] = {"accuracy": [], "macro_f1": []}
    right = np.zeros(len(data.test.labels))
    for draw in draws:
        model = linear.LogisticRegression(max_iter=MAX_ITERATIONS, random_state=SEED)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 100 iterations are the protocol, converged or not
            model.fit(
                vectors[[row[place] for place in draw]],
                [data.train.labels[place] for place in draw],
            )
        found = model.predict(test)
        right += np.asarray(data.test.labels) == np.asarray(found)
        by_draw["accuracy"].append(float(scorers.accuracy_score(data.test.labels, found)))
        by_draw["macro_f1"].append(
            float(scorers.f1_score(data.test.labels, found, average="macro", zero_division=0))
        )
    return Scores(
        "accuracy",
        {name: float(np.mean(values)) for name, values in by_draw.items()},
        [str(number) for number in range(len(right))],
        {"accuracy": (right / DRAWS).tolist()},
        draws=by_draw,
    )


def draw_examples(labels: Sequence[str]) -> list[list[int]]:
    """Return the positions of each draw's examples, the same ones that mteb draws with seed 42.

    The places are shuffled, and the first eight of each label taken; each draw shuffles on from
    the order of the one before.
    """
    order = list(range(len(labels)))
    draws = []
    for _ in range(DRAWS):
        np.random.RandomState(SEED).shuffle(order)
        taken: Counter[str] = Counter()
        draw = []
        for place in order:
            if taken[labels[place]] < EXAMPLES:
                draw.append(place)
                taken[labels[place]] += 1
        draws.append(draw)
    return draws


def check_label(row: Sequence[str]) -> str:
    """Return what is wrong with a row of label and text, "" for nothing."""
    return "" if row[0].strip() else "the label is empty"


def _labels(count: int) -> str:
    return count_noun(count, "label")


def _files(task: Task) -> Mapping[str, Path]:
    return {part: task.path / f"{part}.tsv" for part in ("train", "test")}


CLASSIFICATION = TextTaskType(
    _files,
    load_classification,
    score_classification,
    {
        "protocol": 2,
        "draws": DRAWS,
        "examples": EXAMPLES,
        "max_iterations": MAX_ITERATIONS,
        "seed": SEED,
    },
)
