import numpy as np
import pytest

from retrieval import Document, Encoder, Fingerprint, Hit, Query, VectorIndex
from retrieval.errors import FingerprintError, UsageError
from retrieval.retriever import Retriever

FINGERPRINT = Fingerprint("letters", {"alphabet": "abc"})


class LetterEncoder:
    """Counts the letters a, b and c."""

    dimension = 3
    fingerprint = FINGERPRINT

    def __init__(self):
        self.batches = []

    def encode_queries(self, texts):
        self.batches.append(len(texts))
        return np.array([[text.count(c) for c in "abc"] for text in texts], dtype=np.float32)

    encode_documents = encode_queries


class ListIndex:
    """Holds documents and their vectors in lists."""

    dimension = 3
    fingerprint = FINGERPRINT
    modes = ("dense",)

    def __init__(self, documents):
        self.documents = documents
        self.asked = []
        self.choices = []
        self.vectors = LetterEncoder().encode_documents([d.text for d in documents])

    def __len__(self):
        return len(self.documents)

    def search(self, vectors, k, *, with_text=True, where=None, **choices):
        self.asked.append(where)
        self.choices.append(choices)
        return [self._best(scores, k, with_text) for scores in vectors @ self.vectors.T]

    def _best(self, scores, k, with_text):
        order = sorted(range(len(self)), key=lambda n: (-scores[n], self.documents[n].doc_id))[:k]
        return [
            Hit(rank, self.documents[n].doc_id, float(scores[n]),
                text=self.documents[n].text if with_text else "")
            for rank, n in enumerate(order, 1)
        ]  # fmt: skip


@pytest.fixture
def index():
    return ListIndex([Document("1", "aab"), Document("2", "bbb"), Document("3", "c")])


def test_the_fakes_satisfy_the_protocols(index):
    assert isinstance(LetterEncoder(), Encoder)
    assert isinstance(index, VectorIndex)


def test_one_query_finds_the_best_documents_with_their_texts(index):
    # "ab" is (1, 1, 0); the inner products are 2 + 1 = 3 with "aab", 3 with "bbb", 0 with "c".
    assert Retriever(LetterEncoder(), index).search("ab", k=2) == [
        Hit(1, "1", 3.0, text="aab"),
        Hit(2, "2", 3.0, text="bbb"),
    ]


def test_many_queries_are_encoded_in_batches_and_come_back_in_order(index):
    encoder = LetterEncoder()
    queries = [Query(str(number), "c" * number) for number in range(1, 6)]
    found = list(Retriever(encoder, index).search_many(iter(queries), k=1, batch=2))
    assert found == [(query, [Hit(1, "3", float(n))]) for n, query in enumerate(queries, 1)]
    assert encoder.batches == [2, 2, 1]


def test_a_filter_goes_to_the_index(index):
    retriever = Retriever(LetterEncoder(), index)
    retriever.search("a", where="year > 2000")
    list(retriever.search_many([Query("q", "a")], where="year > 2001"))
    assert index.asked == ["year > 2000", "year > 2001"]


def test_texts_mode_fusion_and_weight_go_to_the_index(index):
    retriever = Retriever(LetterEncoder(), index)
    retriever.search("a", mode="hybrid", weight=0.25)
    list(retriever.search_many([Query("q", "b")], fusion="rrf"))
    assert index.choices == [
        {"texts": ["a"], "mode": "hybrid", "fusion": "convex", "weight": 0.25, "distinct": False},
        {"texts": ["b"], "mode": None, "fusion": "rrf", "weight": None, "distinct": False},
    ]


def test_a_lexical_search_passes_texts_and_never_loads_the_model(index, monkeypatch):
    def load():
        raise AssertionError("the model is not needed")

    seen = []
    monkeypatch.setattr(index, "search", lambda queries, k, **rest: seen.append(queries) or [[]])
    Retriever(load, index).search("corn", mode="lexical")
    assert seen == [["corn"]]


def test_a_model_is_loaded_once_and_only_when_it_is_needed(index):
    loaded = []
    retriever = Retriever(lambda: loaded.append(1) or LetterEncoder(), index)
    assert loaded == []
    for _ in range(2):
        assert retriever.search("c", k=1)[0].doc_id == "3"
    assert loaded == [1]


def test_a_model_that_is_loaded_late_is_checked_too(index):
    index.fingerprint = Fingerprint("others", {"alphabet": "xyz"})
    retriever = Retriever(lambda: LetterEncoder(), index)
    with pytest.raises(FingerprintError, match="made with 'others'"):
        retriever.search("a")


def test_an_error_of_the_index_arrives_with_the_batch_it_belongs_to(index, monkeypatch):
    def fail(*arguments, **options):
        raise UsageError("no")

    monkeypatch.setattr(index, "search", fail)
    with pytest.raises(UsageError, match="no"):
        list(Retriever(LetterEncoder(), index).search_many([Query("q", "a")]))


def test_many_queries_are_read_no_further_than_a_batch_ahead(index):
    taken = []

    def stream():
        for number in range(10):
            taken.append(number)
            yield Query(str(number), "a")

    next(Retriever(LetterEncoder(), index).search_many(stream(), k=1, batch=3))
    assert taken == [0, 1, 2, 3, 4, 5]  # the second batch is encoded while the first is looked up


def test_texts_come_with_many_queries_when_asked_for(index):
    ((_, hits),) = Retriever(LetterEncoder(), index).search_many(
        [Query("q", "c")], k=1, with_text=True
    )
    assert hits[0].text == "c"


def test_an_index_of_another_model_is_refused(index):
    index.fingerprint = Fingerprint("others", {"alphabet": "xyz"})
    with pytest.raises(FingerprintError, match="made with 'others'"):
        Retriever(LetterEncoder(), index)


@pytest.mark.parametrize("k", [0, -3])
def test_k_below_one_is_refused(index, k):
    retriever = Retriever(LetterEncoder(), index)
    with pytest.raises(UsageError, match=f"k is {k}"):
        retriever.search("a", k=k)
    with pytest.raises(UsageError, match=f"k is {k}"):
        list(retriever.search_many([Query("q", "a")], k=k))


@pytest.mark.parametrize(
    ("title", "text", "content"), [("T", "body", "T body"), ("", "body", "body"), ("T", "", "T")]
)
def test_what_is_embedded_is_title_and_text(title, text, content):
    assert Document("1", text, title).content == content
