import math

import pytest

from benchmarks.tasks import Task
from benchmarks.tasks.retrieval import load_retrieval, score_retrieval
from retrieval import Hit
from retrieval.errors import RecordError, SourceNotFoundError, UsageError
from tests.benchmarks import fakes


@pytest.fixture
def load(tmp_path):
    """Write three documents, two queries and the given judgements, and load them."""

    def run(*qrels, skip_bad=False, split="test"):
        documents = {"a": "water flows", "b": "mills grind", "c": "a pond"}
        folder = fakes.write_beir(tmp_path, documents, {"q1": "mill", "q2": "pond"}, qrels)
        return load_retrieval(Task("t", "retrieval", folder, split), skip_bad)

    return run


def hits(*doc_ids):
    return [
        Hit(rank, doc_id, 1 - rank / 100, f"title {doc_id}", f"text  of\n{doc_id}")
        for rank, doc_id in enumerate(doc_ids, start=1)
    ]


def test_scores_of_two_queries_are_averaged_and_kept_one_by_one(load):
    data = load(("q1", "b", 1), ("q2", "c", 2), ("q2", "a", 1))
    rankings = [(data.queries[0], hits("a", "b")), (data.queries[1], hits("c", "b", "a"))]
    scores, shown = score_retrieval(data, rankings, 10, 100)
    first = 1 / math.log2(3)  # the one relevant document at rank 2
    second = (2 + 1 / math.log2(4)) / (2 + 1 / math.log2(3))
    assert scores.item_ids == ["q1", "q2"]
    assert scores.items["ndcg@10"] == pytest.approx([first, second])
    assert scores.metrics["ndcg@10"] == pytest.approx((first + second) / 2)
    assert scores.metrics["map"] == pytest.approx((1 / 2 + (1 + 2 / 3) / 2) / 2)
    assert scores.main_metric == "ndcg@10"
    assert [(hit.doc_id, hit.relevance) for hit in shown[1].hits] == [("c", 2), ("b", 0), ("a", 1)]
    assert shown[1].hits[0].snippet == "text of c"


def test_ten_hits_are_kept_with_snippets_of_200_characters(load):
    data = load(("q1", "b", 1))
    long = [Hit(rank, f"d{rank}", 1 / rank, "", "word " * 100) for rank in range(1, 15)]
    _, [shown] = score_retrieval(data, [(data.queries[0], long)], 10, 100)
    assert len(shown.hits) == 10
    assert all(len(hit.snippet) <= 200 for hit in shown.hits)
    assert shown.hits[0].snippet.endswith("word…")


def test_hits_beyond_the_depth_do_not_count(load):
    data = load(("q1", "b", 1))
    scores, _ = score_retrieval(data, [(data.queries[0], hits("a", "c", "b"))], 1, 2)
    assert scores.metrics["recall@100"] == 0


def test_a_query_that_finds_itself_is_dropped_and_an_equal_id_alone_is_not(tmp_path):
    documents = {"1": "is a pond still", "2": "a pond is still"}
    fakes.write_beir(tmp_path, documents, {"1": "is a  pond still"}, [("1", "2", 1)])
    data = load_retrieval(Task("t", "retrieval", tmp_path), False)
    itself = Hit(1, "1", 0.9, "", "is a pond still")
    other = Hit(2, "2", 0.8, "", "a pond is still")
    scores, _ = score_retrieval(data, [(data.queries[0], [itself, other])], 10, 100)
    assert scores.metrics["mrr@10"] == 1
    assert scores.notes == ["1 query found itself among the documents, which does not count."]
    namesake = Hit(1, "1", 0.9, "", "another text")
    scores, _ = score_retrieval(data, [(data.queries[0], [namesake, other])], 10, 100)
    assert scores.metrics["mrr@10"] == pytest.approx(1 / 2)


def test_a_query_without_a_relevant_document_is_left_out_and_said_so(load):
    data = load(("q1", "b", 1), ("q2", "c", 0))
    assert [query.query_id for query in data.queries] == ["q1"]
    assert data.notes == ["1 judged query has no relevant document and had to be left out."]
    assert data.counts == {"documents": 3, "queries": 1, "judgements": 1}


def test_judged_queries_that_are_missing_are_counted_and_the_first_five_named(load):
    rows = [("q1", "b", 1), *((f"x{number}", "b", 1) for number in range(7))]
    with pytest.raises(RecordError) as caught:
        load(*rows)
    text = str(caught.value)
    assert "test.tsv:3: 7 rows name a query that does not exist: query 'x0' (line 3)" in text
    assert "query 'x4' (line 7), ..." in text
    assert "'x5'" not in text
    assert "--skip-bad" in text
    data = load(*rows, skip_bad=True)
    assert data.qrels == {"q1": {"b": 1}}
    assert data.notes[0].startswith("7 judgements were left out, of a query that does not exist: ")


def test_judged_documents_that_are_missing_count_as_not_found_and_are_noted(load):
    data = load(("q1", "b", 1), ("q1", "x", 2), ("q2", "y", 1), ("q2", "a", 0))
    assert data.qrels == {"q1": {"b": 1, "x": 2}, "q2": {"y": 1, "a": 0}}
    assert data.notes == [
        "2 judged documents are not in the corpus and count as not found: 'x' (line 3), "
        "'y' (line 4)."
    ]
    assert load(("q1", "b", 1), ("q1", "x", 1)).notes == [
        "1 judged document is not in the corpus and counts as not found: 'x' (line 3)."
    ]


def test_the_scores_with_missing_documents_are_those_of_trec_eval(load):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    rows = [("q1", "b", 1), ("q1", "x", 2), ("q1", "c", 1), ("q2", "y", 1)]
    data = load(*rows)
    rankings = [(query, hits("a", "b", "c")) for query in data.queries]
    scores, _ = score_retrieval(data, rankings, 10, 100)
    qrels = {"q1": {"b": 1, "x": 2, "c": 1}, "q2": {"y": 1}}
    run = {query: {hit.doc_id: hit.score for hit in hits("a", "b", "c")} for query in qrels}
    measures = {"ndcg_cut_10", "map", "recall_100"}
    judged = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    for ours, theirs in (("ndcg@10", "ndcg_cut_10"), ("map", "map"), ("recall@100", "recall_100")):
        expected = [judged[query][theirs] for query in ("q1", "q2")]
        assert scores.items[ours] == pytest.approx(expected, abs=1e-6)
    # By hand: the ideal is 2, 1, 1; found is 1 at ranks 2 and 3; q2 finds nothing.
    found = 1 / math.log2(3) + 1 / math.log2(4)
    ideal = 2 + 1 / math.log2(3) + 1 / math.log2(4)
    assert scores.metrics["ndcg@10"] == pytest.approx(found / ideal / 2)


def test_judgements_of_another_corpus_are_refused(load):
    with pytest.raises(UsageError, match="none of the judged documents is in the corpus"):
        load(("q1", "x", 1), ("q2", "y", 1))


def test_a_negative_judgement_counts_as_zero(load):
    assert load(("q1", "b", 1), ("q1", "a", -1)).qrels == {"q1": {"b": 1, "a": 0}}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (("q1", "b", "one"), "test.tsv:3: the score is 'one'; expected a whole number"),
        (("q1", "b"), "test.tsv:3: the row has 2 columns; expected 3"),
        (("q1", "a", 2), "test.tsv:3: query 'q1' and document 'a' have another score further up"),
    ],
)
def test_a_bad_row_stops_with_its_line_and_is_skipped_when_asked(load, row, problem):
    with pytest.raises(RecordError) as caught:
        load(("q1", "a", 1), row)
    assert problem in str(caught.value)
    data = load(("q1", "a", 1), row, skip_bad=True)
    assert data.qrels == {"q1": {"a": 1}}
    assert data.notes[0].startswith("1 bad row was left out of test.tsv; the first: line 3: ")


def test_qrels_without_a_header_are_read_from_the_first_line(tmp_path):
    fakes.write_beir(tmp_path, {"a": "x"}, {"q": "x"}, [])
    (tmp_path / "qrels" / "test.tsv").write_text("q\ta\t1\n")
    assert load_retrieval(Task("t", "retrieval", tmp_path), False).qrels == {"q": {"a": 1}}


def test_data_that_cannot_be_scored_are_refused(load, tmp_path):
    with pytest.raises(UsageError, match="no query has a relevant document"):
        load(("q1", "b", 0))
    with pytest.raises(UsageError, match="no row is left"):
        load()
    with pytest.raises(SourceNotFoundError, match="the splits of this folder are: test"):
        load(("q1", "b", 1), split="dev")


def test_a_bad_document_stops_or_is_left_out_of_every_reading(load, tmp_path):
    load(("q1", "b", 1))
    with (tmp_path / "corpus.jsonl").open("a") as stream:
        stream.write("{nonsense\n")
    task = Task("t", "retrieval", tmp_path)
    with pytest.raises(RecordError, match=r"corpus.jsonl:4"):
        load_retrieval(task, False)
    data = load_retrieval(task, True)
    assert len(list(data.read_documents())) == data.documents == 3
    assert data.notes[0].startswith("1 bad document was left out; the first: ")
