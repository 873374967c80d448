"""Reranking in the formats of Jina, Cohere and TEI."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.embedder.serving import fakes

TEXTS = ["one", "four words of text", "two words", "x " * 12]
SCORES = [10.0, 40.0, 20.0, 120.0]
ORDER = [3, 1, 2, 0]
JSON = {"Content-Type": "application/json"}


class WordCounter:
    """Scores a document by its number of words; reads 10 words of a query and document."""

    name, max_tokens = "counter", 10

    def __init__(self):
        self.batches, self.gate, self.entered = [], threading.Event(), threading.Event()
        self.gate.set()

    def count_tokens(self, query, documents):
        return [len(query.split()) + len(text.split()) for text in documents]

    def score_pairs(self, pairs, lengths):
        assert self.gate.wait(120)
        self.entered.set()
        self.batches.append(pairs)
        return np.array([len(text.split()) for _, text in pairs], dtype=np.float32)

    def activate(self, outputs):
        return 10 * outputs


@pytest.fixture
def reranker():
    return WordCounter()


@pytest.fixture
def client(serve, reranker):
    yield serve(reranker=reranker)
    reranker.gate.set()


def test_v1_rerank_orders_documents_and_counts_what_was_cut(client):
    body = {"query": "a query", "documents": TEXTS, "model": "counter"}
    assert client.post("/v1/rerank", json=body).json() == {
        "model": "counter",
        "results": [{"index": n, "relevance_score": SCORES[n]} for n in ORDER],
        # two words of the query with 1, 4, 2 and 12 words; the last pair is cut from 14 to 10
        "usage": {"total_tokens": 3 + 6 + 4 + 10, "truncated_documents": 1},
    }


def test_v1_rerank_takes_objects_and_returns_the_best_with_their_texts(client):
    documents = [{"text": text} for text in TEXTS[:3]]
    body = {"query": "q", "documents": documents, "top_n": 2, "return_documents": True}
    assert client.post("/v1/rerank", json=body).json()["results"] == [
        {"index": n, "relevance_score": SCORES[n], "document": {"text": TEXTS[n]}} for n in (1, 2)
    ]


def test_equal_scores_stay_in_the_order_of_the_request(client):
    found = client.post("/rerank", json={"query": "q", "texts": ["b", "a", "two words", "c"]})
    assert [one["index"] for one in found.json()] == [2, 0, 1, 3]


def test_tei_rerank_has_a_list_of_index_and_score(client):
    body = {"query": "q", "texts": TEXTS[:3]}
    found = client.post("/rerank", json=body).json()
    assert found == [{"index": n, "score": SCORES[n]} for n in (1, 2, 0)]
    found = client.post("/rerank", json={**body, "raw_scores": True, "return_text": True}).json()
    assert found == [{"index": n, "score": SCORES[n] / 10, "text": TEXTS[n]} for n in (1, 2, 0)]


@pytest.mark.parametrize(("path", "field"), [("/rerank", "texts"), ("/v1/rerank", "documents")])
def test_a_long_text_is_refused_unless_it_may_be_cut(client, path, field):
    refused = client.post(path, json={"query": "q", field: TEXTS, "truncate": False})
    assert refused.status_code == 413
    assert "text 3 has more than the 10 tokens that counter reads" in refused.text
    cut = client.post(path, json={"query": "q", field: TEXTS, "truncate": True})
    assert cut.status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/rerank", {"query": "q", "documents": []}, 400, "documents"),
        ("/v1/rerank", {"query": "q", "documents": ["a"], "top_n": 0}, 400, "top_n"),
        ("/v1/rerank", {"query": "q", "documents": [3]}, 400, "documents"),
        ("/v1/rerank", {"documents": ["a"]}, 400, "query"),
        ("/v1/rerank", {"query": "q", "documents": ["a"], "model": "other"}, 404, "counter"),
        ("/v1/rerank", {"query": "q", "documents": ["a"] * 2049}, 400, "2049 texts"),
        ("/v1/rerank", {"query": "\ud800", "documents": ["a"]}, 400, "half a surrogate"),
        ("/rerank", {"query": "q", "texts": []}, 422, "texts"),
        ("/rerank", {"query": "q", "texts": ["a"], "truncation_direction": "left"}, 422, "right"),
    ],
)
def test_what_cannot_be_carried_out_is_said(client, path, body, status, said):
    answer = client.post(path, content=json.dumps(body), headers=JSON)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message" if path.startswith("/v1") else slice(None)]


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank"])
def test_without_a_reranker_it_is_said_how_to_serve_one(serve, path):
    body = {"query": "q", "texts" if path == "/rerank" else "documents": ["a"]}
    answer = serve().post(path, json=body)
    assert answer.status_code == 404
    assert "--rerank MODEL" in answer.text


def test_pairs_wait_in_the_queue_of_the_embedder(serve, reranker, encoder):
    client = serve(reranker=reranker, queue_tokens=20, batch_tokens=8)
    batcher = client.running.server.batcher
    reranker.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        # alone it is taken, however long it is: 30 pairs of 2 tokens, 4 pairs a batch
        first = pool.submit(client.post, "/rerank", json={"query": "q", "texts": ["a"] * 30})
        fakes.wait_until(lambda: batcher.waiting_tokens == 52)
        refused = client.post("/rerank", json={"query": "q", "texts": ["a"]})
        assert (refused.status_code, refused.json()["error_type"]) == (429, "Overloaded")
        assert int(refused.headers["Retry-After"]) >= 1
        reranker.gate.set()
        assert len(first.result().json()) == 30
    assert [len(pairs) for pairs in reranker.batches] == [4] * 7 + [2]
    assert client.post("/embed", json={"inputs": "x"}).status_code == 200


def test_a_query_and_texts_are_read_by_a_real_cross_encoder(serve, tmp_path):
    from embedder.models.sentence_transformers import load_reranker
    from tests.embedder.models import rerankers

    rerankers.write_bert(tmp_path)
    real = load_reranker(str(tmp_path), "cpu")
    texts = ["the mill pond", "a mill", "x"]
    found = serve(reranker=real).post("/rerank", json={"query": "mill", "texts": texts}).json()
    expected = real.activate(real.score("mill", texts))
    assert [one["index"] for one in found] == np.argsort(-expected).tolist()
    assert [one["score"] for one in found] == pytest.approx(sorted(expected, reverse=True))
