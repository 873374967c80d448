"""``millpond compare`` on results that are made up here."""

import inspect
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks.scoring.results import Result, write_result
from benchmarks.significance.comparison import CompareConfig
from cli.app import MillpondGroup
from cli.commands.compare import _letter, compare
from retrieval import Fingerprint

LONG = "smollm2-135m:weighted_mean+bidirectional-trained-on-squad-v2"  # 60 characters
QUICK = ("--resamples", 999, "--bootstrap-resamples", 200)


def run(*args):
    app = typer.Typer(cls=MillpondGroup, rich_markup_mode=None)
    app.command()(compare)
    app.callback()(lambda: None)
    return CliRunner().invoke(app, ["compare", *map(str, args)], prog_name="millpond")


@pytest.fixture
def results(tmp_path):
    """Three models on two retrieval tasks and an STS task; "b" is far ahead of the other two."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "results"

    def write(model, task, task_type, metric, score, items, **changes):
        count = len(next(iter(items.values())))
        result = Result(
            model=model,
            task=task,
            task_type=task_type,
            main_metric=metric,
            metrics={metric: score},
            item_ids=[str(number) for number in range(count)],
            items={name: list(row) for name, row in items.items()},
            fingerprint=Fingerprint(model, {"name": model}),
            data={"sha256": task},
            settings={},
            run_digest="",
        )
        write_result(folder, result)

    for task, queries in (("scifact", 60), ("nq", 40)):
        base = generator.uniform(0.2, 0.5, queries)
        for model, lift in (("a", 0), ("b", 0.3), (LONG, 0)):
            scores = base + generator.normal(lift, 0.05, queries)
            write(model, task, "retrieval", "ndcg@10", float(scores.mean()), {"ndcg@10": scores})
    gold = generator.integers(0, 26, 80) / 5
    write("a", "stsb", "sts", "spearman", 0.9, {"cosine": gold, "gold": gold})
    write("b", "stsb", "sts", "spearman", math.nan, {"cosine": np.ones(80), "gold": gold})
    return folder


def test_prints_a_legend_tables_an_explanation_and_a_summary(results):
    shown = run(results, *QUICK)
    assert shown.exit_code == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert lines[:6] == [
        "Models",
        "  A  a",
        "  B  b",
        f"  C  {LONG}",
        "",
        "nq: ndcg@10, 40 queries",
    ]
    assert lines[6].split() == [
        *("scores", "difference", "95%", "interval", "effect", "p", "Holm", "p")
    ]
    pairs = [line.split()[0] for line in lines[7:10]]
    assert sorted(pairs[:2]) == ["A-B", "B-C"]  # the two large differences come first
    assert pairs[2] == "A-C"
    assert [line.endswith(" *") for line in lines[7:10]] == [True, True, False]
    assert "scifact: ndcg@10, 60 queries" in lines
    assert "retrieval, all tasks that both models have" in lines
    assert "  All pairs: 2 tasks: p cannot be below 0.5." in lines
    assert lines[-2:] == [
        "4 of 7 differences are significant at 0.05 after Holm; 1 could not be tested.",
        "Over whole task types: 0 of 3.",
    ]
    assert max(map(len, lines)) <= 80


def test_the_explanation_names_test_correction_and_level(results):
    shown = " ".join(run(results, *QUICK).stdout.split())
    assert "p, two-sided: Fisher's randomisation test with 999 random signs" in shown
    assert "Holm p: corrected for 6 tests; * is below 0.05." in shown
    other = run(results, *QUICK, "--test", "t", "--correction", "benjamini-hochberg")
    shown = " ".join(other.stdout.split())
    assert "p, two-sided: Student's t-test of pairs" in shown
    assert "BH p: corrected" in shown
    assert "after Benjamini-Hochberg" in shown


def test_an_undefined_score_is_a_dash_and_says_why(results):
    lines = run(results, *QUICK).stdout.splitlines()
    start = lines.index("stsb: spearman, 80 pairs of texts")
    assert lines[start + 2].split() == ["A-B", "0.9000", "-", "-", "-", "-", "-", "-", "-"]
    assert lines[start + 3] == "  A-B: a score is undefined, so there is no test."


def test_notes_go_to_stderr(results):
    shown = run(results, *QUICK)
    assert f"Warning: {LONG} has no result on stsb.\n" in shown.stderr
    assert "Warning:" not in shown.stdout


def test_a_baseline_is_the_second_of_every_pair(results):
    lines = run(results, *QUICK, "--baseline", "b").stdout.splitlines()
    pairs = {line.split()[0] for line in lines if line.startswith("  ") and "-" in line[:6]}
    assert {pair.rstrip(":,") for pair in pairs} == {"A-B", "C-B"}


def test_json_prints_one_object_a_line_and_null_for_nan(results):
    shown = run(results, *QUICK, "--json")
    rows = [json.loads(line, parse_constant=pytest.fail) for line in shown.stdout.splitlines()]
    assert [row["type"] for row in rows] == ["difference"] * 7 + ["task_type"] * 3
    first = rows[0]
    assert (first["task"], first["first"], first["second"]) == ("nq", "a", "b")
    assert first["significant"] is True
    assert first["low"] < first["difference"] < first["high"] < 0
    [undefined] = [row for row in rows if row["task" if "task" in row else "tasks"] == "stsb"]
    assert (undefined["p"], undefined["second_score"]) == (None, None)
    assert rows[-1]["tasks"] == ["nq", "scifact"]
    assert "4 of 7 differences are significant" in shown.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--alpha", 2), "alpha is 2; it must be between 0 and 1"),
        (("--test", "randomization"), "Did you mean 'randomisation'?"),
        (("--correction", "none"), "Accepted: holm, benjamini-hochberg."),
        (("--metric", "ndcg"), "Did you mean 'ndcg@10'?"),
        (("--baseline", "z"), "Unknown baseline 'z'."),
        (("--resamples", 1), "resamples is 1; it must be 100 or more."),
        (("--alpha", "x"), "--alpha"),
    ],
)
def test_a_bad_request_is_one_line_and_exit_2(args, words, results):
    shown = run(results, *args)
    assert (shown.exit_code, shown.stdout) == (2, "")
    assert words in shown.stderr
    assert len(shown.stderr.splitlines()) == 1


def test_a_folder_without_results_says_what_to_type(tmp_path):
    for folder, words in ((tmp_path, "holds no results"), (tmp_path / "no", "no such folder")):
        shown = run(folder)
        assert shown.exit_code == 2
        assert words in shown.stderr
        assert "millpond bench" in shown.stderr


def test_a_name_cannot_steer_the_terminal(results, tmp_path):
    for path in results.glob("*/nq.json"):
        data = json.loads(path.read_text())
        path.write_text(json.dumps(data | {"task": "n\x1b[2Jq", "model": data["model"] + "\x07"}))
    shown = run(results, *QUICK).stdout
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_letters_go_on_after_z():
    assert [_letter(number) for number in (0, 25, 26, 27, 51, 52, 701, 702)] == [
        *("A", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA")
    ]


def test_the_defaults_are_those_of_the_library():
    parameters = inspect.signature(compare).parameters
    for name, field in CompareConfig.__dataclass_fields__.items():
        assert parameters[name].default == field.default, name


def test_neither_torch_nor_scipy_is_imported(results):
    code = (
        "import sys; from pathlib import Path; from cli.commands.compare import compare; "
        f"compare(Path({str(results)!r}), resamples=999, bootstrap_resamples=200); "
        "assert {'torch', 'transformers', 'faiss', 'scipy'}.isdisjoint(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Models")
