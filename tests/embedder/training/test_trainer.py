"""Whole runs on a tiny decoder: what they leave, and what they survive."""

import json
import random
import resource
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
import torch
from safetensors.torch import load_file, save_file

from embedder import Embedder
from embedder.training import checkpoint as checkpoint_module
from embedder.training import example_config, load_config, train
from retrieval.errors import MillpondError, ModelError, RecordError, StorageError, UsageError


def tensors(folder):
    found = {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }
    assert found
    return found


def assert_equal(first, second):
    one, other = tensors(first), tensors(second)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def entries(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def record_of(folder):
    return json.loads((folder / "millpond.json").read_text())["record"]


class StopError(Exception):
    """Ends a run from outside."""


def stop_after(step):
    def progress(report):
        if report.step == step:
            raise StopError

    return progress


def test_a_run_leaves_a_model_its_metrics_and_its_curve(config, tmp_path):
    run = config(optimiser__learning_rate=1e-2, steps=8)
    out = train(run, tmp_path / "out", device="cpu")
    assert not (out / "checkpoints").exists()
    assert {path.name for path in out.iterdir()} >= {"millpond.json", "README.md", "run.json"}
    assert str(tmp_path) not in json.dumps(record_of(out))  # nobody's concern but the trainer's
    assert not (out / ".model").exists()
    record = record_of(out)
    assert (record["steps"], record["seed"], record["data"][0]["pairs"]) == (8, 0, 12)
    assert record["libraries"]["torch"]
    assert record["training_seconds"] > 0
    before = Embedder.load(str(run.model.base) + ":mean+causal,max_tokens=48", device="cpu")
    after = Embedder.load(str(out), device="cpu")
    assert after.trained
    assert abs(before.encode_documents(["mill"]) - after.encode_documents(["mill"])).max() > 1e-3
    lines = entries(out)
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert set(lines[0]) == {
        "step",
        "loss",
        "lr",
        "grad_norm",
        "pairs_per_second",
        "tokens_per_second",
        "eta_seconds",
    }
    assert lines[-1]["eta_seconds"] == 0
    assert lines[-1]["loss"] < lines[0]["loss"]
    ElementTree.fromstring((out / "loss.svg").read_text())
    assert tensors(out)


def test_the_example_config_trains(base_folder, write_pairs, tmp_path):
    write_pairs(*[{"query": f"q {i}", "positive": f"p {i}"} for i in range(130)])
    path = tmp_path / "train.toml"
    text = example_config().replace('"smollm2-135m"', f'"{base_folder["llama"]}"')
    text = text.replace("base_layers = 12", "base_layers = 1")
    path.write_text(text.replace("max_tokens = 256", "max_tokens = 16"))
    out = train(load_config(path), tmp_path / "out", device="cpu")
    assert (out / "millpond.json").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient_cache": True},
        {"model__pooling": "multi_layer", "adapter__kind": "none"},
        {"adapter__kind": "full"},
        {"loss__one_source_per_batch": True, "gradient_checkpointing": True},
        {"dtype": "bfloat16"},
    ],
)
def test_a_stopped_run_goes_on_to_exactly_the_same_weights(config, tmp_path, changes):
    run = config(steps=5, **changes)
    whole = train(run, tmp_path / "whole", device="cpu")
    out = tmp_path / "stopped"
    for step in (1, 3, 5):  # before the first checkpoint, between two, after the last step
        with pytest.raises(StopError):
            train(run, out, device="cpu", resume=step > 1, progress=stop_after(step))
    train(run, out, device="cpu", resume=True)
    assert_equal(whole, out)
    assert [line["step"] for line in entries(out)] == [1, 2, 3, 4, 5]


RUNNER = """
import sys
from embedder.training import load_config, train
from benchmarks.lab.attack.common import Moments
config, out, step, moment = sys.argv[1:]
moments = Moments(int(moment), files_only=True)
def progress(report):
    if report.step == int(step):
        moments.watch()
train(load_config(config), out, device="cpu", progress=progress)
"""


@pytest.mark.slow
def test_a_run_killed_at_a_random_moment_reaches_the_unbroken_runs_weights(
    config, plan, tmp_path, seed
):
    changes = {"steps": 20, "adapter__dropout": 0.2, "model__pooling": "last_layer"}
    whole = train(config(**changes), tmp_path / "whole", device="cpu")
    toml = tmp_path / "train.toml"
    toml.write_text(to_toml(plan(**changes)))
    out = tmp_path / "killed"
    chance = random.Random(seed)
    # At one of the 60 calls that write the log and two checkpoints after one of the first steps.
    step, moment = chance.randint(1, 12), chance.randint(1, 60)
    command = [sys.executable, "-c", RUNNER, toml, out, str(step), str(moment)]
    assert subprocess.run(command).returncode == -signal.SIGKILL, f"step {step}, moment {moment}"
    train(config(**changes), out, device="cpu", resume=True)
    assert_equal(whole, out)
    assert [line["step"] for line in entries(out)] == list(range(1, 21))


def to_toml(data):
    """Write plain values, then tables; enough for a test's config."""
    lines = [f"{k} = {json.dumps(v)}" for k, v in data.items() if not isinstance(v, dict | list)]
    for key, value in data.items():
        if isinstance(value, dict):
            lines += [f"[{key}]", *(f"{k} = {json.dumps(v)}" for k, v in value.items())]
        elif isinstance(value, list):
            for table in value:
                lines += [f"[[{key}]]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
    return "\n".join(lines)


def test_ctrl_c_finishes_the_step_and_keeps_it(config, tmp_path):
    run = config(steps=6, checkpoint__every_steps=100)
    whole = train(run, tmp_path / "whole", device="cpu")
    lines = []

    def interrupt(report):
        if report.step == 3:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind "&"
    out = tmp_path / "stopped"
    try:
        with pytest.raises(KeyboardInterrupt):
            train(run, out, device="cpu", progress=interrupt, notify=lines.append)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert lines[-1] == "Stopped after step 3 of 6; --resume goes on from there."
    train(run, out, device="cpu", resume=True, notify=lines.append)
    assert "Going on from step 3 of 6." in lines
    assert_equal(whole, out)


def test_a_run_can_be_finished_early_with_its_last_checkpoint(config, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(StopError):
        train(config(steps=9), out, device="cpu", progress=stop_after(5))
    train(config(steps=9), out, device="cpu", finish=True)  # checkpoints stand at steps 2 and 4
    record = record_of(out)
    assert (record["steps"], record["planned_steps"], record["kept_step"]) == (4, 9, 4)
    assert not (out / "checkpoints").exists()
    assert Embedder.load(str(out), device="cpu").trained


def test_a_run_without_a_checkpoint_cannot_be_finished(config, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(StopError):
        train(config(steps=9), out, device="cpu", progress=stop_after(1))
    with pytest.raises(UsageError, match="holds no checkpoint yet"):
        train(config(steps=9), out, device="cpu", finish=True)


def test_training_goes_on_from_a_trained_model(config, tmp_path):
    lines = []
    first = train(config(steps=3), tmp_path / "first", device="cpu")
    again = config(steps=1, optimiser__learning_rate=1e-12, adapter__start=str(first))
    second = train(again, tmp_path / "second", device="cpu", notify=lines.append)
    assert f"Training goes on from {first}." in lines
    assert record_of(second)["start"]["record"] == record_of(first)
    assert ", trained for 3 steps |" in (second / "README.md").read_text()
    one, other = tensors(first), tensors(second)  # nothing moves at such a rate
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"adapter__rank": 3}, r"adapter.rank is 3, but .* was trained with 2"),
        ({"adapter__alpha": 5}, r"adapter.alpha is 5, but .* was trained with 4"),
        ({"model__pooling": "eos"}, r"pooling is 'mean' there and 'eos' here"),
        ({"model__base_layers": 1}, r"base_layers is None there and 1 here"),
        ({"adapter__kind": "full"}, r"holds LoRA weights. Set adapter.kind to \"lora\""),
    ],
)
def test_a_start_of_another_variant_is_refused(config, tmp_path, changes, message):
    first = train(config(steps=1), tmp_path / "first", device="cpu")
    run = config(steps=1, adapter__start=str(first), **changes)
    with pytest.raises(UsageError, match=message):
        train(run, tmp_path / "second", device="cpu")


def test_a_start_that_is_not_there_is_refused_before_a_folder_is_made(config, tmp_path):
    run = config(steps=1, adapter__start=str(tmp_path / "none"))
    with pytest.raises(MillpondError, match="none: there is no millpond.json"):
        train(run, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_run_from_before_an_option_existed_goes_on(config, tmp_path):
    out = tmp_path / "out"
    whole = train(config(steps=4), tmp_path / "whole", device="cpu")
    with pytest.raises(StopError):
        train(config(steps=4), out, device="cpu", progress=stop_after(3))
    run = json.loads((out / "run.json").read_text())
    del run["config"]["loss"]["symmetric"], run["config"]["adapter"]["start"]
    (out / "run.json").write_text(json.dumps(run))
    train(config(steps=4), out, device="cpu", resume=True)
    for name, tensor in tensors(whole).items():
        assert torch.equal(tensor, tensors(out)[name])
    run["config"]["loss"]["forgotten"] = 1
    (out / "run.json").write_text(json.dumps(run))
    with pytest.raises(UsageError, match="loss.forgotten was 1 and is None"):
        train(config(steps=4), out, device="cpu", resume=True)


def test_a_full_disk_leaves_the_last_good_checkpoint(config, tmp_path):
    run, out = config(steps=6), tmp_path / "out"
    whole = train(run, tmp_path / "whole", device="cpu")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(report):
        if report.step == 3:  # from here on no file may grow beyond 4 kB
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))

    try:
        with pytest.raises(StorageError, match=r"step-00000004: the checkpoint cannot be written"):
            train(run, out, device="cpu", progress=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in (out / "checkpoints").iterdir()] == ["step-00000002"]
    train(run, out, device="cpu", resume=True)
    assert_equal(whole, out)


def test_only_the_last_checkpoints_are_kept(config, tmp_path):
    run = config(steps=6, checkpoint__every_steps=1, checkpoint__keep=2)
    with pytest.raises(StopError):
        train(run, tmp_path / "out", device="cpu", progress=stop_after(5))
    names = sorted(path.name for path in (tmp_path / "out" / "checkpoints").iterdir())
    assert names == ["step-00000004", "step-00000005"]


def test_a_loss_that_is_not_finite_stops_with_its_step_and_batch(config, tmp_path, pairs_file):
    run = config(optimiser__learning_rate=1e30, optimiser__warmup_ratio=0.0, steps=6)
    with pytest.raises(ModelError, match=r"Step (\d): the (loss|gradient norm) is nan") as caught:
        train(run, tmp_path / "out", device="cpu")
    assert "nan-batch.jsonl" in str(caught.value)
    batch = (tmp_path / "out" / "nan-batch.jsonl").read_text().splitlines()
    assert len(batch) == 4
    known = {json.loads(line)["query"] for line in pairs_file.read_text().splitlines()}
    assert {json.loads(line)["query"] for line in batch} <= known


def test_data_is_checked_before_a_model_is_loaded(config, write_pairs, tmp_path):
    path = write_pairs({"query": "q", "positive": "p"}, {"query": "q"}, name="bad.jsonl")
    run = config(data=[{"path": str(path)}], batch_pairs=2, model__base="no-such-base")
    with pytest.raises(RecordError, match=r"bad\.jsonl:2"):
        train(run, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_resuming_with_another_config_or_data_names_what_changed(config, pairs_file, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(StopError):
        train(config(), out, device="cpu", progress=stop_after(3))
    with pytest.raises(UsageError, match=r"loss\.scale was 20\.0 and is 30\.0; seed was 0 and is"):
        train(config(loss__scale=30, seed=1), out, device="cpu", resume=True)
    with pytest.raises(UsageError, match=r"model\.pooling was 'mean' and is 'max'"):
        train(config(model__pooling="max"), out, device="cpu", resume=True)
    text = pairs_file.read_text()
    pairs_file.write_text(text.replace("not", "never"))
    with pytest.raises(UsageError, match=r"content of .*pairs\.jsonl .* has changed"):
        train(config(), out, device="cpu", resume=True)
    pairs_file.write_text(text)
    train(config(checkpoint__every_steps=3), out, device="cpu", resume=True)


def test_a_folder_that_holds_something_is_not_overwritten(config, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="the folder is not empty"):
        train(config(), tmp_path / "out", device="cpu")
    with pytest.raises(UsageError, match="holds no training run"):
        train(config(), tmp_path / "out", device="cpu", resume=True)


def test_resuming_a_finished_run_says_so_and_changes_nothing(config, tmp_path):
    out = train(config(), tmp_path / "out", device="cpu")
    before = tensors(out)
    said = []
    train(config(), out, device="cpu", resume=True, notify=said.append)
    assert said == [f"{out}: this run has finished already."]
    assert all(torch.equal(before[name], tensor) for name, tensor in tensors(out).items())


def test_a_base_that_changed_under_its_name_is_refused(config, base_folder, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    for path in base_folder["llama"].iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    run = config(model__base=str(base))
    with pytest.raises(StopError):
        train(run, tmp_path / "out", device="cpu", progress=stop_after(3))
    weights = load_file(base / "model.safetensors")
    save_file({n: t * 2 for n, t in weights.items()}, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="this was trained on other weights"):
        train(run, tmp_path / "out", device="cpu", resume=True)


def test_weights_of_another_spec_or_width_do_not_load(tmp_path):
    module = torch.nn.Linear(4, 2, bias=False)
    with pytest.raises(ModelError, match=r"'weight' has shape \(2, 3\), but \(2, 4\) is needed"):
        checkpoint_module.load_weights(module, {"weight": torch.ones(2, 3)}, tmp_path)
    with pytest.raises(ModelError, match="it holds 'latents', so it was made for another base"):
        checkpoint_module.load_weights(
            module, {"weight": torch.ones(2, 4), "latents": torch.ones(1)}, tmp_path
        )


def test_a_damaged_checkpoint_is_named(config, tmp_path):
    with pytest.raises(StopError):
        train(config(), tmp_path / "out", device="cpu", progress=stop_after(3))
    path = tmp_path / "out" / "checkpoints" / "step-00000002" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match=r"step-00000002: the checkpoint cannot be read"):
        train(config(), tmp_path / "out", device="cpu", resume=True)


def test_matryoshka_dimensions_beyond_the_vector_are_refused(config, tmp_path):
    with pytest.raises(UsageError, match="names 64, but the vectors have 32"):
        train(config(loss__matryoshka_dimensions=[16, 64]), tmp_path / "out", device="cpu")


@pytest.fixture
def dev(tmp_path):
    sts = tmp_path / "dev.tsv"
    sts.write_text(
        "score\tsentence1\tsentence2\n5\ta mill\ta mill\n3\ta pond\ta mill\n0\tx\tflour\n"
    )
    beir = tmp_path / "dev"
    (beir / "qrels").mkdir(parents=True)
    (beir / "corpus.jsonl").write_text(
        "".join(json.dumps({"_id": str(i), "text": f"text {i}"}) + "\n" for i in range(5))
    )
    (beir / "queries.jsonl").write_text('{"_id": "q", "text": "text 3"}\n')
    (beir / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq\t3\t1\n")
    return {"evaluate": {"sts": str(sts), "beir": str(beir), "every_steps": 2}}


def test_scores_on_held_out_data_are_logged_and_the_best_weights_kept(
    config, tmp_path, dev, monkeypatch
):
    run = config(steps=6, checkpoint__keep=1, **dev)
    out = train(run, tmp_path / "plain", device="cpu")
    scored = [line for line in entries(out) if "sts" in line]
    assert [line["step"] for line in scored] == [2, 4, 6]
    assert all(-1 <= line["sts"] <= 1 and line["ndcg"] == 1 for line in scored)

    order = iter([0.1, 0.9, 0.2])
    monkeypatch.setattr(
        "embedder.training.trainer.DevSets.score", lambda *_: {"sts": next(order), "ndcg": 0.5}
    )
    dev["evaluate"]["best"] = "sts"
    best = train(config(steps=6, checkpoint__keep=1, **dev), tmp_path / "best", device="cpu")
    with pytest.raises(StopError):
        order = iter([0.1, 0.9, 0.2])
        train(
            config(steps=6, checkpoint__keep=3, **dev),
            tmp_path / "at-four",
            device="cpu",
            progress=stop_after(4),
        )
    kept = load_file(tmp_path / "at-four" / "checkpoints" / "step-00000004" / "weights.safetensors")
    published = load_file(best / "adapter" / "adapter_model.safetensors")
    assert len(kept) == len(published)
    for name, tensor in published.items():
        inside = name.removeprefix("base_model.model.").replace(".weight", ".default.weight")
        assert torch.equal(tensor, kept[f"backbone.model.{inside}"])
    assert record_of(best)["scores"]["sts"] == 0.9
    assert record_of(best)["kept_step"] == 4
