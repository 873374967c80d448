import math
import random
import warnings

import numpy as np
import pytest

from benchmarks.scoring.metrics import retrieval_metrics, score_run


def run_of(*doc_ids):
    """A ranking: scores fall by one from 100."""
    return {doc_id: 100.0 - rank for rank, doc_id in enumerate(doc_ids)}


def test_two_relevant_documents_at_ranks_2_and_3():
    scores = score_run({"q": {"b": 1, "c": 1}}, {"q": run_of("a", "b", "c")}, 10)
    # DCG 1/log2(3) + 1/log2(4), ideal 1/log2(2) + 1/log2(3)
    ideal = 1 + 1 / math.log2(3)
    assert scores["ndcg@10"]["q"] == pytest.approx((1 / math.log2(3) + 1 / 2) / ideal)
    assert scores["map"]["q"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert scores["recall@10"]["q"] == scores["recall@100"]["q"] == 1
    assert scores["mrr@10"]["q"] == pytest.approx(1 / 2)


def test_graded_judgements_are_the_gains():
    scores = score_run({"q": {"a": 1, "b": 3}}, {"q": run_of("a", "b")}, 10)
    assert scores["ndcg@10"]["q"] == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))


@pytest.mark.parametrize(("rank", "expected"), [(1, 1.0), (9, 1 / 9), (10, 0.1), (11, 0.0)])
def test_mrr_sees_ten_ranks(rank, expected):
    ids = [f"d{number}" for number in range(1, 20)]
    scores = score_run({"q": {f"d{rank}": 1}}, {"q": run_of(*ids)}, 10)
    assert scores["mrr@10"]["q"] == pytest.approx(expected)


def test_a_query_that_found_nothing_scores_zero_and_is_not_left_out():
    qrels = {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 1}}
    scores = score_run(qrels, {"q1": run_of("a"), "q2": {}}, 10)
    assert scores["ndcg@10"] == {"q1": 1.0, "q2": 0.0, "q3": 0.0}
    assert all(set(rows) == set(qrels) for rows in scores.values())


def test_k_names_and_cuts_the_first_metrics():
    ids = [f"d{number}" for number in range(1, 20)]
    scores = score_run({"q": {"d4": 1}}, {"q": run_of(*ids)}, 3)
    assert (
        tuple(scores)
        == retrieval_metrics(3)
        == (
            "ndcg@3",
            "map",
            "recall@3",
            "recall@100",
            "mrr@10",
        )
    )
    assert scores["ndcg@3"]["q"] == scores["recall@3"]["q"] == 0
    assert scores["recall@100"]["q"] == 1
    assert scores["mrr@10"]["q"] == pytest.approx(1 / 4)


def test_recall_at_100_is_named_once():
    assert retrieval_metrics(100) == ("ndcg@100", "map", "recall@100", "mrr@10")


def test_scores_agree_with_beir_to_1e_5():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm calls its notebook bar experimental
        evaluation = pytest.importorskip("beir.retrieval.evaluation")
    chance = random.Random(0)
    documents = [f"d{number}" for number in range(300)]
    qrels = {
        f"q{number}": {
            doc_id: chance.choice((0, 1, 1, 2)) for doc_id in chance.sample(documents, 12)
        }
        for number in range(40)
    }
    run = {
        query: {doc_id: chance.random() for doc_id in chance.sample(documents, 100)}
        for query in qrels
    }
    evaluate = evaluation.EvaluateRetrieval
    ndcg, average, recall, _ = evaluate.evaluate(qrels, run, [10, 100])
    mrr = evaluate.evaluate_custom(qrels, run, [10], "mrr")
    ours = {name: np.mean(list(rows.values())) for name, rows in score_run(qrels, run, 10).items()}
    theirs = {
        "ndcg@10": ndcg["NDCG@10"],
        "map": average["MAP@100"],
        "recall@10": recall["Recall@10"],
        "recall@100": recall["Recall@100"],
        "mrr@10": mrr["MRR@10"],
    }
    # beir rounds to five digits
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_scores_are_those_of_trec_eval_with_ties_too():
    reference = pytest.importorskip("pytrec_eval", reason="the test extra is not installed")
    chance = random.Random(1)
    documents = [*(f"d{number}" for number in range(200)), "Z", "z", "é"]
    qrels = {
        f"q{number}": {one: chance.choice((0, 1, 2)) for one in chance.sample(documents, 12)}
        for number in range(30)
    }
    run = {
        query: {one: chance.choice((0.5, 0.5 + 1e-9, chance.random())) for one in documents[::2]}
        for query in qrels
    }
    measures = {
        "ndcg@7": "ndcg_cut_7",
        "map": "map",
        "recall@7": "recall_7",
        "mrr@10": "recip_rank",
    }
    theirs = reference.RelevanceEvaluator(
        qrels, {"ndcg_cut.7", "map", "recall.7", "recip_rank"}
    ).evaluate(run)
    ours = score_run(qrels, run, 7)
    for name, column in measures.items():
        expected = {query: row[column] for query, row in theirs.items()}
        if name == "mrr@10":
            expected = {query: value if value >= 0.1 else 0.0 for query, value in expected.items()}
        assert ours[name] == pytest.approx(expected, abs=1e-12)
