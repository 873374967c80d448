import json
import os
import shutil

import pytest
from sentence_transformers import CrossEncoder

from cli.console import clean
from cli.searching import CANDIDATES
from cli.searching import lay_out as _layout
from indexes import Index
from retrieval import Hit, retriever
from retrieval.runs import RunIds
from tests.embedder.models import rerankers


def test_prints_rank_score_id_title_and_text(millpond, index_folder):
    result = millpond("search", index_folder, "rivers water flows down hill", "-k", 1)
    assert result.exit_code == 0
    assert result.stdout == " 1  1.0000  a  Rivers\n    water flows down hill\n"


def test_the_model_is_the_one_that_made_the_index(millpond, index_folder, loaded):
    loaded.clear()
    millpond("search", index_folder, "water")
    assert loaded == ["fake"]


def test_json_prints_one_object_a_hit(millpond, index_folder):
    result = millpond("search", index_folder, "mills grind corn", "-k", 2, "--json")
    first, second = map(json.loads, result.stdout.splitlines())
    shared = ["rank", "doc_id", "score", "title", "text"]
    assert list(first) == [*shared, "metadata", "arms", "matched"]
    assert (first["rank"], first["doc_id"], first["metadata"]) == (1, "b", {"year": 1851})
    assert first["score"] == pytest.approx(1.0, abs=1e-6)
    assert list(second) == [*shared, "arms", "matched"]
    assert first["arms"]["dense"] == {"score": pytest.approx(1.0, abs=1e-6), "rank": 1}
    assert first["arms"]["lexical"]["rank"] == 1
    assert first["matched"] == ["mills", "grind", "corn"]
    assert second["arms"]["lexical"] == {"score": 0.0, "rank": None}


def test_ten_hits_for_a_text_and_a_hundred_for_queries(millpond, write_jsonl, tmp_path):
    path = write_jsonl("many.jsonl", *({"_id": f"d{n}", "text": "same"} for n in range(120)))
    queries = write_jsonl("queries.jsonl", {"_id": "q", "text": "same"})
    millpond("index", path, "--out", tmp_path / "index")
    hits = millpond("search", tmp_path / "index", "same", "--json").stdout.splitlines()
    run = millpond("search", tmp_path / "index", "--queries", queries, "--run", "-").stdout
    assert (len(hits), len(run.splitlines())) == (10, 100)


def test_writes_a_trec_run_that_keeps_scores_distinct(
    millpond, index_folder, write_jsonl, tmp_path
):
    queries = write_jsonl(
        "queries.jsonl", {"_id": "q1", "text": "mills"}, {"_id": "q2", "text": "still water"}
    )
    run = tmp_path / "out.trec"
    asked = ("--queries", queries, "--run", run, "-k", 2, "--mode", "dense")
    result = millpond("search", index_folder, *asked)
    assert (result.exit_code, result.stdout) == (0, "")
    rows = [line.split(" ") for line in run.read_text().splitlines()]
    assert [(row[0], row[1], row[3], row[5]) for row in rows] == [
        ("q1", "Q0", "1", "millpond"),
        ("q1", "Q0", "2", "millpond"),
        ("q2", "Q0", "1", "millpond"),
        ("q2", "Q0", "2", "millpond"),
    ]
    assert rows[0][2] == "b"
    assert float(rows[0][4]) == pytest.approx(3**-0.5, abs=1e-7)  # one word of three
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("kind", ["query", "document"])
def test_blanks_of_ids_in_a_run_are_written_as_in_a_url_and_told(
    kind, millpond, write_jsonl, tmp_path
):
    names = {"query": "q", "document": "a"} | {kind: "5% of it"}
    path = write_jsonl("c.jsonl", {"_id": names["document"], "text": "x"})
    queries = write_jsonl("q.jsonl", {"_id": names["query"], "text": "x"})
    millpond("index", path, "--out", tmp_path / "index")
    result = millpond("search", tmp_path / "index", "--queries", queries, "--run", "-")
    assert result.exit_code == 0, result.stderr
    row = result.stdout.split()
    assert len(row) == 6
    assert row[0 if kind == "query" else 2] == "5%25%20of%20it"
    assert "Warning: The columns of a TREC run" in result.stderr
    assert "5%25%20of%20it" in result.stderr


@pytest.mark.parametrize(
    "ids",
    [
        ["a b", "a%20b", "a%2520b"],
        ["a%2520b", "a%20b", "a b"],
        ["a\u3000b", "a%E3%80%80b", "a b"],
        ["50%", "50 %", "50%20%25"],
    ],
)
def test_ids_in_a_run_stay_apart_and_those_without_blanks_as_they_are(ids):
    write = RunIds()
    written = [write(one) for one in ids]
    assert [write(one) for one in ids] == written
    assert len(set(written)) == 3
    assert all(one.split() == [one] for one in written)
    assert write("x%20y") == "x%20y"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "neither was given"),
        (("--json",), "neither was given"),
        (("text", "--queries", "q.jsonl"), "both were given"),
        (("--queries", "q.jsonl"), "needs --run OUT"),
        (("text", "--run", "out"), "--run goes with --queries"),
        (("--queries", "q.jsonl", "--run", "out", "--json"), "both were given"),
        ((" ",), "is empty"),
        (("text", "-k", "0"), "-k"),
        (("text", "--weight", "1.5"), "between 0"),
        (("text", "--weight", "-0.1"), "between 0"),
        (("text", "--weight", "nan"), "between 0"),
        (("text", "--mode", "sparse"), "--mode"),
        (("text", "--fusion", "sum"), "--fusion"),
        (("text", "-k", "many"), "-k"),
    ],
)
def test_refuses_a_request_that_does_not_fit_together(args, words, millpond, index_folder):
    result = millpond("search", index_folder, *args)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_another_model_is_an_error_that_names_both(millpond, index_folder):
    result = millpond("search", index_folder, "water", "--model", "other")
    assert result.exit_code == 2
    assert "'fake'" in result.stderr
    assert "'other'" in result.stderr


def test_document_text_cannot_steer_the_terminal(millpond, write_jsonl, tmp_path):
    evil = {
        "_id": "a",
        "title": "t\x1b[2J",
        "text": "x \x1b]0;owned\x07 \x9b31m \u202egnol\u2069 \r\n y",
    }
    millpond("index", write_jsonl("evil.jsonl", evil), "--out", tmp_path / "index")
    shown = millpond("search", tmp_path / "index", "x").stdout
    assert shown.endswith("  t [2J\n    x ]0;owned 31m gnol y\n")
    assert clean(shown.replace("\n", "")) == shown.replace("\n", "").strip()


def test_a_terminal_gets_two_lines_of_text_within_its_width():
    hit = Hit(1, "doc", 0.5, "A title " * 20, "word " * 100)
    lines = list(_layout(hit, 80))
    assert len(lines) == 3
    assert max(map(len, lines)) <= 80
    assert lines[0].endswith("…")
    assert lines[2].endswith("…")


def test_wide_characters_count_as_two_columns():
    lines = list(_layout(Hit(1, "doc", 0.5, "", "水" * 100), 40))
    assert lines[1] == "    " + "水" * 18  # 40 columns less an indent of 4, two each


def test_a_pipe_gets_the_text_on_one_line():
    lines = list(_layout(Hit(1, "doc", 0.5, "A title " * 20, "word " * 100), None))
    assert len(lines) == 2
    assert lines[0].count("A title") == 20


def test_an_id_is_never_cut_on_a_terminal():
    assert next(iter(_layout(Hit(1, "d" * 90, 0.5, "title", ""), 80))).startswith(
        " 1  0.5000  " + "d" * 90
    )


def test_a_run_may_go_to_a_named_pipe(millpond, index_folder, write_jsonl, tmp_path):
    queries = write_jsonl("q.jsonl", {"_id": "q", "text": "water"})
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        millpond("search", index_folder, "--queries", queries, "--run", pipe, "-k", 1)
        assert os.read(reader, 100).startswith(b"q Q0 ")
    finally:
        os.close(reader)
    assert not pipe.is_file()


def test_the_index_is_only_read(millpond, index_folder):
    before = {path.name: path.stat().st_mtime_ns for path in index_folder.rglob("*")}
    millpond("search", index_folder, "water")
    assert {path.name: path.stat().st_mtime_ns for path in index_folder.rglob("*")} == before
    assert len(Index.open(index_folder)) == 3


@pytest.fixture
def light(monkeypatch, loaded):
    """Let every model be had without torch; holds the names that were asked for, and int8."""
    from embedder.loading import load_encoder  # the fake one of the fixture ``loaded``

    asked = []

    def load(model, *, is_int8):
        asked.append((model, "int8") if is_int8 else model)
        return load_encoder(model, None, "fast" if is_int8 else "exact")

    monkeypatch.setattr("embedder.light.load_light_encoder", load)
    return asked


@pytest.mark.parametrize("options", [(), ("--device", "cpu"), ("--speed", "exact")])
def test_one_text_is_embedded_without_torch_where_that_can_be(
    millpond, index_folder, light, options
):
    result = millpond("search", index_folder, "water flows", "-k", 1, *options)
    assert result.exit_code == 0, result.stderr
    assert light == ["fake"]


@pytest.mark.parametrize("options", [(), ("--speed", "fast")])
def test_an_index_of_int8_vectors_is_searched_without_torch_too(
    millpond, corpus, tmp_path, light, options
):
    """On any CPU: the numbers are rounded as those with VNNI round them."""
    made = millpond("index", corpus, "--out", tmp_path / "fast", "--speed", "fast")
    assert made.exit_code == 0
    result = millpond("search", tmp_path / "fast", "mills grind", "-k", 1, *options)
    assert result.exit_code == 0, result.stderr
    assert light == [("fake", "int8")]


def test_many_queries_a_device_and_int8_for_floats_take_the_whole_model(
    millpond, index_folder, light, write_jsonl
):
    queries = write_jsonl("queries.jsonl", {"_id": "q", "text": "same"})
    assert millpond("search", index_folder, "--queries", queries, "--run", "-").exit_code == 0
    assert millpond("search", index_folder, "water", "--device", "cuda").exit_code == 0
    assert millpond("search", index_folder, "water", "--speed", "fast").exit_code != 0
    assert light == []


def test_another_model_without_torch_is_refused_as_any_other(millpond, index_folder, light):
    result = millpond("search", index_folder, "water", "--model", "other")
    assert result.exit_code != 0
    assert light == ["other"]
    assert "'other'" in result.stderr


def test_neither_the_queries_nor_the_index_are_replaced_by_the_run(
    millpond, index_folder, write_jsonl, tmp_path
):
    queries = write_jsonl("q.jsonl", {"_id": "1", "text": "water"})
    (tmp_path / "link").symlink_to(queries)
    for run in (queries, tmp_path / "link", index_folder / "manifest.json"):
        before = run.read_bytes()
        result = millpond("search", index_folder, "--queries", queries, "--run", run)
        assert result.exit_code == 2
        assert f"{run}: this is the input. Name another file with --run." in result.stderr
        assert run.read_bytes() == before


@pytest.fixture
def reranker(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reranker")
    rerankers.write_bert(folder)
    return folder


def test_rerank_reads_the_hits_again_and_says_what_it_did_not_read(
    millpond, write_jsonl, tmp_path, reranker
):
    corpus = write_jsonl(
        "corpus.jsonl",
        {"_id": "long", "text": "the mill pond " * 20},
        {"_id": "short", "text": "the mill"},
        {"_id": "other", "text": "a pond"},
    )
    millpond("index", corpus, "--out", tmp_path / "index", "--whole")
    asked = ("search", tmp_path / "index", "mill pond", "--rerank", reranker, "--json")
    result = millpond(*asked)
    assert result.exit_code == 0, result.stderr
    hits = [json.loads(line) for line in result.stdout.splitlines()]
    expected = CrossEncoder(str(reranker), device="cpu").predict(
        [("mill pond", hit["text"]) for hit in hits]
    )
    assert [hit["score"] for hit in hits] == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
    assert sorted(hit["first_stage"]["rank"] for hit in hits) == [1, 2, 3]
    assert "read 1 candidate to token 24 and no further" in result.stderr
    assert len(millpond(*asked, "-k", 1, "--candidates", 2).stdout.splitlines()) == 1


def test_candidates_without_a_reranker_are_refused(millpond, index_folder):
    result = millpond("search", index_folder, "water", "--candidates", 5)
    assert result.exit_code == 2
    assert "--candidates goes with --rerank MODEL" in result.stderr


def test_the_default_of_candidates_is_the_librarys():
    assert CANDIDATES == retriever.CANDIDATES


def test_a_run_over_indexes_that_share_an_id_names_a_document_once(
    millpond, index_folder, write_jsonl, tmp_path
):
    other = shutil.copytree(index_folder, tmp_path / "copy")
    queries = write_jsonl("queries.jsonl", {"_id": "q", "text": "mills grind corn"})
    run = millpond("search", index_folder, other, "--queries", queries, "--run", "-").stdout
    rows = [line.split() for line in run.splitlines()]
    assert len({row[2] for row in rows}) == len(rows)
    assert [int(row[3]) for row in rows] == list(range(1, len(rows) + 1))
