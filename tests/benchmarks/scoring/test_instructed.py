"""Benchmarks with instructions: queries of retrieval, and all texts of the other task types."""

import json

import pytest
from typer.testing import CliRunner

from benchmarks.lab.layouts import decoders, encoders
from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.results import read_results
from benchmarks.scoring.runner import run_benchmark
from benchmarks.tasks.instructions import Instructions
from cli.app import app
from retrieval.errors import UsageError
from tests.benchmarks import fakes

for module in ("sklearn", "scipy", "faiss"):
    pytest.importorskip(module, reason="the bench extra is not installed")

SAID = Instructions(
    {"retrieval": "find it", "sts": "compare"}, {"wetness": "classify", "weather": ""}
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    layout = decoders.LAYOUTS["qwen3-embedding"]
    decoder = decoders.write_layout(root / "qwen3", **layout)
    prompts = {"query": "Instruct: find\nQuery: "}
    encoder = encoders.write_layout("multilingual-e5", root / "e5", prompts=prompts)
    return str(decoder), str(encoder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fakes.write_all(tmp_path_factory.mktemp("tasks"))


def bench(models, tasks, out, instructions):
    lines = []
    config = BenchConfig(
        models=models, tasks=[str(tasks)], out=out, instructions=instructions, device="cpu"
    )
    return run_benchmark(config, notify=lines.append), lines


def by_task(results):
    return {result.task: result for result in results}


@pytest.mark.slow
def test_scores_are_those_of_the_same_query_prompt_typed(models, data, tmp_path):
    decoder, encoder = models
    for model, template in ((decoder, "Instruct: {}\nQuery:"), (encoder, "Instruct: {}\nQuery: ")):
        instructed, lines = bench([model], data, tmp_path / "out", SAID)
        assert {result.model for result in instructed} == {f"{model} with instructions"}
        assert sum(line.startswith("Loading") for line in lines) <= 1  # for all instructions
        own = by_task(bench([model], data, tmp_path / "own", None)[0])
        for result in instructed:
            said = {"ponds": "find it", "pairs": "compare", "wetness": "classify"}.get(result.task)
            assert result.settings.get("instruction") == said
            if said is None:  # weather: its own prompt
                same = own[result.task]
            else:
                prompt = json.dumps(template.format(said))
                name = f"{model},query_prompt={prompt}"
                folder = (
                    data
                    / {"ponds": "beir", "pairs": "sts", "wetness": "classification"}[result.task]
                )
                (same,) = bench([name], folder, tmp_path / "typed", None)[0]
                assert result.fingerprint.model == same.fingerprint.model
            assert result.fingerprint.digest == same.fingerprint.digest
            assert result.metrics == pytest.approx(same.metrics, abs=1e-6, nan_ok=True)


def test_a_second_run_computes_nothing_and_another_instruction_computes_again(
    models, data, tmp_path
):
    task = data / "sts"
    bench(models, task, tmp_path, SAID)
    assert not [x for x in bench(models, task, tmp_path, SAID)[1] if x.startswith("Scoring")]
    other = Instructions({"sts": "judge"})
    _, lines = bench(models, task, tmp_path, other)
    assert sum(line.startswith("Scoring") for line in lines) == 2
    bench([models[0]], task, tmp_path, None)  # beside those with instructions
    assert len(read_results(tmp_path)) == 3


def test_bm25_takes_none_and_a_model_without_a_template_is_refused(models, data, tmp_path):
    results, _ = bench([models[0], "bm25"], data / "beir", tmp_path / "out", SAID)
    assert [result.model for result in results] == [f"{models[0]} with instructions", "bm25"]
    assert "instruction" not in results[1].settings
    plain = encoders.write_layout("bge-small", tmp_path / "bge")
    with pytest.raises(UsageError, match="has no template for instructions"):
        bench([str(plain)], data / "beir", tmp_path / "other", SAID)
    with pytest.raises(UsageError, match="no instruction for the classification task"):
        bench([models[0]], data, tmp_path / "other", Instructions({"retrieval": "a"}))
    assert not (tmp_path / "other").exists()


def test_from_the_command_line(models, data, tmp_path):
    def run(*more):
        asked = ["bench", "-m", models[0], "-t", data / "sts", "-o", tmp_path / "out", *more]
        return CliRunner().invoke(app, [str(word) for word in asked])

    done = run("--instructions", "published", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["model"] == f"{models[0]} with instructions"
    assert "Retrieve semantically similar text.\\nQuery:" in done.stderr
    both = run("--instruction", "a", "--instructions", "published")
    assert both.exit_code == 2
    assert "Leave one out" in " ".join(both.stderr.split())
    table = run("--instruction", "compare")
    assert table.exit_code == 0, table.output
    assert "spearman" in table.stdout and "with instructions" in " ".join(table.stdout.split())
