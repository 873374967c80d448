import pytest

from benchmarks.study.config import load_study
from benchmarks.study.plan import Plan, PlanRow
from cli.commands.study import _layout, _time, _tokens

PLAN = """
seeds = [0]
tasks = ["pairs.tsv"]
variants = [{ name = "model1" }, { name = "model5" }]
[[bases]]
base = "smollm2-135m"
[train]
steps = 3
batch_pairs = 2
[[train.data]]
path = "pairs.jsonl"
"""


@pytest.fixture
def plan(tmp_path, write_jsonl):
    write_jsonl("pairs.jsonl", *({"query": "q" * 38, "positive": "p" * 38} for i in range(3)))
    (tmp_path / "pairs.tsv").write_text(
        "score\tsentence1\tsentence2\n1\taaaaaaaa\tbbbbbbbb\n2\tcccccccc\tdddddddd\n"
    )
    path = tmp_path / "study.toml"
    path.write_text(PLAN)
    return path


def test_the_example_is_a_study_on_stdout(millpond, tmp_path):
    result = millpond("study", "--example")
    assert result.exit_code == 0
    assert result.stderr == ""
    (tmp_path / "study.toml").write_text(result.stdout)
    assert load_study(tmp_path / "study.toml").bases[0].name == "Mistral-7B-v0.1"


def test_a_dry_run_without_calibration_loads_no_model(millpond, plan):
    """Four characters a token and 2 more: 2 x (38 / 4 + 2) = 23 tokens a pair, of 3 x 2 pairs.

    Four texts of 8 characters are 4 x (8 / 4 + 2) = 16 tokens.
    """
    result = millpond("study", plan, "--dry-run", "--no-calibrate")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert [line.split() for line in lines[1:4]] == [
        ["smollm2-135m", "model1", "1", "138", "16", "-"],
        ["smollm2-135m", "model5", "1", "138", "16", "-"],
        ["all", "2", "276", "32", "-"],
    ]
    assert "Each run embeds 4 texts to be scored. Disk at most: not known." in " ".join(lines)
    assert max(map(len, lines)) <= 80
    assert "Warning: Each variant is trained with 1 seed; 3 or more are needed" in result.stderr


def test_the_plan_fits_80_columns_and_adds_up():
    rows = [PlanRow("b" * 40, "v" * 60, 3, 12_345_678, 2_100, 5400.0, 0)] * 2
    lines = _layout(Plan(rows, 4, 2_500_000_000, True, 1_234))
    assert max(map(len, lines)) <= 80
    assert lines[3].split() == ["all", "6", "24.7M", "4.2k", "3.0", "h"]
    assert "4 runs are done" in lines[5]
    assert "2.5 GB" in " ".join(lines)


@pytest.mark.parametrize(("count", "shown"), [(999, "999"), (1500, "1.5k"), (2 * 10**9, "2.0G")])
def test_tokens_are_short(count, shown):
    assert _tokens(count) == shown


def test_times_are_in_hours_from_two_on():
    assert (_time(7199.0), _time(7200.0), _time(float("nan"))) == ("120 min", "2.0 h", "-")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "No config was given."),
        (["study.toml"], "No folder was given."),
        (["none.toml", "--dry-run"], "there is no such file"),
    ],
)
def test_what_is_missing_is_said(millpond, plan, monkeypatch, args, message):
    monkeypatch.chdir(plan.parent)
    result = millpond("study", *args)
    assert result.exit_code == 2
    assert message in result.stderr


def test_verdicts_go_to_stdout_and_failed_runs_are_exit_code_1(
    millpond, plan, tmp_path, monkeypatch
):
    from benchmarks.study.runner import StudyOutcome

    claim = {
        "number": 3,
        "word": "cannot tell",
        "text": "Layers beat.",
        "judgements": [{"word": "holds"}, {"word": "cannot tell"}, {"word": "holds"}],
    }
    asked = []

    def run(config, out, **rest):
        asked.append((config, out, rest["device"]))
        return StudyOutcome(["a"], {"tiny: model5, seed 0": "training: no memory"})

    monkeypatch.setattr("benchmarks.study.runner.run_study", run)
    monkeypatch.setattr(
        "benchmarks.study.markdown.write_study_report",
        lambda config, out: {"bases": [{"name": "tiny", "claims": [claim]}]},
    )
    result = millpond("study", plan, "--out", tmp_path / "out", "--device", "cpu")
    assert asked == [(load_study(plan), tmp_path / "out", "cpu")]
    assert result.stdout.splitlines() == [
        "tiny",
        "  3. cannot tell (2 holds, 1 cannot tell): Layers beat.",
    ]
    assert result.exit_code == 1
    assert "1 run failed; the same command tries it again" in result.stderr
    assert "tiny: model5, seed 0: training: no memory" in result.stderr
