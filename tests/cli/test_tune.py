"""``millpond tune`` with the fake encoder: which arm is right is up to the test's judgements."""

import json
import re

import pytest

from indexes import Index, IndexConfig, read_manifest
from retrieval import Document
from retrieval.types import DEFAULT_WEIGHT
from tests.cli.conftest import WordEncoder


@pytest.fixture
def make_index(millpond, write_jsonl, tmp_path):
    """Twelve documents of two words each; the fake encoder counts words without their order."""

    def make():
        rows = [{"_id": f"d{n}", "text": f"word{n} filler{n % 3}"} for n in range(12)]
        result = millpond("index", write_jsonl("c.jsonl", *rows), "--out", tmp_path / "ix")
        assert result.exit_code == 0, result.stderr
        return tmp_path / "ix"

    return make


@pytest.fixture
def judge(write_jsonl, tmp_path):
    """Write queries and judgements: each query's text is given with its relevant document."""

    def write(*pairs):
        queries = write_jsonl(
            "q.jsonl", *({"_id": f"q{n}", "text": t} for n, (t, _) in enumerate(pairs))
        )
        rows = [f"q{n}\t{doc}\t1" for n, (_, doc) in enumerate(pairs)]
        qrels = tmp_path / "qrels.tsv"
        qrels.write_text("query-id\tcorpus-id\tscore\n" + "\n".join(rows) + "\n")
        return ("--queries", queries, "--qrels", qrels)

    return write


def test_the_best_weight_is_kept_where_it_helps_and_searches_use_it(
    millpond, make_index, judge, monkeypatch
):
    """The dense arm alone is right: what is judged relevant shares no word with the query."""
    folder = make_index()
    # The fake model is made to see "likeN" where a document says "wordN"; no word is shared but the
    # filler, which is in four documents.
    plain = WordEncoder.encode_queries

    def encode(self, texts, **options):
        return plain(self, [re.sub(r"like(\d+).*", r"word\1", text) for text in texts], **options)

    monkeypatch.setattr(WordEncoder, "encode_queries", encode)
    asked = judge(*((f"like{n} filler{(n + 1) % 3}", f"d{n}") for n in range(12)))
    result = millpond("tune", folder, *asked, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["kept"] is True
    assert found["held_out"] > found["default"]
    assert found["curve"]["0"] < found["curve"]["1"]
    assert read_manifest(folder).weight == found["weight"] > DEFAULT_WEIGHT
    hit = json.loads(millpond("search", folder, "like5 filler0", "-k", 1, "--json").stdout)
    assert hit["doc_id"] == "d5"
    shown = millpond("tune", folder, "--forget")
    assert f"it was {found['weight']:g}" in shown.stderr
    assert read_manifest(folder).weight is None
    Index.open(folder, checksums=True)


def test_where_the_default_is_best_nothing_is_kept(millpond, make_index, judge):
    folder = make_index()
    asked = judge(*((f"word{n} filler{n % 3}", f"d{n}") for n in range(12)))
    result = millpond("tune", folder, *asked)
    assert result.exit_code == 0, result.stderr
    assert "nothing was kept" in result.stderr
    assert re.search(rf"{DEFAULT_WEIGHT:.2f} +1.0000 +default, best", result.stdout)
    assert read_manifest(folder).weight is None


@pytest.mark.parametrize("missing", [("--queries",), ("--qrels",), ("--queries", "--qrels")])
def test_without_judgements_it_says_so_and_leaves_the_default(missing, millpond, make_index, judge):
    folder = make_index()
    asked = judge(("word1", "d1"), ("word2", "d2"))
    kept = [
        part
        for name, value in zip(asked[::2], asked[1::2], strict=True)
        if name not in missing
        for part in (name, value)
    ]
    result = millpond("tune", folder, *kept)
    assert result.exit_code == 2
    assert f"stays the default, {DEFAULT_WEIGHT:g}" in result.stderr
    assert read_manifest(folder).weight is None


def test_judgements_of_no_document_at_all_are_refused(millpond, make_index, write_jsonl, tmp_path):
    folder = make_index()
    queries = write_jsonl("q.jsonl", {"_id": "q1", "text": "word1"}, {"_id": "q2", "text": "x"})
    qrels = tmp_path / "qrels.tsv"
    qrels.write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t0\nq9\td2\t1\n")
    result = millpond("tune", folder, "--queries", queries, "--qrels", qrels)
    assert result.exit_code == 2
    assert "1 of 3 judged queries is not in" in result.stderr
    assert "1 of 2 queries has a document judged above 0" in result.stderr


def test_an_index_of_one_arm_is_told_how_to_get_the_other(millpond, tmp_path, judge, loaded):
    folder = tmp_path / "one"
    documents = [Document("d1", "word1"), Document("d2", "word2")]
    Index.create(folder, WordEncoder("fake"), documents, IndexConfig(arms=("dense",)))
    loaded.clear()
    result = millpond("tune", folder, *judge(("word1", "d1"), ("word2", "d2")))
    assert result.exit_code == 2
    assert "--arms dense,lexical" in result.stderr
    assert loaded == []


def test_judged_documents_that_the_index_lacks_are_told(millpond, make_index, judge):
    folder = make_index()
    some = millpond("tune", folder, *judge(("word1", "d1"), ("word2", "typo")), "--dry-run")
    assert some.exit_code == 0, some.stderr
    told = f"Warning: 1 of 2 judged documents is not in {folder}, such as 'typo'."
    assert told in some.stderr
    none = millpond("tune", folder, *judge(("word1", "1"), ("word2", "2")), "--dry-run")
    assert none.exit_code == 2
    assert f"is in {folder}, such as '1'. Name the judgements of this corpus" in none.stderr
