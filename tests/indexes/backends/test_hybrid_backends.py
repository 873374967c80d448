"""A hybrid search gives the same hits, scores, order and reasons, whatever stores the vectors."""

import numpy as np
import pytest

from indexes import Index, IndexConfig
from indexes.backends.qdrant import QdrantOptions, configured_backend
from retrieval import Document
from tests.indexes.fakes import HashingEncoder

STORES = {
    "faiss": None,
    "edge": QdrantOptions(),
    "memory": QdrantOptions(memory=True),
}
WORDS = ["mill", "pond", "corn", "water", "wheel", "the", "of", "grinds", "flows", "still"]
QUERIES = [
    "corn mill",
    "still water flows",
    "the",
    "of the",
    "!?",
    "nothing known",
    "水車",
    "mills",
]


@pytest.fixture(scope="module")
def documents():
    """Eighty documents of few words, so that many have equal scores; ids against their order."""
    random = np.random.default_rng(5)
    texts = [" ".join(random.choice(WORDS, random.integers(1, 6))) for _ in range(80)]
    return [Document(f"d{80 - n:02}", text, metadata={"n": n}) for n, text in enumerate(texts)]


@pytest.fixture(scope="module")
def indexes(tmp_path_factory, documents):
    folder = tmp_path_factory.mktemp("stores")
    encoder = HashingEncoder()
    made = {}
    for name, options in STORES.items():
        config = IndexConfig(backend="faiss" if options is None else "qdrant", language="english")
        store = None if options is None else configured_backend(options)
        Index.create(folder / name, encoder, documents, config, store=store)
        made[name] = Index.open(folder / name, encoder)
    return made


def told(index, **choices):
    found = index.search(QUERIES, **choices)
    return [
        [(hit.rank, hit.doc_id, hit.score, dict(hit.arms), hit.matched) for hit in hits]
        for hits in found
    ]


@pytest.mark.parametrize(
    "choices",
    [
        {"k": 10},
        {"k": 80},
        {"k": 7, "weight": 0.8},
        {"k": 7, "fusion": "rrf"},
        {"k": 7, "mode": "lexical"},
        {"k": 10, "where": "n >= 40"},
        {"k": 10, "where": "n in [3, 5, 8, 13]", "fusion": "rrf"},
    ],
    ids=str,
)
@pytest.mark.parametrize("store", ["edge", "memory"])
def test_every_store_gives_the_hits_of_faiss(indexes, store, choices):
    expected = told(indexes["faiss"], **choices)
    assert any(expected)
    assert told(indexes[store], **choices) == expected


def test_a_filter_is_the_same_as_an_index_of_what_it_lets_through(indexes, documents, tmp_path):
    """But for BM25, whose statistics are those of all documents."""
    index = indexes["faiss"]
    hits = index.search("corn mill", 40, where="n < 40")
    assert {hit.doc_id for hit in hits} == {document.doc_id for document in documents[:40]}
    best = max(hit.arms["lexical"].score for hit in hits)
    assert best == index.search("corn mill", 1, where="n < 40", mode="lexical")[0].score


@pytest.mark.parametrize("text", ["!?", "水車", "nothing known"])
def test_where_no_word_is_found_the_order_is_that_of_the_dense_arm(indexes, text):
    index = indexes["faiss"]
    hybrid, dense = index.search(text, 80), index.search(text, 80, mode="dense")
    assert [hit.doc_id for hit in hybrid] == [hit.doc_id for hit in dense]
    assert all(hit.arms["lexical"].score == 0 and not hit.matched for hit in hybrid)
    assert index.search(text, mode="lexical") == []


def test_a_query_of_100_kb_is_searched_word_by_word(indexes):
    text = "corn " * 20_000
    assert len(text) == 100_000
    index = indexes["faiss"]
    assert index.search(text, 5)[0].matched == ("corn",)
    assert [hit.doc_id for hit in index.search(text, 5, mode="lexical")] == [
        hit.doc_id for hit in index.search("corn", 5, mode="lexical")
    ]
