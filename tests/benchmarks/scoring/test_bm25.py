import math

import pytest

from benchmarks.scoring.bm25 import K1, B, Bm25Retriever, bm25_fingerprint, split_words
from retrieval import Document, Query
from retrieval.errors import UsageError

pytest.importorskip("bm25s", reason="the bench extra is not installed")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Mills, grinding", ["mill", "grinding"]),
        ("berries and a bus of glass", ["berry", "bus", "glass"]),
        ("does gas x 9 42", ["doe", "gas", "42"]),
        ("", []),
    ],
)
def test_words_are_lower_case_singular_and_no_stopwords(text, words):
    assert split_words(text) == words


def documents(*texts):
    return [Document(f"d{number}", text) for number, text in enumerate(texts)]


def test_a_score_is_lucene_s_formula():
    index = Bm25Retriever(documents("corn corn mill", "mill", "pond water hill stone"))
    # corn: in 1 of 3 documents, twice in one of 3 words; 8 / 3 words on the mean
    idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    norm = K1 * (1 - B + B * 3 / (8 / 3))
    [hit] = index.search("corn", 10)
    assert (hit.rank, hit.doc_id) == (1, "d0")
    assert hit.score == pytest.approx(idf * 2 / (2 + norm), rel=1e-5)


def test_documents_without_a_common_word_are_no_hits():
    index = Bm25Retriever(documents("corn", "", "pond"))
    assert [hit.doc_id for hit in index.search("pond", 10)] == ["d2"]
    assert index.search("unheard", 10) == []
    assert index.search("", 10) == []


def test_equal_scores_are_ordered_by_id():
    texts = [Document("z", "pond"), Document("b", "pond"), Document("a", "pond")]
    assert [hit.doc_id for hit in Bm25Retriever(texts).search("ponds", 2)] == ["a", "b"]


def test_hits_carry_texts_where_they_are_wanted():
    retriever = Bm25Retriever(documents("pond", "pond stone", "corn"))
    [(query, hits)] = retriever.search_many([Query("q", "pond")], 5, with_text=True)
    assert query.query_id == "q"
    assert [(hit.doc_id, hit.text) for hit in hits] == [("d0", "pond"), ("d1", "pond stone")]
    [(_, hits)] = retriever.search_many([Query("q", "pond")], 5)
    assert [(hit.doc_id, hit.text) for hit in hits] == [("d0", ""), ("d1", "")]


def test_texts_without_a_word_are_refused():
    with pytest.raises(UsageError, match="No text holds a word that BM25 could find"):
        Bm25Retriever(documents("?", ""))


def test_the_fingerprint_holds_what_decides_the_scores():
    settings = bm25_fingerprint().settings
    assert (settings["k1"], settings["b"]) == (K1, B)
