"""Tasks of mteb's own classes with data made here, and an encoder without a model."""

from hashlib import blake2b

import numpy as np
import pytest

pytest.importorskip("mteb", reason="mteb is optional")

from datasets import Dataset, DatasetDict
from mteb.abstasks import AbsTaskClassification, AbsTaskRetrieval
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata

from tests.benchmarks.fakes import SidedEncoder

DIMENSION = 24
WORDS = [f"word{number}" for number in range(80)]


class ProjectionEncoder(SidedEncoder):
    """A text is the sum of a random vector for each of its words and one for its side.

    The side's vector makes scores depend on which side a text is encoded as. The sum has length
    1 unless the settings have "normalize" as False.
    """

    dimension = DIMENSION

    def __init__(self, model="projection", settings=None):
        super().__init__(model, settings)

    def _encode(self, texts, side):
        self.calls.append((side, list(texts)))
        vectors = np.stack([self._sum([side, *text.split()]) for text in texts])
        if self.fingerprint.settings.get("normalize", True):
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors.astype(np.float32)

    def _sum(self, words):
        seeds = [int.from_bytes(blake2b(word.encode(), digest_size=4).digest()) for word in words]
        rows = [np.random.default_rng(seed).standard_normal(self.dimension) for seed in seeds]
        return np.sum(rows, axis=0)


def draw(random, count):
    return " ".join(random.choice(WORDS, count, replace=False))


def make_library():
    """130 documents, half of them with a title, and 20 queries that share words with one."""
    random = np.random.default_rng(1)
    documents = {
        f"d{number}": {"title": draw(random, 2) if number % 2 else "", "text": draw(random, 8)}
        for number in range(130)
    }
    queries, qrels = {}, {}
    for number in range(20):
        best, other = (f"d{place}" for place in random.choice(130, 2, replace=False))
        words = [*documents[best]["text"].split()[:3], draw(random, 3)]
        queries[f"q{number}"] = " ".join(words)
        qrels[f"q{number}"] = {best: 2, other: 1}
    return documents, queries, qrels


def make_pairs():
    random = np.random.default_rng(2)
    rows = []
    for _ in range(40):
        first, second = draw(random, 6).split(), draw(random, 6).split()
        shared = int(random.integers(0, 6))
        rows.append((shared, " ".join(first), " ".join(first[:shared] + second[shared:])))
    return rows


def make_labelled():
    """Three labels with 20 words of their own and noise, 12 examples each; 30 to classify."""
    random = np.random.default_rng(3)

    def example(label):
        own = random.choice(WORDS[label * 20 : label * 20 + 20], 4, replace=False)
        return f"{' '.join(own)} {draw(random, 3)}"

    train = [(label, example(label)) for _ in range(12) for label in range(3)]
    return train, [(label, example(label)) for _ in range(10) for label in range(3)]


def describe(name, kind, main_score):
    return TaskMetadata(
        name=name,
        description="Made in a test.",
        dataset={"path": "millpond/nowhere", "revision": "none"},
        type=kind,
        category="t2c" if kind == "Classification" else "t2t",
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=main_score,
    )


def rows_of(mapping):
    return [
        {"id": key, **(value if isinstance(value, dict) else {"text": value})}
        for key, value in mapping.items()
    ]


def retrieval_task(library, kind="Retrieval", top_ranked=None):
    documents, queries, qrels = library

    class Local(AbsTaskRetrieval):
        metadata = describe(f"Local{kind}", kind, "ndcg_at_10")

        def load_data(self, num_proc=None, **kwargs):
            split = {
                "corpus": Dataset.from_list(rows_of(documents)),
                "queries": Dataset.from_list(rows_of(queries)),
                "relevant_docs": {key: dict(row) for key, row in qrels.items()},
                "top_ranked": top_ranked,
            }
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Local()


def sts_task(pairs):
    class Local(AbsTaskSTS):
        metadata = describe("LocalSTS", "STS", "cosine_spearman")

        def load_data(self, num_proc=None, **kwargs):
            score, first, second = zip(*pairs, strict=True)
            columns = {"score": score, "sentence1": first, "sentence2": second}
            self.dataset = DatasetDict(test=Dataset.from_dict(columns))
            self.data_loaded = True

    return Local()


def classification_task(labelled):
    class Local(AbsTaskClassification):
        metadata = describe("LocalClassification", "Classification", "accuracy")

        def load_data(self, num_proc=None, **kwargs):
            parts = zip(("train", "test"), labelled, strict=True)
            self.dataset = DatasetDict(
                {
                    name: Dataset.from_list([{"label": row[0], "text": row[1]} for row in rows])
                    for name, rows in parts
                }
            )
            self.data_loaded = True

    return Local()
