import math

import pytest

from benchmarks.scoring.bm25 import Bm25Retriever, bm25_fingerprint
from indexes.lexical.arm import K1, B
from retrieval import Document, Query
from retrieval.errors import UsageError


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
    assert [hit.doc_id for hit in Bm25Retriever(texts).search("pond", 2)] == ["a", "b"]
    many = Bm25Retriever([Document(f"{number:03d}", "pond") for number in reversed(range(300))])
    assert [hit.doc_id for hit in many.search("pond", 3)] == ["000", "001", "002"]


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


@pytest.mark.parametrize(
    ("texts", "query", "best"),
    [
        (("北京是中国的首都", "上海是最大的城市", "我喜欢喝茶"), "中国首都在哪里", "d0"),
        (("東京は日本の首都です", "京都に住んでいます", "お茶を飲みます"), "日本の首都", "d0"),
        (("กรุงเทพเป็นเมืองหลวง", "ฉันชอบดื่มชา", "แมวนอนบนเตียง"), "เมืองหลวง", "d0"),
        (("모임에서 커피를 마셨다", "서울은 한국의 수도이다", "고양이"), "한국 수도", "d1"),
        (("किताब की दुकान", "पानी की बोतल", "घोड़े की गाड़ी"), "घोड़े", "d2"),
        (("cafe\u0301 noir", "the\u0301 vert", "lait"), "thé", "d1"),
        (("İSTANBUL'DA hava", "Ankara'da hava", "IZGARA bal\u0131k"), "\u0131zgara istanbul", "d2"),
        (("plan 9 from Bell Labs", "plan 10 from Bell Labs"), "plan 9", "d0"),
        (("vitamin A", "vitamin B", "vitamin C"), "vitamin c", "d2"),
        (("Error code E-1041", "Error code E-1042", "Error code E-1043"), "E-1042", "d1"),
        (("os.remove", "shutil.rmtree removes a tree", "shutil.move"), "rmtree", "d1"),
    ],
)
def test_words_of_any_script_are_found(texts, query, best):
    assert Bm25Retriever(documents(*texts)).search(query, 1)[0].doc_id == best
