import csv
import json

import pytest
import typer
from typer.testing import CliRunner

from benchmarks.scoring.results import QueryHits, Result, TopHit, write_result
from benchmarks.significance.comparison import CompareConfig
from cli.app import MillpondGroup
from cli.commands.report import report
from retrieval import Fingerprint

QUERIES = [f"q{number}" for number in range(12)]


def make_result(model, scores, task="scifact"):
    return Result(
        model=model,
        task=task,
        task_type="retrieval",
        main_metric="ndcg@10",
        metrics={"ndcg@10": sum(scores) / len(scores), "map": 0.5},
        item_ids=QUERIES,
        items={"ndcg@10": scores},
        fingerprint=Fingerprint(model, {"model": model}),
        data={"sha256": "0" * 64, "documents": 5183},
        settings={"k": 10},
        run_digest=f"{model}-{task}",
        costs={"parameters": 135_000_000},
        versions={"millpond": "0.1.0"},
        created="2026-11-21T08:00:00+00:00",
    )


@pytest.fixture
def results(tmp_path):
    """Two models on a task, of which the first is better on all 12 queries: p = 2 / 2**12."""
    folder = tmp_path / "results"
    hits = [QueryHits(one, f"query {one}", [TopHit("d", 1.0, 1, "T", "s")]) for one in QUERIES]
    high = [0.5 + number / 100 for number in range(12)]
    write_result(folder, make_result("good", high), hits)
    write_result(folder, make_result("poor", [score - 0.3 for score in high]), hits)
    return folder


@pytest.fixture
def millpond():
    """Run the command in an application of its own group, which turns errors into a line."""
    app = typer.Typer(cls=MillpondGroup)
    app.callback()(lambda: None)
    app.command()(report)

    def run(*args):
        return CliRunner().invoke(app, [str(arg) for arg in args], prog_name="millpond")

    return run


def test_a_page_is_written_and_a_line_says_so(millpond, results, tmp_path):
    out = tmp_path / "report.html"
    result = millpond("report", results, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith(f"Wrote {out} (")
    assert result.stderr.endswith("2 models, 1 task, 2 results\n")
    page = out.read_text(encoding="utf-8")
    data = page.partition('id="report-data">')[2].partition("</script>")[0]
    [pair] = json.loads(data)["task_types"][0]["tasks"][0]["pairs"]
    assert pair["significant"] is True
    assert pair["difference"] == 0.3


def test_markdown_gives_letters_that_differ(millpond, results, tmp_path):
    out = tmp_path / "report.md"
    assert millpond("report", results, "--out", out).exit_code == 0
    lines = out.read_text(encoding="utf-8").splitlines()
    assert "| `good` | **0.555** | **0.555** a |" in lines
    assert "| `poor` | 0.255 | 0.255 b |" in lines


def test_alpha_and_baseline_reach_the_comparison(millpond, results, tmp_path):
    out = tmp_path / "report.md"
    args = ("--alpha", "0.0001", "--baseline", "poor")
    assert millpond("report", results, "--out", out, *args).exit_code == 0
    text = out.read_text(encoding="utf-8")
    assert "None of 1 at 0.0001 after correction." in text  # 2 / 2**12 is 0.0005
    assert "than `poor`" in text


def test_csv_has_every_metric_and_needs_no_second_model(millpond, results, tmp_path):
    out = tmp_path / "REPORT.CSV"
    assert millpond("report", results, "--out", out).exit_code == 0
    with out.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["model"], row["metric"]) for row in rows] == [
        ("good", "ndcg@10"),
        ("good", "map"),
        ("poor", "ndcg@10"),
        ("poor", "map"),
    ]


def test_one_model_makes_a_page_and_a_note(millpond, tmp_path):
    folder = tmp_path / "results"
    write_result(folder, make_result("alone", [0.5] * 12))
    result = millpond("report", folder, "--out", tmp_path / "report.html")
    assert result.exit_code == 0, result.stderr
    assert "Warning: One model has results" in result.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--out", "report.pdf"), "which ends in '.pdf'; expected .html, .md, .csv"),
        (("--out", "report"), "which has no ending; expected .html, .md, .csv"),
        (("--out", "none/report.html"), "does not exist. Type: mkdir -p"),
        (("--out", "report.csv", "--alpha", "0.1"), "--alpha goes with .html and .md"),
        (("--out", "report.md", "--alpha", "2"), "must be between 0 and 1"),
        (("--out", "report.md", "--baseline", "god"), "Did you mean 'good'?"),
        (("--out", "report.md", "--metric", "recall"), "Unknown metric 'recall'"),
    ],
)
def test_what_cannot_be_is_one_line_and_exit_2(
    millpond, results, tmp_path, monkeypatch, args, said
):
    monkeypatch.chdir(tmp_path)
    result = millpond("report", results, *args)
    assert result.exit_code == 2, result.stderr
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


def test_a_folder_without_results_says_how_to_make_them(millpond, tmp_path):
    result = millpond("report", tmp_path, "--out", tmp_path / "report.html")
    assert result.exit_code == 2
    assert "millpond bench" in result.stderr
    result = millpond("report", tmp_path / "gone", "--out", tmp_path / "report.html")
    assert result.exit_code == 2
    assert "there is no such folder" in result.stderr


def test_the_defaults_that_help_shows_are_those_of_the_comparison(millpond):
    shown = " ".join(millpond("report", "--help").stdout.split())
    config = CompareConfig()
    for default in (config.alpha, config.test, config.correction):
        assert f"[default: ({default})]" in shown


def test_test_and_correction_reach_the_comparison(millpond, results, tmp_path):
    out = tmp_path / "report.md"
    args = ("--test", "wilcoxon", "--correction", "benjamini-hochberg")
    assert millpond("report", results, "--out", out, *args).exit_code == 0
    text = out.read_text(encoding="utf-8")
    assert "by a Wilcoxon signed-rank test" in text
    assert "by the method of Benjamini and Hochberg" in text
