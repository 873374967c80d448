import gzip
import json
from dataclasses import replace

import pytest

from benchmarks.exchange import export_results, import_results, write_card
from benchmarks.exchange.trec import format_run, read_run
from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.results import read_results
from benchmarks.scoring.runner import run_benchmark
from retrieval.errors import (
    RecordError,
    SourceNotFoundError,
    UnknownNameError,
    UsageError,
)
from retrieval.runs import RunIds
from tests.benchmarks import fakes


@pytest.fixture
def results(tmp_path):
    """A results folder of bm25 and one model on a retrieval and an STS task."""
    fakes.write_ponds(tmp_path / "ponds")
    fakes.write_pairs(tmp_path / "pairs.tsv")
    out = tmp_path / "results"
    tasks = [str(tmp_path / "ponds"), str(tmp_path / "pairs.tsv")]
    run_benchmark(BenchConfig(models=["bm25", "words"], tasks=tasks, out=out), load=fakes.Models())
    return out


def write_runs(folder, *lines, qrels=("q1 0 b 1", "q2 0 c 2")):
    """A task folder with a run and its qrels."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "one.run").write_text("\n".join(lines) + "\n")
    if qrels:
        (folder / "qrels.txt").write_text("\n".join(qrels) + "\n")
    return folder


def test_runs_and_qrels_go_out_and_come_back_with_the_same_scores_query_by_query(results, tmp_path):
    lines = []
    written = export_results(results, tmp_path / "runs", "trec", notify=lines.append)
    names = [path.relative_to(tmp_path / "runs").as_posix() for path in written]
    assert names == ["ponds/bm25.run", "ponds/qrels.txt", "ponds/words.run"]
    assert lines == ["Left out: words on pairs. Tasks of type sts have no run."]
    found = import_results(tmp_path / "runs", tmp_path / "back")
    own = {one.model: one for one in read_results(results) if one.task == "ponds"}
    assert [one.model for one in found.results] == ["bm25", "words"]
    for one in found.results:
        assert one.metrics == own[one.model].metrics
        assert one.items == own[one.model].items
        assert one.source["file"] == f"ponds/{one.model}.run"


def test_a_run_is_written_best_first_with_ranks_from_one():
    lines = list(format_run({"q": {"low": 0.25, "high": 0.5}}, "a model", RunIds()))
    assert lines == ["q Q0 high 1 0.5 a_model\n", "q Q0 low 2 0.25 a_model\n"]


def test_ids_with_blanks_are_written_as_in_a_url_in_run_and_qrels_alike(tmp_path):
    fakes.write_beir(
        tmp_path / "ponds", {"d 1": "grind corn"}, {"q 1": "grind corn"}, [("q 1", "d 1", 1)]
    )
    out, lines = tmp_path / "results", []
    run_benchmark(BenchConfig(models=["bm25"], tasks=[str(tmp_path / "ponds")], out=out))
    run, qrels = export_results(out, tmp_path / "runs", "trec", notify=lines.append)
    assert run.read_text().startswith("q%201 Q0 d%201 1 ")
    assert qrels.read_text() == "q%201 0 d%201 1\n"
    assert len(lines) == 1 and lines[0].endswith("the first is q%201.")
    [back] = import_results(tmp_path / "runs", tmp_path / "back").results
    assert back.main_score == 1


def test_unknown_and_missing_queries_are_counted_and_named(tmp_path):
    write_runs(tmp_path / "in" / "ponds", "q1 Q0 b 1 9 m", "q9 Q0 b 1 9 m")
    lines = []
    [found] = import_results(tmp_path / "in", tmp_path / "out", notify=lines.append).results
    assert found.items["ndcg@10"] == [1.0, 0.0]
    assert "1 query of the run without a relevant document" in lines[0] and "'q9'" in lines[0]
    assert lines[1].endswith("1 query of the qrels without a line in the run scored 0.")
    assert (found.task, found.model, found.main_score) == ("ponds", "m", 0.5)


@pytest.mark.parametrize(
    ("line", "qrels", "words"),
    [
        ("q9 Q0 b 1 9 m", ("q1 0 b 1",), "none of its 1 queries is in qrels.txt"),
        ("q1 b 9", ("q1 0 b 1",), "one.run:1: 3 columns; a run has 6"),
        ("q1 Q0 b 1 nan m", ("q1 0 b 1",), "'nan' is no finite number"),
        ("q1 Q0 b 1 9 m\nq1 Q0 b 2 8 m", ("q1 0 b 1",), "one.run:2: query 'q1' has the document"),
        ("q1 Q0 b 1 9 m", ("q1 0 b 1", "q1 0 c x"), "the score is 'x'; expected a whole"),
        ("q1 Q0 b 1 9 m", ("q1 b",), "the row has 1 column; expected 3"),
        ("q1 Q0 b 1 9 m", (), "0 qrels files beside it (none)"),
    ],
)
def test_a_bad_run_is_one_line_and_the_rest_goes_on(tmp_path, line, qrels, words):
    write_runs(tmp_path / "in" / "bad", line, qrels=qrels)
    write_runs(tmp_path / "in" / "good", "q1 Q0 b 1 9 m")
    lines = []
    found = import_results(tmp_path / "in", tmp_path / "out", notify=lines.append)
    assert [one.task for one in found.results] == ["good"]
    assert found.left_out == 1
    [said] = [one for one in lines if one.startswith("Not imported")]
    assert words in said


def test_a_byte_order_mark_is_no_part_of_a_query_and_huge_scores_are_scores(tmp_path):
    folder = write_runs(tmp_path / "in" / "ponds", "q1 Q0 a 2 1e38 m", "q1 Q0 b 1 1e39 m")
    run = folder / "one.run"
    run.write_bytes(b"\xef\xbb\xbf" + run.read_bytes())
    [found] = import_results(tmp_path / "in", tmp_path / "out").results
    assert found.items["ndcg@10"] == [1.0, 0.0]


def test_a_damaged_gz_and_an_empty_run_are_a_line_each(tmp_path):
    folder = write_runs(tmp_path / "in" / "ponds", "q1 Q0 b 1 9 m")
    packed = bytearray(gzip.compress(b"q1 Q0 b 1 9 m\n" * 9))
    packed[10] = 0xFF  # the header of the first block, of a kind that there is not
    (folder / "torn.run.gz").write_bytes(packed)
    (folder / "void.run").write_text("")
    lines = []
    assert import_results(tmp_path / "in", tmp_path / "out", notify=lines.append).left_out == 2
    said = [line for line in lines if line.startswith("Not imported")]
    assert "torn.run.gz: the gzip data" in said[0] and said[1].endswith("void.run: it is empty")


def test_beirs_json_names_neither_model_nor_task_so_the_path_does(tmp_path):
    scores = {"ndcg": {"NDCG@10": 0.5}, "map": {"MAP@10": 0.4}, "recall": {}, "precision": {}}
    for place in ("my-model/scifact.json", "orphan.json"):
        path = tmp_path / "in" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(scores))
    lines = []
    [found] = import_results(tmp_path / "in", tmp_path / "out", notify=lines.append).results
    assert (found.model, found.task, found.main_score) == ("my-model", "scifact", 0.5)
    assert found.metrics == {"ndcg@10": 0.5, "map@10": 0.4}
    assert len(lines) == 1 and "orphan.json: which model?" in lines[0]


def test_qrels_may_be_beirs_and_of_one_file_for_all_runs(tmp_path):
    write_runs(tmp_path / "in" / "ponds", "q1 Q0 b 1 9 m", qrels=())
    path = fakes.write_tsv(tmp_path / "test.tsv", "query-id\tcorpus-id\tscore", ("q1", "b", 1))
    [found] = import_results(tmp_path / "in", tmp_path / "out", qrels=path).results
    assert found.main_score == 1


def test_a_result_of_bench_is_never_replaced(results, tmp_path):
    folder = write_runs(tmp_path / "in" / "ponds", "q1 Q0 b 1 9 bm25")
    lines = []
    found = import_results(folder.parent, results, notify=lines.append)
    # Other judgements than the folder's own, so another task, of another name.
    [label] = {one.task for one in found.results}
    assert label.startswith("ponds@")
    assert any(line.startswith(f"{label}: another revision") for line in lines)
    assert {one.task for one in read_results(results)} == {"pairs", "ponds", label}


def test_csv_and_model_cards_hold_every_score(results, tmp_path):
    repocard = pytest.importorskip("huggingface_hub.repocard_data")
    yaml = pytest.importorskip("yaml")
    [table] = export_results(results, tmp_path / "csv", "csv")
    assert table.read_text().startswith("model,task,task_type,metric,score")
    cards = export_results(results, tmp_path / "cards", "model-index")
    assert [path.name for path in cards] == ["bm25.md", "words.md"]
    data = yaml.safe_load(cards[1].read_text().split("---")[1])
    _, rows = repocard.model_index_to_eval_results(data["model-index"])
    own = [one for one in read_results(results) if one.model == "words"]
    expected = {
        (one.task, name.replace("@", "_at_")): pytest.approx(100 * score, abs=1e-4)
        for one in own
        for name, score in one.metrics.items()
    }
    assert {(row.dataset_name, row.metric_type): row.metric_value for row in rows} == expected
    assert {row.task_type for row in rows} == {"Retrieval", "STS"}


def test_the_card_of_a_models_folder_gets_its_scores_and_keeps_the_others(tmp_path):
    repocard = pytest.importorskip("huggingface_hub.repocard")
    fakes.write_ponds(tmp_path / "ponds")
    model, out = tmp_path / "my-model", tmp_path / "results"
    model.mkdir()
    with pytest.raises(SourceNotFoundError, match="my-model holds no README.md"):
        write_card(out, model)
    (model / "README.md").write_text(
        "---\ntags:\n- millpond\nmodel-index:\n- name: mine\n  results:\n  - task:\n"
        "      type: STS\n    dataset:\n      type: dev\n      name: dev\n    metrics:\n"
        "    - type: cosine_spearman\n      value: 80.5\n---\n# My model\n"
    )
    config = BenchConfig(models=["other"], tasks=[str(tmp_path / "ponds")], out=out)
    run_benchmark(config, load=fakes.Models())
    with pytest.raises(UsageError, match="is of .*my-model; there are those of other"):
        write_card(out, model)
    run_benchmark(replace(config, models=[str(model)]), load=fakes.Models())
    for _ in range(2):  # the second time replaces the first
        assert write_card(out, model) == (model / "README.md", 1)
        card = repocard.ModelCard.load(model / "README.md")
        found = {(row.dataset_name, row.metric_type): row.metric_value
                 for row in card.data.eval_results}  # fmt: skip
        assert found["dev", "cosine_spearman"] == 80.5
        [own] = [one for one in read_results(out) if one.model == str(model)]
        assert found["ponds", "ndcg_at_10"] == pytest.approx(100 * own.main_score, abs=1e-4)
        assert len(found) == len(card.data.eval_results) == 6
    assert card.text.strip() == "# My model" and card.data.tags == ["millpond"]


def test_what_cannot_be_done_is_refused(results, tmp_path):
    with pytest.raises(UnknownNameError, match="format 'xml'"):
        export_results(results, tmp_path / "out", "xml")
    with pytest.raises(UnknownNameError, match="task 'nope'"):
        export_results(results, tmp_path / "out", "csv", names={"nope": "SciFact"})
    with pytest.raises(SourceNotFoundError, match="there is no such folder"):
        import_results(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceNotFoundError, match="holds no results. Expected mteb's"):
        import_results(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(RecordError, match="not UTF-8"):
        (tmp_path / "x.run").write_bytes(b"\xff\xfe q")
        read_run(tmp_path / "x.run")
