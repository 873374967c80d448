"""``millpond bench``: the command line over a tiny real model, and over stand-ins."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from cli.app import MillpondGroup
from cli.commands.bench import bench as command
from cli.commands.bench import layout_scores
from tests.benchmarks import fakes
from tests.embedder import stand_ins

for module in ("sklearn", "scipy", "faiss"):
    pytest.importorskip(module, reason="the bench extra is not installed")


@pytest.fixture
def data(tmp_path):
    return fakes.write_all(tmp_path / "data")


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """Run the command with stand-ins for models."""
    models = fakes.Models()
    run_benchmark = importlib.import_module("benchmarks.scoring.runner").run_benchmark
    monkeypatch.setattr(
        "benchmarks.scoring.runner.run_benchmark",
        lambda config, **settings: run_benchmark(config, **settings, load=models),
    )
    app = typer.Typer(cls=MillpondGroup)
    app.command()(command)
    app.command("other")(lambda: None)  # a single command would lose its name

    def run(*args):
        whole = ["bench", *map(str, args), "--out", str(tmp_path / "out")]
        return CliRunner().invoke(app, whole, prog_name="millpond")

    run.models = models
    return run


def test_the_table_has_tasks_as_rows_and_models_as_numbered_columns(bench, data, tmp_path):
    result = bench("--model", "bm25", "--model", "fake:mean+causal", "--task", data)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["task", "metric", "1", "2"]
    assert lines[1].split() == ["ponds", "ndcg@10", "1.000", "1.000"]
    assert lines[2].split()[:3] == ["wetness", "accuracy", "-"]
    assert lines[-2:] == [" 1  bm25", " 2  fake:mean+causal"]
    assert "Scoring fake:mean+causal on weather" in result.stderr
    assert result.stderr.splitlines()[-1] == f"Next: millpond compare {tmp_path / 'out'}"


def test_json_is_one_object_a_result(bench, data, tmp_path):
    result = bench("-m", "fake", "-t", data / "beir", "-t", data / "sts", "--json")
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [set(row) for row in rows] == [
        {"model", "task", "task_type", "main_score", "metrics", "path"}
    ] * 2
    assert [(row["task"], row["task_type"]) for row in rows] == [
        ("ponds", "retrieval"),
        ("pairs", "sts"),
    ]
    kept = json.loads(Path(rows[0]["path"]).read_text())
    assert kept["main_score"] == rows[0]["main_score"] == rows[0]["metrics"]["ndcg@10"]


def test_settings_reach_the_library(bench, data):
    args = ("-m", "fake", "-t", data / "beir", "--k", 3, "--factory", "HNSW8", "--json")
    [row] = [json.loads(line) for line in bench(*args).stdout.splitlines()]
    assert "ndcg@3" in row["metrics"]
    assert json.loads(Path(row["path"]).read_text())["settings"]["factory"] == "HNSW8"


def test_failures_are_listed_at_the_end_and_exit_with_1(bench, data):
    result = bench("-m", "nan", "-m", "good", "-t", data / "sts")
    assert result.exit_code == 1
    tail = result.stderr.splitlines()[-2:]
    assert tail[0].startswith("Error: 1 failure; the scores of everything else are in ")
    assert tail[1].strip().startswith("nan on pairs: Texts 0 to 5: row 0 holds NaN")
    assert result.stdout.splitlines()[1].split() == ["pairs", "spearman", "-", "1.000"]


def test_an_undefined_score_is_shown_and_explained(bench, tmp_path):
    path = fakes.write_tsv(
        tmp_path / "flat.tsv", "score\tsentence1\tsentence2", (1, "a b", "a c"), (1, "a", "b")
    )
    result = bench("-m", "one", "-m", "two", "-t", path)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1].split() == ["flat", "spearman", "undef.", "undef."]
    note = "Warning: flat: All gold scores are equal, so the correlation is undefined."
    assert result.stderr.count(note) == 1


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("-m", "a", "-t", "nowhere"), "nowhere: there is no such file or folder"),
        (("-m", "a", "-t", "beir:nothing"), "Unknown BEIR set 'nothing'"),
        (("-m", "a", "-m", "a", "-t", "."), "The model 'a' is named twice"),
        (("-m", "a", "-t", ".", "--k", "0"), "k is 0; it must be 1 or more"),
        (("-m", "a", "-t", ".", "--backend", "fais"), "Unknown index backend 'fais'"),
    ],
)
def test_bad_requests_are_one_line_and_exit_2(bench, args, problem):
    result = bench(*args)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert problem in result.stderr
    assert bench.models.loaded == []


def test_bad_data_are_one_line_and_exit_2(bench, data):
    qrels = data / "beir" / "ponds" / "qrels" / "test.tsv"
    qrels.write_text(qrels.read_text() + "gone\tb\t1\n")
    result = bench("-m", "a", "-t", data)
    assert result.exit_code == 2
    assert "query 'gone' (line 5)" in result.stderr
    assert bench("-m", "a", "-t", data, "--skip-bad").exit_code == 0


def test_twelve_tasks_and_nine_long_names_fit_80_columns():
    models = [f"{number}-" + "x" * 58 for number in range(9)]
    tasks = [(f"task-with-a-name-of-some-length-{number}", "v_measure") for number in range(12)]
    scores = {(model, task): 0.123456 for model in models for task, _ in tasks}
    scores[models[0], tasks[0][0]] = float("nan")
    del scores[models[1], tasks[0][0]]
    lines = list(layout_scores(models, tasks, scores, 80))
    assert max(map(len, lines)) <= 80
    blocks = [line for line in lines if line.startswith("task  ")]
    shown = [number for line in blocks for number in line.split()[2:]]
    assert shown == [str(number) for number in range(1, 10)]
    assert lines[1].split()[2:5] == ["undef.", "-", "0.123"]
    assert lines[-9:] == [f"{number + 1:>2}  {model}" for number, model in enumerate(models)]


SCRIPT = """
import sys
import typer
from cli.app import MillpondGroup
from cli.commands.bench import bench
app = typer.Typer(cls=MillpondGroup)
app.command()(bench)
app.command("other")(lambda: None)
try:
    app(["bench", *sys.argv[1:]], prog_name="millpond")
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


@pytest.mark.slow
def test_a_real_model_end_to_end_and_again_without_torch(data, tmp_path):
    stand_ins.write_model_folder(tmp_path / "base")
    args = ["-m", f"{tmp_path / 'base'}:mean+causal", "-m", "bm25", "-t", str(data)]
    args += ["-o", str(tmp_path / "out")]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}

    def run(*more):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, *args, *more],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr.splitlines()

    first, messages = run()
    assert messages[-1] == "True"  # torch was imported
    again, messages = run()
    assert again == first
    assert messages[-1] == "False"
    rows = [json.loads(line) for line in run("--json")[0].splitlines()]
    assert {row["task"] for row in rows} == {"ponds", "wetness", "weather", "pairs"}
    result = json.loads(Path(rows[0]["path"]).read_text())
    assert result["costs"]["parameters"] > 1000
    assert result["costs"]["pooling_flops"] > 0
    assert result["costs"]["tokens_per_second"] > 0
    (tmp_path / "base" / "added.json").write_text("{}")
    _, messages = run()
    assert messages[-1] == "True"  # the folder changed, so the model is looked at again
    assert not any(line.startswith("Scoring") for line in messages)
