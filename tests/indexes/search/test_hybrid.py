"""Fusion by hand: the vectors and the lexical scores of every document are chosen by the test."""

from dataclasses import replace

import numpy as np
import pytest

from indexes import Index, IndexConfig
from indexes.group import IndexGroup
from retrieval import Document
from retrieval.errors import FingerprintError, UnknownNameError, UsageError
from tests.indexes.fakes import HashingEncoder, TableEncoder

QUERY = np.array([[1.0, 0.0]], dtype=np.float32)


class TableArm:
    """Gives each row the score that a table has for the query, and matches words as they are."""

    def __init__(self, table):
        self.table = {text: np.array(scores, np.float32) for text, scores in table.items()}

    def search_and_score(self, text, k, selection, others):
        scores = self.table[text]
        rows = np.flatnonzero(scores > 0)
        if selection.mask is not None:
            rows = rows[selection.mask[rows]]
        rows = rows[np.argsort(-scores[rows], kind="stable")][:k]
        return (scores[rows], rows.astype(np.int64)), scores[others]

    def matched(self, text, document):
        return [word for word in document.split() if word in text.split()]


def make_index(folder, cosines, arm=None, texts=None, ids=None, **config):
    """An index whose document n has the cosine ``cosines[n]`` with ``QUERY``."""
    vectors = [[cosine, (1 - cosine**2) ** 0.5] for cosine in cosines]
    encoder = TableEncoder(np.array(vectors, dtype=np.float32))
    documents = [
        Document((ids or [f"d{n}" for n in range(len(cosines))])[n], str(n), metadata={"n": n})
        for n in range(len(cosines))
    ]
    index = Index.create(folder, encoder, documents, IndexConfig(**config))
    index.snapshot.lexical = arm and TableArm(arm)
    return index


@pytest.fixture
def index(tmp_path):
    """Cosines .8, .6, .4, 0 and BM25 0, 2, 4, 1 for the query "corn"."""
    arm = {"corn": [0, 2, 4, 1], "the": [0, 0, 0, 0], "all": [3, 3, 3, 3]}
    return make_index(tmp_path / "index", [0.8, 0.6, 0.4, 0.0], arm)


def ask(index, text="corn", k=4, **choices):
    (hits,) = index.search(QUERY, k, texts=[text], **choices)
    return hits


def shown(hits):
    return [(hit.doc_id, round(hit.score, 4)) for hit in hits]


def test_convex_fusion_weights_what_min_max_makes_of_the_scores(index):
    # dense   .8 .6 .4 0 -> 1, .75, .5, 0;  lexical 0 2 4 1 -> 0, .5, 1, .25
    # at .3:  d0 .3;  d1 .3 x .75 + .7 x .5 = .575;  d2 .3 x .5 + .7 = .85;  d3 .7 x .25 = .175
    assert shown(ask(index, weight=0.3)) == [
        ("d2", 0.85), ("d1", 0.575), ("d0", 0.3), ("d3", 0.175),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("weight", "order"), [(0, ["d2", "d1", "d3", "d0"]), (1, ["d0", "d1", "d2", "d3"])]
)
def test_at_its_ends_the_weight_leaves_one_arm(index, weight, order):
    assert [hit.doc_id for hit in ask(index, weight=weight)] == order


def test_reciprocal_ranks_add_up_over_the_arms_that_returned_a_document(index):
    # dense ranks 1 2 3 4; lexical: d2 1, d1 2, d3 3, and d0 has no word of the query
    expected = {
        "d2": 1 / 63 + 1 / 61,
        "d1": 1 / 62 + 1 / 62,
        "d3": 1 / 64 + 1 / 63,
        "d0": 1 / 61,
    }
    hits = ask(index, fusion="rrf")
    assert [hit.doc_id for hit in hits] == sorted(expected, key=lambda one: -expected[one])
    assert [hit.score for hit in hits] == pytest.approx(
        [expected[hit.doc_id] for hit in hits], abs=1e-7
    )


def test_a_hit_says_what_each_arm_gave(index):
    best, *_, last = ask(index, k=3, weight=0.3)
    assert best.doc_id == "d2"
    assert best.arms["dense"].score == pytest.approx(0.4)
    assert (best.arms["dense"].rank, best.arms["lexical"].rank) == (3, 1)
    assert best.arms["lexical"].score == 4
    assert (last.doc_id, last.arms["lexical"].score, last.arms["lexical"].rank) == ("d0", 0, None)


def test_what_one_arm_did_not_return_is_scored_by_it_exactly(tmp_path):
    """121 documents; the lexical arm has one word in the one that is last by meaning."""
    cosines = np.linspace(0.9, 0.1, 121).tolist()
    arm = {"corn": [0.0] * 120 + [5.0]}
    index = make_index(tmp_path / "index", cosines, arm)
    (best, *_) = ask(index, k=3, weight=0.3)
    assert best.doc_id == "d120"
    assert (best.arms["dense"].score, best.arms["dense"].rank) == (pytest.approx(0.1), None)
    assert best.score == pytest.approx(0.7)  # last of both by meaning: 0; first by words: 1


@pytest.mark.parametrize("text", ["the", "all"])
def test_an_arm_that_gives_all_one_score_says_nothing(index, text):
    """ "the" is in no document, "all" in each alike: the order is that of the dense arm."""
    assert shown(ask(index, text, weight=0.3)) == [
        ("d0", 0.3), ("d1", 0.225), ("d2", 0.15), ("d3", 0.0),
    ]  # fmt: skip


def test_equal_scores_are_ordered_by_document_id(tmp_path):
    index = make_index(
        tmp_path / "index", [0.5, 0.5, 0.5], {"corn": [1, 1, 1]}, ids=["c", "a", "b"]
    )
    assert [hit.doc_id for hit in ask(index)] == ["a", "b", "c"]
    assert [hit.doc_id for hit in ask(index, k=1)] == ["a"]
    assert [hit.doc_id for hit in ask(index, k=2, mode="lexical")] == ["a", "b"]


def test_fewer_hits_are_the_first_of_more(index):
    everything = ask(index)
    assert [ask(index, k=k) for k in (1, 2, 3)] == [everything[:k] for k in (1, 2, 3)]


def test_the_dense_mode_is_the_search_without_words(index):
    assert ask(index, mode="dense") == index.search(QUERY, 4)[0]
    assert ask(index, mode="dense")[0].arms == {}


def test_the_lexical_mode_needs_no_model_and_finds_what_shares_a_word(index):
    index.encoder = None
    hits = index.search("corn", mode="lexical")
    assert shown(hits) == [("d2", 4.0), ("d1", 2.0), ("d3", 1.0)]
    assert index.search(["the"], mode="lexical") == [[]]


def test_vectors_alone_are_searched_by_meaning(index):
    assert [hit.doc_id for hit in index.search(QUERY, 4)[0]] == ["d0", "d1", "d2", "d3"]
    with pytest.raises(UsageError, match="no text arrived"):
        index.search(QUERY, mode="hybrid")


def test_a_filter_holds_for_both_arms(index):
    hits = ask(index, where="n in [0, 3]", weight=0.3)
    # dense .8 and 0 -> 1 and 0; lexical 0 and 1 -> 0 and 1
    assert shown(hits) == [("d3", 0.7), ("d0", 0.3)]
    assert ask(index, where="n > 3") == []


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_weight_outside_0_to_1_is_refused(index, weight):
    with pytest.raises(UsageError, match="between 0 .* and 1"):
        ask(index, weight=weight)


@pytest.mark.parametrize(
    "choices", [{"mode": "dense", "weight": 0.5}, {"fusion": "rrf", "weight": 0.5}]
)
def test_a_weight_that_would_weigh_nothing_is_refused(index, choices):
    with pytest.raises(UsageError, match="A weight goes with"):
        ask(index, **choices)


@pytest.mark.parametrize("choices", [{"mode": "sparse"}, {"fusion": "sum"}])
def test_an_unknown_mode_or_fusion_is_refused(index, choices):
    with pytest.raises(UnknownNameError, match="Accepted"):
        ask(index, **choices)


def test_an_index_with_one_arm_is_searched_by_that_one(tmp_path):
    index = make_index(tmp_path / "index", [0.8, 0.6])
    assert index.modes == ("dense",)
    assert shown(ask(index)) == [("d0", 0.8), ("d1", 0.6)]
    for mode in ("hybrid", "lexical"):
        with pytest.raises(UsageError, match=r"no lexical arm.*--arms dense,lexical"):
            ask(index, mode=mode)
    with pytest.raises(UsageError, match="leave the weight out"):
        ask(index, weight=0.5)


def test_passages_are_fused_one_by_one_and_a_document_is_hit_by_its_best(tmp_path):
    encoder = HashingEncoder()
    documents = [Document("a", "mill pond"), Document("b", "corn mill"), Document("c", "pond")]
    index = Index.create(
        tmp_path / "index",
        encoder,
        documents,
        IndexConfig(passages={"tokens": 1, "overlap": 0}),
        split=str.split,
    )
    # rows: a#0 mill, a#1 pond, b#0 corn, b#1 mill, c#0 pond
    index.snapshot.lexical = TableArm({"corn": [0, 0, 3, 0, 0]})
    hits = index.search("corn", k=3)
    assert (hits[0].doc_id, hits[0].text, hits[0].score) == ("b", "corn", pytest.approx(1.0))
    assert hits[0].matched == ("corn",)
    assert sorted(hit.doc_id for hit in hits) == ["a", "b", "c"]


def test_candidates_are_asked_for_until_they_belong_to_k_documents(tmp_path):
    """One document of 150 passages is nearest by both arms; two more are to be found."""
    encoder = HashingEncoder()
    documents = [Document("long", " ".join(["corn"] * 150)), Document("x", "x"), Document("y", "y")]
    index = Index.create(
        tmp_path / "index",
        encoder,
        documents,
        IndexConfig(passages={"tokens": 1, "overlap": 0}),
        split=str.split,
    )
    index.snapshot.lexical = TableArm({"corn": [1.0] * 150 + [0, 0]})
    assert {hit.doc_id for hit in index.search("corn", k=3)} == {"long", "x", "y"}


def share_out(index, threads=3):
    """Let so many threads ask the engine, which is told of each."""
    told = []
    engine = index.snapshot.engine
    index.snapshot.engine = replace(engine, threads=threads, start_thread=lambda: told.append(1))
    return told


def many_queries(count):
    angles = np.linspace(0, 3, count)
    return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


@pytest.mark.parametrize("choices", [{}, {"mode": "dense"}, {"mode": "lexical"}])
@pytest.mark.parametrize("count", [63, 64, 200])
def test_queries_that_threads_share_find_what_each_finds_alone(index, choices, count):
    queries, texts = many_queries(count), ["corn", "all"] * count
    if choices.get("mode") == "lexical":
        queries = texts[:count]
    alone = [
        index.search(queries[n : n + 1], 3, texts=texts[n : n + 1], **choices)[0]
        for n in range(count)
    ]
    told = share_out(index)
    assert index.search(queries, 3, texts=texts[:count], **choices) == alone
    assert bool(told) == (count >= 64)


def test_an_error_in_one_of_several_threads_arrives(index):
    texts = ["corn"] * 199 + ["a query that the table lacks"]
    share_out(index)
    with pytest.raises(KeyError, match="lacks"):
        index.search(many_queries(200), 3, texts=texts)
    with pytest.raises(UsageError, match="200 vectors and 199 texts"):
        index.search(many_queries(200), 3, texts=texts[:-1])


def make_split(folder, count=40):
    """One index of all documents, and the same documents in three; BM25 by hand, as if global."""
    generator = np.random.default_rng(3)
    cosines = generator.uniform(-1, 1, count).round(2).tolist()
    words = generator.integers(0, 4, count).astype(float).tolist()
    ids = [f"d{n:02}" for n in range(count)]
    whole = make_index(folder / "whole", cosines, {"corn": words}, ids=ids)
    named = []
    for part in range(3):
        own = slice(part, None, 3)
        index = make_index(folder / f"part{part}", cosines[own], {"corn": words[own]}, ids=ids[own])
        named.append((f"part{part}", index))
    return whole, IndexGroup(named)


@pytest.mark.parametrize(
    "choices",
    [{}, {"mode": "dense"}, {"mode": "lexical"}, {"fusion": "rrf"}, {"weight": 0.7}],
)
@pytest.mark.parametrize("k", [1, 7, 40])
def test_several_indexes_are_searched_as_one_index_of_all_documents(tmp_path, choices, k):
    whole, group = make_split(tmp_path)
    queries = ["corn"] if choices.get("mode") == "lexical" else QUERY
    (expected,) = whole.search(queries, k, texts=["corn"], **choices)
    (found,) = group.search(queries, k, texts=["corn"], **choices)
    assert [(hit.rank, hit.doc_id, hit.score, hit.arms) for hit in found] == [
        (hit.rank, hit.doc_id, hit.score, hit.arms) for hit in expected
    ]
    assert {hit.index for hit in found} <= {"part0", "part1", "part2"}
    assert all(int(hit.doc_id[1:]) % 3 == int(hit.index[-1]) for hit in found)


def test_indexes_of_two_models_are_refused_and_both_are_named(tmp_path):
    first = Index.create(tmp_path / "a", HashingEncoder(model="one"), [Document("1", "x")])
    second = Index.create(tmp_path / "b", HashingEncoder(model="two"), [Document("1", "x")])
    with pytest.raises(FingerprintError, match="a was made with 'one' and b with 'two'"):
        IndexGroup([("a", first), ("b", second)])


def test_no_index_and_one_twice_are_refused(tmp_path):
    index = Index.create(tmp_path / "a", HashingEncoder(), [Document("1", "x")])
    with pytest.raises(UsageError, match="at least one"):
        IndexGroup([])
    with pytest.raises(UsageError, match="a and b are the same index"):
        IndexGroup([("a", index), ("b", Index.open(tmp_path / "a"))])


def test_a_field_that_one_of_several_lacks_is_an_error_that_names_the_index(tmp_path):
    one = make_index(tmp_path / "one", [0.8])
    other = Index.create(tmp_path / "other", one.encoder, [Document("x", "0")])
    with pytest.raises(UsageError, match="In other: .*'n'"):
        IndexGroup([("one", one), ("other", other)]).search(QUERY, 1, where="n == 0")


@pytest.mark.parametrize("language", ["english", "none"])
def test_the_document_of_a_code_is_first_among_all_that_differ_in_it_alone(language, tmp_path):
    forms = ("E-{}", "HTTP_{}", "ora.{}", "v{}", "CVE-2024-{}")
    codes = [form.format(4000 + 37 * number) for form in forms for number in range(30)]
    documents = [Document(code, f"Error code {code}: the pump has stopped.") for code in codes]
    config = IndexConfig(language=language)
    index = Index.create(tmp_path / "index", HashingEncoder(), documents, config)
    wanted = codes[::13]
    for mode in ("hybrid", "lexical"):
        for ask in ("{}", "what does error {} mean", "error code {}?"):
            found = index.search([ask.format(code) for code in wanted], 3, mode=mode)
            assert [hits[0].doc_id for hits in found] == wanted
