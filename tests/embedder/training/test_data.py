import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedder.training import check_data
from embedder.training.data import Pair, hash_text
from retrieval.errors import RecordError, SourceNotFoundError, UsageError

GOOD = {"query": "q", "positive": "p"}


def sources(*paths):
    return {"data": [{"path": str(path)} for path in paths], "batch_pairs": 2}


def test_negatives_may_be_one_a_list_or_none(config, write_pairs):
    path = write_pairs(
        GOOD, GOOD | {"negative": "n"}, GOOD | {"negatives": ["a", "b"]}, GOOD | {"negatives": None}
    )
    data = check_data(config(**sources(path)))
    assert data.sources[0][:] == [
        Pair("q", "p"),
        Pair("q", "p", ("n",)),
        Pair("q", "p", ("a", "b")),
        Pair("q", "p"),
    ]
    [record] = data.record()
    assert (record["pairs"], record["negatives"]) == (4, 3)
    assert len(record["sha256"]["pairs.jsonl"]) == 64


def test_parquet_and_gzip_hold_pairs_too(config, tmp_path):
    rows = [GOOD | {"negatives": ["ä"]}, {"query": "q2", "positive": "p2", "negatives": []}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    with gzip.open(tmp_path / "pairs.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    expected = [Pair("q", "p", ("ä",)), Pair("q2", "p2")]
    for name in ("pairs.parquet", "pairs.jsonl.gz"):
        assert check_data(config(**sources(tmp_path / name))).sources[0][:] == expected


@pytest.fixture
def beir(tmp_path):
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    documents = [("d1", "T", "one"), ("d2", "", "two"), ("d3", "", "three")]
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": i, "title": t, "text": x}) + "\n" for i, t, x in documents)
    )
    (folder / "queries.jsonl").write_text('{"_id": "1", "text": "first?"}\n')
    (folder / "qrels" / "train.tsv").write_text(
        "query-id\tcorpus-id\tscore\n1\td1\t1\n1\td3\t2\n1\td2\t0\n"
    )
    return folder


def test_a_beir_folder_gives_a_pair_for_each_relevant_document(config, beir):
    data = check_data(config(**sources(beir)))
    assert data.sources[0][:] == [
        Pair("first?", "T one", ("two",)),
        Pair("first?", "three", ("two",)),
    ]
    assert set(data.sources[0].sha256) == {"corpus.jsonl", "queries.jsonl", "train.tsv"}


def test_a_beir_folder_is_checked_by_the_lines_of_its_qrels(config, beir):
    qrels = beir / "qrels" / "train.tsv"
    qrels.write_text("query-id\tcorpus-id\tscore\n1\td1\t1\n1\td9\t1\n")
    with pytest.raises(RecordError, match=r"train\.tsv:3: the document 'd9' does not exist"):
        check_data(config(**sources(beir)))
    qrels.write_text("query-id\tcorpus-id\tscore\n1\td1\tyes\n")
    with pytest.raises(RecordError, match=r"train\.tsv:2: .*expected a whole number"):
        check_data(config(**sources(beir)))
    qrels.rename(qrels.with_name("test.tsv"))
    with pytest.raises(SourceNotFoundError, match="the splits of this folder are: test"):
        check_data(config(**sources(beir)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "q"}, "the pair has no 'positive'; it has 'query'"),
        ({"query": "q", "positive": None}, "the pair has no 'positive'"),
        ({"positive": "p"}, "the pair has no 'query'"),
        ({"query": " \n", "positive": "p"}, "'query' is empty"),
        ({"query": "q", "positive": ""}, "'positive' is empty"),
        (GOOD | {"negatives": ["n", ""]}, r"'negatives\[1\]' is empty"),
        (GOOD | {"negatives": ["n", " p "]}, "negative 2 equals the positive: 'p'"),
        (GOOD | {"negative": "p"}, "negative 1 equals the positive: 'p'"),
        (GOOD | {"negative": "a", "negatives": ["b"]}, "both given"),
        (GOOD | {"negatives": 3}, "'negatives' is an integer"),
        ({"query": 3, "positive": "p"}, "'query' is an integer; expected a string"),
        ({"query": "q", "positive": "half \ud800"}, "half of a surrogate pair"),
        (b"{oops", "not valid JSON at column 2"),
        (b"[1]", "the line is a list"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_a_bad_record_is_named_by_file_and_line(config, write_pairs, row, message):
    path = write_pairs(GOOD, b"", row, GOOD)
    with pytest.raises(RecordError, match=message) as caught:
        check_data(config(**sources(path)))
    assert (caught.value.source, caught.value.line) == (str(path), 3)


def test_a_parquet_file_needs_its_columns(config, tmp_path):
    pq.write_table(pa.table({"topic": ["q"], "positive": ["p"]}), tmp_path / "a.parquet")
    with pytest.raises(RecordError, match="the columns query and positive are needed"):
        check_data(config(**sources(tmp_path / "a.parquet")))
    pq.write_table(pa.table({"query": ["q", "q"], "positive": ["p", ""]}), tmp_path / "b.parquet")
    with pytest.raises(RecordError, match=r"b\.parquet:2: 'positive' is empty"):
        check_data(config(**sources(tmp_path / "b.parquet")))


def test_a_batch_larger_than_the_data_is_refused(config, write_pairs):
    path = write_pairs(GOOD, GOOD, GOOD)
    with pytest.raises(UsageError, match="batch_pairs is 4, but the data holds 3 pairs"):
        check_data(config(**sources(path) | {"batch_pairs": 4}))
    other = write_pairs(GOOD, name="other.jsonl")
    with pytest.raises(UsageError, match=r"other\.jsonl holds 1 pair and loss\.one_source_per"):
        check_data(config(**sources(path, other), loss__one_source_per_batch=True))


def test_a_source_that_is_missing_empty_or_of_another_kind_is_named(config, write_pairs, tmp_path):
    with pytest.raises(SourceNotFoundError, match=r"none\.jsonl: there is no such file"):
        check_data(config(**sources(tmp_path / "none.jsonl")))
    with pytest.raises(UsageError, match="it holds no pair"):
        check_data(config(**sources(write_pairs())))
    with pytest.raises(UsageError, match=r"expected a \.jsonl"):
        check_data(config(**sources(write_pairs(name="pairs.txt"))))


def test_what_answers_a_query_is_known_across_sources(config, write_pairs):
    first = write_pairs(GOOD, {"query": "other", "positive": "x"})
    second = write_pairs({"query": " Q ", "positive": "p2"}, name="second.jsonl")
    data = check_data(config(**sources(first, second)))
    found = data.known.positives(hash_text("q"))
    assert set(found.tolist()) == {hash_text("p"), hash_text("p2")}
    assert data.known.positives(hash_text("never asked")).size == 0
