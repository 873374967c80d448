"""A reranker reads the best hits of a search again, and its scores decide the order."""

import numpy as np
import pytest

from indexes import Index
from retrieval import Query
from retrieval.retriever import Retriever, rerank
from retrieval.types import ArmScore, Hit
from tests.indexes import fakes


class FakeReranker:
    """Scores a document by the number that ends its text; reads ``max_tokens`` characters."""

    name, max_tokens = "fake", 100

    def __init__(self):
        self.asked = []

    def score(self, query, documents):
        self.asked.append((query, list(documents)))
        return np.array([float(text.split()[-1]) for text in documents], dtype=np.float32)

    def activate(self, outputs):
        return np.minimum(outputs, 9.5)

    def take_cut(self):
        return 0


def hit(rank, doc_id, text, title=""):
    return Hit(rank, doc_id, 1 / rank, title, text)


def test_hits_are_ordered_by_the_reranker_and_keep_what_the_search_gave():
    hits = [hit(1, "a", "x 2"), hit(2, "b", "x 7", "T"), hit(3, "c", "x 2"), hit(4, "d", "x 9")]
    reranker = FakeReranker()
    found = rerank(reranker, "q", hits, 3)
    # scores 2, 7, 2, 9: d, b, then a before c since the search had a first
    assert [(one.rank, one.doc_id, one.score) for one in found] == [
        (1, "d", 9.0),
        (2, "b", 7.0),
        (3, "a", 2.0),
    ]
    assert found[0].first_stage == ArmScore(0.25, 4)
    assert reranker.asked == [("q", ["x 2", "T x 7", "x 2", "x 9"])]


def test_scores_that_the_activation_makes_equal_do_not_make_ties():
    hits = [hit(1, "a", "x 10"), hit(2, "b", "x 12"), hit(3, "c", "x 11")]
    found = rerank(FakeReranker(), "q", hits, 3)
    assert [(one.doc_id, one.score) for one in found] == [("b", 9.5), ("c", 9.5), ("a", 9.5)]


@pytest.fixture
def index(tmp_path):
    documents = fakes.make_documents(30)
    encoder = fakes.HashingEncoder()
    return Index.create(tmp_path / "i", encoder, documents)


class LastNumber(FakeReranker):
    """Scores "text 12 of d" by its number."""

    def score(self, query, documents):
        self.asked.append((query, list(documents)))
        return np.array([float(text.split()[-3]) for text in documents], dtype=np.float32)


def test_a_retriever_reads_its_candidates_again(index):
    reranker = LastNumber()
    retriever = Retriever(fakes.HashingEncoder(), index, reranker=reranker, candidates=30)
    found = retriever.search("title 3 text 3 of d", k=2)
    assert [one.doc_id for one in found] == ["d29", "d28"]
    assert len(reranker.asked[0][1]) == 30
    plain = Retriever(fakes.HashingEncoder(), index).search("title 3 text 3 of d", k=30)
    before = {one.doc_id: (one.score, one.rank) for one in plain}
    assert {one.doc_id: (one.first_stage.score, one.first_stage.rank) for one in found} == {
        name: before[name] for name in ("d29", "d28")
    }


def test_never_fewer_candidates_than_hits_that_are_asked_for(index):
    reranker = LastNumber()
    retriever = Retriever(fakes.HashingEncoder(), index, reranker=reranker, candidates=2)
    assert len(retriever.search("text", k=5)) == 5
    assert len(reranker.asked[0][1]) == 5


def test_many_queries_give_the_hits_of_each_alone(index):
    retriever = Retriever(fakes.HashingEncoder(), index, reranker=LastNumber(), candidates=7)
    queries = [Query(f"q{n}", f"title {n} text {n} of d") for n in range(9)]
    alone = [(query, retriever.search(query.text, 3)) for query in queries]
    assert list(retriever.search_many(queries, 3, batch=2)) == alone
