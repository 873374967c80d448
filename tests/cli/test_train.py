import pytest

from cli.commands.train import step_reporter
from embedder.training import StepReport, load_config
from tests.embedder.tiny_decoders import write_base

PLAN = """
batch_pairs = 2
steps = 2
[[data]]
path = "pairs.jsonl"
[model]
base = "BASE"
pooling = "mean"
attention = "causal"
"""


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """Tiny bases of four and of two layers; gpt2's positions are a table."""
    folder = tmp_path_factory.mktemp("bases")
    return {name: write_base(folder / name, name) for name in ("llama", "gpt2")}


@pytest.fixture
def plan(tmp_path, write_jsonl, bases):
    write_jsonl("pairs.jsonl", *({"query": f"q {i}", "positive": f"p {i}"} for i in range(3)))
    path = tmp_path / "train.toml"
    path.write_text(PLAN.replace("BASE", str(bases["llama"])))
    return path


def test_the_example_is_a_config_on_stdout(millpond, tmp_path):
    result = millpond("train", "--example")
    assert result.exit_code == 0
    assert result.stderr == ""
    (tmp_path / "train.toml").write_text(result.stdout)
    assert load_config(tmp_path / "train.toml").batch_pairs == 64


def test_check_says_what_the_data_holds_and_reads_no_weights(millpond, plan, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.AutoModel.from_pretrained", None)
    result = millpond("train", plan, "--check")
    assert result.exit_code == 0, result.stderr
    assert f"{tmp_path / 'pairs.jsonl'}: 3 pairs, 0 negatives, weight 1" in result.stderr
    assert "all 3 pairs are good" in result.stderr


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('base = "no-such"', "Unknown model 'no-such'"),
        ("base_layers = 99", "base_layers is 99, but"),
        ("dimension = 33", "dimension is 33, but"),
        ('ending = "</s>"', "ending is '</s>', but the base's tokenizer has no such token"),
        ("chat_template = true", "asks for a chat template, but the base has none"),
        ("max_tokens = 6\nquery_prompt = 'a long prompt: '", "leaves none for the text"),
        ("pool_prompt = false", "model.pool_prompt is false"),
        ('pooling = "layer_mean"\npooling_options = { layers = [9] }', "layers is [9]"),
        ("pooling_options = { latents = 8 }", "Pooling 'mean' has no option latents"),
        ('[adapter]\ntargets = ["query"]', "LoRA targets ('query',) do not fit LlamaModel"),
        ('[adapter]\nstart = "./none"', "none: there is no millpond.json"),
        ('[adapter]\nstart = "millpond-135m"', "a model of another variant"),
        ("[loss]\nmatryoshka_dimensions = [64]", "names 64, but the vectors have 32"),
        ('[teacher]\nvectors = "none.parquet"', "none.parquet: there is no such file"),
        ('[teacher]\nmodel = "st:./none"', "none: there is no such folder"),
        ('[teacher]\nmodel = "millpnd-135m"', "Unknown model 'millpnd-135m'"),
    ],
)
def test_check_tells_what_the_base_lacks_as_the_run_does(millpond, plan, lines, message):
    key = lines.partition(" ")[0]
    kept = [line for line in plan.read_text().splitlines() if not line.startswith(f"{key} =")]
    plan.write_text("\n".join([*kept, lines]))
    for args in (("--check",), ("--out", plan.parent / "out")):
        result = millpond("train", plan, *args)
        assert result.exit_code > 0
        assert message in " ".join(result.stderr.split())
    assert not (plan.parent / "out").exists()


def test_positions_that_a_base_does_not_have_are_told_by_check(millpond, plan, bases):
    plan.write_text(PLAN.replace("BASE", str(bases["gpt2"])) + "max_tokens = 2048\n")
    result = millpond("train", plan, "--check")
    assert result.exit_code == 0, result.stderr
    assert "has 1024 positions, so texts are cut at 1024 tokens, not at 2048" in " ".join(
        result.stderr.split()
    )


def test_a_bad_pair_is_named_by_file_and_line(millpond, plan, write_jsonl):
    path = write_jsonl("pairs.jsonl", {"query": "q", "positive": "p"}, {"query": "q"})
    for args in (("--check",), ("--out", plan.parent / "out")):
        result = millpond("train", plan, *args)
        assert result.exit_code == 2
        assert f"Error: {path}:2: the pair has no 'positive'" in result.stderr
    assert not (plan.parent / "out").exists()


def test_bad_pairs_are_left_out_when_asked_and_counted(millpond, plan, write_jsonl):
    good = [{"query": f"q {i}", "positive": f"p {i}"} for i in range(2)]
    path = write_jsonl("pairs.jsonl", *good, {"query": "q", "positive": "", "prompt": "x"})
    result = millpond("train", plan, "--check")
    assert "Fix it, or pass --skip-bad" in result.stderr
    result = millpond("train", plan, "--check", "--skip-bad")
    assert result.exit_code == 0, result.stderr
    assert f"Warning: 1 bad record was left out of {path}. The first: {path}:3" in result.stderr
    assert f"{path}: 2 pairs, 0 negatives, weight 1" in result.stderr


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "No config was given."),
        (["train.toml"], "No model folder was given."),
        (["none.toml", "--check"], "there is no such file"),
    ],
)
def test_what_is_missing_is_said(millpond, plan, monkeypatch, args, message):
    monkeypatch.chdir(plan.parent)
    result = millpond("train", *args)
    assert result.exit_code == 2
    assert message in result.stderr


def test_an_unknown_key_is_named(millpond, plan):
    plan.write_text(plan.read_text() + "[loss]\nscal = 3\n")
    result = millpond("train", plan, "--check")
    assert result.exit_code == 2
    assert "Unknown config key 'loss.scal'. Did you mean 'loss.scale'?" in result.stderr


def test_training_passes_on_what_was_typed(millpond, plan, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "embedder.training.train", lambda config, out, **rest: asked.append((config, out, rest))
    )
    result = millpond(
        "train", plan, "--out", tmp_path / "out", "--resume", "--device", "cpu", "--skip-bad"
    )
    assert result.exit_code == 0, result.stderr
    [(config, out, rest)] = asked
    assert (config, out) == (load_config(plan), tmp_path / "out")
    assert (rest["resume"], rest["device"], rest["skip_bad"]) == (True, "cpu", True)
    assert f"Next: millpond index python-stdlib --model {tmp_path / 'out'}" in result.stderr


def test_a_line_comes_every_five_seconds_and_at_the_end():
    lines = []
    now = iter([0, 0, 4, 5, 5, 6, 6])
    report = step_reporter(lambda: next(now), lines.append)
    for step in (1, 2, 3, 4):
        report(StepReport(step, 4, 1 / step, 1e-5, 1.0, 31.25, 3100.4, 60.0))
    assert lines == [
        "Step 1 of 4: loss 1.0000, 31.2 pairs/s, 3,100 tokens/s, 60 s left",
        "Step 3 of 4: loss 0.3333, 31.2 pairs/s, 3,100 tokens/s, 60 s left",
        "Step 4 of 4: loss 0.2500, 31.2 pairs/s, 3,100 tokens/s, 60 s left",
    ]
