"""Tab-separated tables, STS pairs and BEIR judgements."""

import pytest

from retrieval.corpus.labelled import read_sts, read_table
from retrieval.corpus.qrels import Judgement, find_beir, read_qrels
from retrieval.errors import RecordError, SourceNotFoundError, UsageError


@pytest.fixture
def write(tmp_path):
    def lines(*rows, name="t.tsv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join("\t".join(row) + "\n" for row in rows))
        return path

    return lines


def test_columns_are_found_by_name_and_a_quote_is_text(write):
    path = write(("id", "text", "label"), ("1", '"a', "x"), ("2", "b", "y"))
    table = read_table(path, ("label", "text"), lambda row: "")
    assert table.rows == [("x", '"a'), ("y", "b")]
    assert table.lines == [2, 3]
    assert table.notes == ()


@pytest.mark.parametrize(("skip_bad", "mentioned"), [(None, False), (False, True)])
def test_only_who_has_the_flag_is_told_of_it(write, skip_bad, mentioned):
    path = write(("text",), ("a", "b"))
    with pytest.raises(RecordError, match=r"t\.tsv:2: the row has 2 columns; expected 1") as caught:
        read_table(path, ("text",), lambda row: "", skip_bad=skip_bad)
    assert ("--skip-bad" in str(caught.value)) is mentioned


def test_bad_rows_are_left_out_and_noted_or_none_is_left(write):
    path = write(("text",), ("a",), ("b",), ("a",))
    check = {"a": "a is bad", "b": ""}
    table = read_table(path, ("text",), lambda row: check[row[0]], skip_bad=True)
    assert table.rows == [("b",)]
    assert table.notes == ("2 bad rows were left out of t.tsv; the first: line 2: a is bad.",)
    with pytest.raises(UsageError, match="no row is left; expected one or more"):
        read_table(path, ("text",), lambda row: "bad", skip_bad=True)


def test_sts_pairs_have_finite_scores(write):
    header = ("sentence1", "sentence2", "score")
    pairs = read_sts(write(header, ("a", "b", "1.5"), ("c", "d", "-2")))
    assert (pairs.first, pairs.second, pairs.scores) == (("a", "c"), ("b", "d"), [1.5, -2.0])
    for score in ("nan", "inf", "many"):
        with pytest.raises(RecordError, match=f"the score is '{score}'; expected a number"):
            read_sts(write(header, ("a", "b", score)))


def test_judgements_keep_their_order_and_lines(write):
    rows = [("q1", "d1", "1"), ("q1", "d2", "0"), ("q2", "d1", "-1")]
    expected = [
        Judgement(query, document, int(score), line)
        for line, (query, document, score) in enumerate(rows, start=2)
    ]
    assert read_qrels(write(("query-id", "corpus-id", "score"), *rows)).judgements == expected
    assert [each.line for each in read_qrels(write(*rows)).judgements] == [1, 2, 3]  # no header
    with pytest.raises(RecordError, match="have another score further up"):
        read_qrels(write(*rows, ("q1", "d1", "2")))


@pytest.mark.parametrize(
    "header",
    [
        ("query-id", "corpus-id", "score"),
        ("Query_ID", "doc id", "Relevance"),
        ("qid", "docno", "rel"),
    ],
)
def test_a_header_of_judgements_is_known_by_its_names(write, header):
    [judgement] = read_qrels(write(header, ("q1", "d1", "2"))).judgements
    assert (judgement.query_id, judgement.doc_id, judgement.score) == ("q1", "d1", 2)


def test_named_columns_of_judgements_may_stand_in_any_order_among_others(write):
    header = ("rel", "assessor", "corpus-id", "query-id")
    [judgement] = read_qrels(write(header, ("2", "me", "d1", "q1"))).judgements
    assert judgement == Judgement("q1", "d1", 2, 2)


@pytest.mark.parametrize(
    "text",
    [
        "q1 0 d1 2\nq 0 d2 0\n",
        "q1\t0\td1\t2\nq\t0\td2\t0\n",
        "q1 d1 2\nq d2 0\n",
        "qid docno rel\nq1 d1 2\nq d2 0\n",
    ],
)
def test_judgements_may_be_trecs_or_separated_by_blanks(tmp_path, text):
    path = tmp_path / "qrels.txt"
    path.write_text(text)
    found = [(one.query_id, one.doc_id, one.score) for one in read_qrels(path).judgements]
    assert found == [("q1", "d1", 2), ("q", "d2", 0)]
    path.write_text(text + "q3 0\n")
    with pytest.raises(RecordError, match="the row has"):
        read_qrels(path)


@pytest.mark.parametrize("header", [("a", "b", "c"), ("frage", "antwort", "score")])
@pytest.mark.parametrize("skip_bad", [None, True])
def test_a_header_of_judgements_that_is_not_known_is_refused(write, header, skip_bad):
    with pytest.raises(RecordError, match=r"t\.tsv:1: the first line is .*no header that is known"):
        read_qrels(write(header, ("q1", "d1", "2")), skip_bad=skip_bad)


def test_columns_are_found_in_any_case_and_none_twice(write):
    table = read_table(write(("Label", "TEXT"), ("x", "a")), ("label", "text"), lambda row: "")
    assert table.rows == [("x", "a")]
    with pytest.raises(RecordError, match=r"t\.tsv:1: the header has two columns 'text'"):
        read_table(write(("text", "Text"), ("x", "a")), ("text",), lambda row: "")


def test_a_missing_split_is_named_with_those_there_are(write, tmp_path):
    for stem in ("corpus", "queries"):
        (tmp_path / f"{stem}.jsonl").touch()
    path = write(("q", "d", "1"), name="qrels/dev.tsv")
    found = find_beir(tmp_path, "dev")
    assert (found.corpus, found.qrels) == (tmp_path / "corpus.jsonl", path)
    with pytest.raises(SourceNotFoundError, match=r"of this folder are: dev\. Try --split\.$"):
        find_beir(tmp_path, "test", " Try --split.")
