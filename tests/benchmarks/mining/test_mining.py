import math
from collections import Counter

import numpy as np
import pytest

from benchmarks.mining.candidates import (
    BM25Ranker,
    Candidates,
    ModelRanker,
    Ranking,
    index_candidates,
)
from benchmarks.mining.mining import GUARDS, MiningConfig, MiningSummary, mine
from embedder.training.data import KnownPairs, Pair
from indexes.lexical.arm import K1, B
from retrieval import Document, Fingerprint
from retrieval.errors import FingerprintError, UsageError

pytestmark = pytest.mark.filterwarnings(
    "ignore:builtin type (SwigPy|swigvarlink).* has no __module__ attribute:DeprecationWarning"
)


class TableRanker:
    """Gives every candidate the score that a table says, whatever the query."""

    def __init__(self, candidates, scores):
        self.scores = np.array([scores[text] for text in candidates.texts], np.float64)
        self.candidates = candidates
        self.queries = []

    def rank(self, queries, positives, k):
        self.queries.extend(queries)
        rows = np.argsort(-self.scores, kind="stable")[:k]
        own = [float(self.scores[self.candidates.row(text)]) for text in positives]
        return [Ranking(rows, self.scores[rows], score) for score in own]


def mine_table(scores, *pairs, **config):
    """Mine the pairs, where the keys of ``scores`` are the candidates; no guard by default."""
    candidates = Candidates(list(scores))
    settings = {
        "negatives": len(scores) - 1,
        "from_rank": 1,
        "to_rank": len(scores),
        "max_relative_score": math.inf,
    }
    ranker = TableRanker(candidates, scores)
    plan = MiningConfig(**(settings | config))
    return list(mine(pairs, KnownPairs.of(pairs), candidates, ranker, plan))


PAIR = Pair("what is it", "right")
SIX = {"right": 10, "a": 6, "b": 5, "c": 4, "d": 3, "e": 2}
"""Ranks: right 1, a 2, b 3, c 4, d 5, e 6."""


@pytest.mark.parametrize(
    ("window", "expected", "ranks"),
    [
        ((3, 5), ("b", "c", "d"), (3, 4, 5)),  # both ends count
        ((1, 3), ("a", "b"), (2, 3)),  # rank 1 is the positive's
        ((5, 6), ("d", "e"), (5, 6)),
    ],
)
def test_negatives_come_from_the_window_of_ranks(window, expected, ranks):
    width = window[1] - window[0] + 1
    [mined] = mine_table(SIX, PAIR, from_rank=window[0], to_rank=window[1], negatives=width)
    assert (mined.pair.negatives, mined.ranks) == (expected, ranks)


def test_the_best_of_the_window_are_picked():
    [mined] = mine_table(SIX, PAIR, from_rank=2, negatives=2)
    assert mined.pair.negatives == ("a", "b")


def test_what_scores_more_than_a_share_of_the_positive_is_left_out():
    # Half of 10 is 5: a (6) goes, b (5) is no more than that and stays.
    [mined] = mine_table(SIX, PAIR, max_relative_score=0.5)
    assert mined.pair.negatives == ("b", "c", "d", "e")
    assert mined.dropped["score"] == 1


def test_below_zero_a_relative_limit_lies_below_the_positive_too():
    # -0.25 less half of its distance from 0 is -0.375; -0.25 * 0.5 would be above the positive.
    scores = {"right": -0.25, "near": -0.3125, "far": -0.375}
    [mined] = mine_table(scores, PAIR, max_relative_score=0.5)
    assert mined.pair.negatives == ("far",)


def test_what_scores_too_little_less_than_the_positive_is_left_out():
    # 0.75 - 0.25 is 0.5: 0.625 goes, 0.5 stays.
    scores = {"right": 0.75, "near": 0.625, "far": 0.5}
    [mined] = mine_table(scores, PAIR, min_gap=0.25)
    assert mined.pair.negatives == ("far",)
    # The stricter of the two limits counts: 0.6 * 0.75 is 0.45.
    [mined] = mine_table(scores, PAIR, min_gap=0.25, max_relative_score=0.6)
    assert mined.pair.negatives == ()


def test_without_limits_a_candidate_may_score_more_than_the_positive():
    [mined] = mine_table({"better": 11, "right": 10, "worse": 9}, PAIR)
    assert mined.pair.negatives == ("better", "worse")


def test_no_positive_of_the_same_query_becomes_a_negative_whatever_its_case_and_blanks():
    pairs = (PAIR, Pair(" What is\nIT", "also  RIGHT"), Pair("another", "wrong"))
    scores = {"right": 3, "Also right ": 2, "wrong": 1}
    first, second, third = mine_table(scores, *pairs)
    assert first.pair.negatives == second.pair.negatives == ("wrong",)
    assert first.dropped["positive"] == 2
    assert third.pair.negatives == ("right", "Also right ")


def test_the_query_itself_does_not_become_a_negative():
    [mined] = mine_table({"right": 3, "What  is IT": 2, "wrong": 1}, PAIR)
    assert mined.pair.negatives == ("wrong",)
    assert mined.dropped["query"] == 1


def test_negatives_that_are_there_stay_first_and_are_not_repeated():
    pair = Pair("what is it", "right", ("own", "B "))
    [mined] = mine_table(SIX, pair, negatives=2)
    assert mined.pair == Pair("what is it", "right", ("own", "B ", "a", "c"))
    assert (mined.ranks, mined.dropped["present"]) == ((2, 4), 1)
    [replaced] = mine_table(SIX, pair, negatives=2, replace=True)
    assert replaced.pair.negatives == ("a", "b")


def test_a_candidate_is_counted_by_the_first_guard_that_drops_it():
    # right is the positive and scores above the limit; a and b only score above it.
    [mined] = mine_table(SIX, PAIR, max_relative_score=0.45)
    assert mined.dropped == {"positive": 1, "query": 0, "present": 0, "score": 2}


def test_a_random_sample_lies_in_the_window_and_repeats_for_a_seed():
    scores = {"right": 100} | {f"t{i}": 50 - i for i in range(12)}
    pairs = [Pair(f"q{i}", "right") for i in range(600)]  # three batches
    plan = {"from_rank": 3, "to_rank": 12, "negatives": 2, "pick": "random"}
    first = mine_table(scores, *pairs, **plan)
    assert first == mine_table(scores, *pairs, **plan)
    assert first != mine_table(scores, *pairs, **plan, seed=1)
    found = Counter(rank for mined in first for rank in mined.ranks)
    # 600 * 2 over 10 ranks: 120 each, with a standard deviation near 10.
    assert sorted(found) == list(range(3, 13))
    assert all(70 < count < 170 for count in found.values())
    assert all(len(set(m.ranks)) == 2 and list(m.ranks) == sorted(m.ranks) for m in first)


def test_a_sample_is_all_that_is_left_where_little_is_left():
    [mined] = mine_table(SIX, PAIR, pick="random", negatives=4, max_relative_score=0.3)
    assert mined.pair.negatives == ("d", "e")  # 0.3 * 10 is 3


def test_pairs_are_ranked_a_batch_at_a_time():
    pairs = [Pair(f"q{i}", "right") for i in range(1000)]
    candidates = Candidates(list(SIX))
    ranker = TableRanker(candidates, SIX)
    plan = MiningConfig(negatives=1, from_rank=1, to_rank=6)
    stream = mine(pairs, KnownPairs.of(pairs), candidates, ranker, plan)
    next(stream)
    assert len(ranker.queries) == 256
    assert [mined.pair.query for mined in stream] == [f"q{i}" for i in range(1, 1000)]


def test_a_window_that_reaches_past_the_candidates_is_refused():
    with pytest.raises(UsageError, match="There are 6 distinct candidates.* Type --to-rank 6"):
        mine_table(SIX, PAIR, to_rank=7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"negatives": 0}, "negatives is 0"),
        ({"from_rank": 0}, "from_rank is 0"),
        ({"from_rank": 100}, "to_rank is 100 and from_rank 100"),
        ({"max_relative_score": 0}, "max_relative_score is 0"),
        ({"max_relative_score": math.nan}, "max_relative_score is nan"),
        ({"min_gap": -0.1}, "min_gap is -0.1"),
        ({"pick": "best"}, "pick is 'best'; expected top or random"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_config_out_of_range_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        MiningConfig(**settings)


def test_the_summary_adds_up():
    summary = MiningSummary(candidates=6)
    assert summary.mean_rank is None
    for pair, limit in ((PAIR, 0.5), (PAIR, 0.2), (PAIR, 0.1)):
        # 5: b c d e at ranks 3 to 6, a dropped; 2: e at 6, four dropped; 1: none, five dropped.
        summary.add(mine_table(SIX, pair, max_relative_score=limit)[0])
    assert summary.to_json() == {
        "pairs": 3,
        "candidates": 6,
        "negatives": 5,
        "pairs_by_negatives": {"0": 1, "1": 1, "4": 1},
        "pairs_without": 1,
        "mean_rank": (3 + 4 + 5 + 6 + 6) / 5,
        "dropped": {"positive": 3, "query": 0, "present": 0, "score": 10},
    }
    assert set(GUARDS) == set(summary.to_json()["dropped"])


def test_candidates_are_the_distinct_positives():
    pairs = [Pair("q1", "One  text"), Pair("q2", "two"), Pair("q3", "one TEXT\n")]
    candidates = Candidates.collect(pairs)
    assert (candidates.texts, candidates.count) == (["One  text", "two"], 2)
    assert candidates.row("ONE text") == 0


def test_of_a_corpus_the_positives_that_it_lacks_are_known_but_no_candidates():
    corpus = [
        Document("1", "body", "Title"),
        Document("2", " "),
        Document("3", "known"),
        Document("4", "KNOWN"),
    ]
    candidates = Candidates.collect([Pair("q", "Known"), Pair("q", "elsewhere")], corpus)
    assert candidates.texts == ["Title body", "known", "elsewhere"]
    assert candidates.count == 2


def score_by_formula(texts, query):
    """BM25 as Lucene has it, one text at a time (Kamphuis et al. 2020, table 1)."""
    documents = [text.split() for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for words in documents:
        total = 0.0
        for word in query.split():
            holding = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
            count = words.count(word)
            total += idf * count / (count + K1 * (1 - B + B * len(words) / mean))
        scores.append(total)
    return np.array(scores)


def test_bm25_ranks_and_scores_as_the_formula_does():
    random = np.random.default_rng(0)
    words = np.array(["mill", "pond", "water", "grain", "wheel", "stone", "flour", "river"])
    texts = [" ".join(random.choice(words, random.integers(1, 9))) for _ in range(60)]
    pairs = [Pair(" ".join(random.choice(words, 3)), text) for text in texts[:20]]
    corpus = [Document(str(i), text) for i, text in enumerate(texts[10:])]
    candidates = Candidates.collect(pairs, corpus)  # ten positives may be missing from the corpus
    assert candidates.count < len(candidates.texts)
    rankings = BM25Ranker(candidates).rank([p.query for p in pairs], [p.positive for p in pairs], 7)
    for pair, ranking in zip(pairs, rankings, strict=True):
        scores = score_by_formula(candidates.texts, pair.query)
        best = np.sort(scores[: candidates.count])[::-1][:7]
        np.testing.assert_allclose(ranking.scores, best, rtol=1e-5)
        np.testing.assert_allclose(scores[ranking.rows], best, rtol=1e-5)
        assert ranking.positive == pytest.approx(scores[candidates.row(pair.positive)], rel=1e-5)


def test_bm25_ranks_no_text_without_a_word_of_the_query():
    ranker = BM25Ranker(Candidates(["mill wheel", "pond water", "mill stone"]))
    [ranking, nothing] = ranker.rank(["mill", "xyzzy"], ["pond water", "mill wheel"], 3)
    assert ranking.rows.tolist() == [0, 2]  # equal scores: by row
    assert ranking.positive == 0
    assert (nothing.rows.tolist(), nothing.positive) == ([], 0)


def test_bm25_refuses_candidates_without_words():
    with pytest.raises(UsageError, match="--by MODEL"):
        BM25Ranker(Candidates(["?", "!"]))


def test_mining_finds_negatives_for_chinese_pairs():
    """40 questions and answers that share no word between blanks, only pairs of characters."""
    things = ["茶", "水", "山", "河", "花"]
    places = ["北京", "上海", "广州", "成都", "西安", "武汉", "杭州", "南京"]
    pairs = [Pair(f"{a}的春天哪里有{b}", f"{a}的春天有很多{b}") for a in places for b in things]
    candidates = Candidates.collect(pairs)
    config = MiningConfig(negatives=2, from_rank=2, to_rank=10)
    known = KnownPairs.of(pairs)
    mined = list(mine(pairs, known, candidates, BM25Ranker(candidates), config))
    assert [len(one.ranks) for one in mined] == [2] * 40
    assert all(one.pair.positive not in one.pair.negatives for one in mined)


class Compass:
    """Texts are angles in degrees, vectors the points of a circle; notes what it embeds."""

    dimension = 2

    def __init__(self, name="compass"):
        self.fingerprint = Fingerprint(name, {"model": name})
        self.documents = []

    def encode_queries(self, texts):
        angles = np.radians([float(text) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def encode_documents(self, texts):
        self.documents.extend(texts)
        return self.encode_queries(texts)


def test_a_model_ranks_by_cosine_and_scores_a_deep_positive_directly(tmp_path):
    candidates = Candidates(["90", "60", "0", "30"])
    compass = Compass()
    index_candidates(candidates, compass, tmp_path / "index")
    compass.documents.clear()
    ranker = ModelRanker(candidates, compass, tmp_path / "index")
    near, deep = ranker.rank(["0", "0"], ["30", "60"], 2)
    # cos 0 = 1, cos 30 = 0.8660, cos 60 = 0.5; the two best are rows 2 and 3.
    assert near.rows.tolist() == deep.rows.tolist() == [2, 3]
    assert near.scores == pytest.approx([1, math.sqrt(0.75)], abs=1e-6)
    assert near.positive == near.scores[1]
    assert deep.positive == pytest.approx(0.5, abs=1e-6)
    assert compass.documents == ["60"]  # the other one was among the hits


def test_a_model_scores_a_positive_that_the_corpus_lacks(tmp_path):
    pairs = [Pair("0", "60")]
    candidates = Candidates.collect(pairs, [Document("a", "30"), Document("b", "90")])
    index_candidates(candidates, Compass(), tmp_path / "index")
    [ranking] = ModelRanker(candidates, Compass(), tmp_path / "index").rank(["0"], ["60"], 3)
    assert ranking.rows.tolist() == [0, 1]
    assert ranking.positive == pytest.approx(0.5, abs=1e-6)


def test_equal_cosines_are_ordered_by_row(tmp_path):
    # -10 and 10 are as far from 0; as text, row 10 would come before row 2.
    candidates = Candidates(["90", "80", "-10", "70", "60", "55", "50", "45", "40", "35", "10"])
    index_candidates(candidates, Compass(), tmp_path / "index")
    [ranking] = ModelRanker(candidates, Compass(), tmp_path / "index").rank(["0"], ["10"], 3)
    assert ranking.rows.tolist() == [2, 10, 9]


def test_an_index_of_another_model_is_refused(tmp_path):
    candidates = Candidates(["90", "60"])
    index_candidates(candidates, Compass(), tmp_path / "index")
    with pytest.raises(FingerprintError):
        ModelRanker(candidates, Compass("another"), tmp_path / "index")
