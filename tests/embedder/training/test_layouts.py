"""Training pairs in the layouts of several tools, in every file format."""

import csv
import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedder.training.config import DataSource
from embedder.training.data import Pair, PairSource
from retrieval.errors import RecordError, UsageError

PASSAGE = {"docid": "7", "title": "Mill", "text": "It grinds."}
LAYOUTS = {
    "millpond": ({"query": "q", "positive": "p", "negatives": ["a", "b"]}, ["p"]),
    "triplet": ({"anchor": "q", "positive": "p", "negative": "a"}, ["p"]),
    "numbered": ({"anchor": "q", "positive": "p", "negative_2": "b", "negative_1": "a"}, ["p"]),
    "flag": ({"query": "q", "pos": ["p", "p2"], "neg": ["a", "b"]}, ["p", "p2"]),
    "answer": ({"question": "q", "answer": "p"}, ["p"]),
    "tevatron": (
        {
            "query_id": "1",
            "query": "q",
            "positive_passages": [PASSAGE],
            "negative_passages": [{"docid": "8", "text": "a"}, {"title": "b", "text": "b"}],
        },
        ["Mill It grinds."],
    ),
}
NEGATIVES = {"triplet": ("a",), "answer": (), "tevatron": ("a", "b b")}


def read(path, **options):
    return PairSource(DataSource(path=path), **options)


def write_table(path, delimiter, rows):
    """Write dictionaries as a table whose lists are JSON, as its header's order has them."""
    cells = [
        [json.dumps(value) if isinstance(value, list) else value for value in row.values()]
        for row in rows
    ]
    if delimiter == "\t":
        path.write_text("".join("\t".join(row) + "\n" for row in [list(rows[0]), *cells]))
        return
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([list(rows[0]), *cells])


@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "jsonl.gz", "parquet", "csv", "tsv"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_read_from_every_format(tmp_path, layout, ending):
    row, positives = LAYOUTS[layout]
    path = tmp_path / f"pairs.{ending}"
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    elif ending in ("csv", "tsv"):
        write_table(path, "," if ending == "csv" else "\t", [row])
    else:
        with (gzip.open if ending.endswith("gz") else open)(path, "wt") as stream:
            stream.write(json.dumps(row) + "\n")
    source = read(path)
    negatives = NEGATIVES.get(layout, ("a", "b"))
    assert source[:] == [Pair("q", positive, negatives) for positive in positives]
    assert source.notes == ()


def test_a_cell_of_a_table_is_text_whatever_it_looks_like(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text('query,positive,negative\n007,1e3,\n"a, b","two\nlines",[sic\n')
    with pytest.raises(RecordError, match=r"pairs\.csv:3: 'negative' looks like a list and is no"):
        read(path)
    path.write_text('query,positive,negative\n007,1e3,\n"a, b","two\nlines",null\n')
    assert read(path)[:] == [Pair("007", "1e3"), Pair("a, b", "two\nlines", ("null",))]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"anchor": "q"}, "the pair has no 'positive'; it has 'anchor'. Expected one of positive,"),
        ({"query": "q", "pos": []}, "'pos' is an empty list"),
        ({"query": "q", "pos": ["p", 3]}, r"'pos\[1\]' is an integer"),
        ({"query": "q", "pos": ["p", "p2"], "neg": ["p2 "]}, "negative 1 equals the positive"),
        ({"query": "q", "positive": "p", "neg": ["a"], "negative": "b"}, "are both given"),
        ({"anchor": "q", "positive": "p", "negative": "a", "negative_1": "b"}, "are both given"),
        (
            {"query": "q", "positive_passages": [{"docid": "7"}]},
            r"'positive_passages\[0\]' is an object of 'docid'; expected one with a string 'text'",
        ),
    ],
)
def test_a_record_of_no_layout_is_named_with_what_is_missing(tmp_path, row, message):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(RecordError, match=message):
        read(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("topic,positive\nq,p\n", "the columns query and positive are needed"),
        ("what is it,a mill\n", "the columns query and positive are needed"),
        ("query,positive,query\nq,p,q\n", "two columns are called"),
        ("query,positive\nq\n", r"pairs\.csv:2: the row has 1 column; expected 2"),
    ],
)
def test_a_table_names_its_columns_once(tmp_path, text, message):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with pytest.raises(RecordError, match=message):
        read(path)


def test_fields_that_have_no_effect_are_named_but_not_ids(tmp_path):
    path = tmp_path / "pairs.jsonl"
    row = {"query": "q", "pos": ["p"], "neg": [], "prompt": "x", "pos_scores": [1], "pos_id": [3]}
    path.write_text(json.dumps(row) + "\n")
    [note] = read(path).notes
    assert note == f"{path}: the fields 'prompt', 'pos_scores' have no effect on training."


def test_bad_records_are_left_out_when_asked_and_counted(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"query": "q", "positive": "p"}, {"query": "q", "positive": " "}, {"query": "x"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(RecordError, match=r"'positive' is empty; expected text$"):
        read(path)
    with pytest.raises(RecordError, match=r":2: 'positive' is empty.*or pass --skip-bad"):
        read(path, skip_bad=False)
    source = read(path, skip_bad=True)
    assert (source[:], source.skipped) == ([Pair("q", "p")], 2)
    assert source.notes[0].startswith(f"2 bad records were left out of {path}. The first: {path}:2")
    path.write_text(json.dumps(rows[1]) + "\n")
    with pytest.raises(UsageError, match=r"it holds no pair.* 1 bad record was left out"):
        read(path, skip_bad=True)


def test_judged_documents_that_are_empty_are_left_out_when_asked(tmp_path):
    (tmp_path / "qrels").mkdir()
    documents = [("d1", "one"), ("d2", ""), ("d3", "three")]
    lines = [json.dumps({"_id": name, "text": text}) for name, text in documents]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    (tmp_path / "queries.jsonl").write_text('{"_id": "1", "text": "first?"}\n')
    judged = "1\td1\t1\n1\td2\t1\n1\td3\t0\n1\tgone\t0\n"
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    with pytest.raises(RecordError, match=r"train\.tsv:3: the document 'd2' is empty.*--skip-bad"):
        read(tmp_path, skip_bad=False)
    source = read(tmp_path, skip_bad=True)
    assert source[:] == [Pair("first?", "one", ("three",))]
    assert source.notes[0].startswith(f"2 bad records were left out of {tmp_path}. The first:")
