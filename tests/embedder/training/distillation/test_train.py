"""Training under a teacher, from texts alone to a model."""

import json

import numpy as np
import pytest
import torch

from embedder import Embedder
from embedder.loading import load_encoder
from embedder.pooling import POOLINGS
from embedder.training import train
from embedder.training.config import read_config
from embedder.training.distillation.run import measure_agreement
from embedder.variants import ATTENTIONS
from indexes import Index
from retrieval import Document, check_fingerprints
from retrieval.errors import FingerprintError, UsageError
from retrieval.retriever import Retriever
from tests.embedder.training.conftest import some_pairs
from tests.embedder.training.distillation.conftest import some_texts

BOTH = {"cosine": 1.0, "similarity": 1.0}


def log_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder):
    return [line["loss"] for line in log_of(folder) if "loss" in line]


@pytest.mark.parametrize(
    "attention",
    [pytest.param(a, marks=[] if a == "causal" else pytest.mark.slow) for a in ATTENTIONS],
)
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_variant_learns_from_texts_alone(
    pooling, attention, variant_config, tmp_path, teacher_name, texts_file
):
    config = variant_config(
        pooling,
        attention,
        steps=9,
        batch_pairs=8,  # three batches hold all texts
        data=[{"path": str(texts_file)}],
        teacher={"model": teacher_name, "weights": BOTH, "held_out": 0},
        optimiser={"learning_rate": 2e-3, "warmup_ratio": 0, "max_gradient_norm": 0.0},
    )
    out = train(config, tmp_path / "out", device="cpu")
    assert np.mean(losses(out)[-3:]) < np.mean(losses(out)[:3])
    assert Embedder.load(str(out)).encode_documents(["mill"]).shape == (1, 32)


def test_a_student_comes_to_agree_with_its_teacher(lesson_config, teacher_encoder, tmp_path):
    texts = some_texts(24)
    before = Embedder.from_spec(lesson_config().model, device="cpu").encode_documents(texts)
    config = lesson_config(
        teacher__weights=BOTH, steps=12, batch_pairs=12, optimiser={"learning_rate": 1e-2}
    )
    after = Embedder.load(str(train(config, tmp_path / "out", device="cpu")))
    taught = teacher_encoder.encode_documents(texts)
    first = measure_agreement(before, taught)["teacher_spearman"]
    last = measure_agreement(after.encode_documents(texts), taught)["teacher_spearman"]
    assert last > first + 0.1


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_first_layers_full_or_lora(kind, lesson_config, tmp_path):
    config = lesson_config(model__base_layers=1, adapter__kind=kind, teacher__weights=BOTH)
    assert len(losses(train(config, tmp_path / "out", device="cpu"))) == 4


def test_a_resumed_run_reaches_the_same_weights(lesson_config, tmp_path):
    config = lesson_config(teacher__weights=BOTH, checkpoint={"every_steps": 2})

    def stop(report):
        if report.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "halted", device="cpu", progress=stop)
    halted = train(config, tmp_path / "halted", resume=True, device="cpu")
    whole = train(config, tmp_path / "whole", device="cpu")
    for name in ("adapter/adapter_model.safetensors",):
        assert (halted / name).read_bytes() == (whole / name).read_bytes()


def test_the_projection_is_in_checkpoints_and_not_in_the_model(lesson_config, tmp_path):
    def stop(report):
        if report.step == 3:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        train(lesson_config(), out, device="cpu", progress=stop)
    saved = out / "checkpoints" / "step-00000002" / "weights.safetensors"
    assert b"teacher_projection.weight" in saved.read_bytes()
    train(lesson_config(), out, resume=True, device="cpu")
    assert not list(out.rglob("pooling.safetensors"))
    assert "projection" not in (out / "millpond.json").read_text().replace("keep_projection", "")


def test_a_kept_projection_gives_vectors_in_the_teachers_space(
    lesson_config, teacher_encoder, tmp_path
):
    config = lesson_config(
        teacher__keep_projection=True, steps=12, batch_pairs=12, optimiser={"learning_rate": 1e-2}
    )
    student = Embedder.load(str(train(config, tmp_path / "out", device="cpu")))
    texts = some_texts(24)
    ours, theirs = student.encode_queries(texts), teacher_encoder.encode_documents(texts)
    assert ours.shape == theirs.shape
    assert (ours * theirs).sum(axis=1).mean() > 0.9
    check_fingerprints(teacher_encoder.fingerprint, student.fingerprint, queries_only=True)
    with pytest.raises(FingerprintError, match="cannot be compared"):  # for documents
        check_fingerprints(teacher_encoder.fingerprint, student.fingerprint)
    with pytest.raises(FingerprintError, match="cannot be compared"):  # the other way round
        check_fingerprints(student.fingerprint, teacher_encoder.fingerprint, queries_only=True)


def test_a_student_searches_what_its_teacher_indexed(lesson_config, teacher_name, tmp_path):
    config = lesson_config(teacher__keep_projection=True, teacher__weights=BOTH)
    model = train(config, tmp_path / "student", device="cpu")
    corpus = [Document(str(i), text) for i, text in enumerate(some_texts(6))]
    encoder = load_encoder(teacher_name, "cpu")
    Index.create(tmp_path / "index", encoder, corpus).close()
    with Retriever.open(tmp_path / "index", str(model), device="cpu") as retriever:
        assert len(retriever.search("mill 0", k=3)) == 3
    plain = train(lesson_config(), tmp_path / "plain", device="cpu")
    with pytest.raises(FingerprintError, match="cannot be compared"):
        Retriever.open(tmp_path / "index", str(plain), device="cpu").search("mill 0")


def test_all_texts_of_pairs_are_lessons_and_mix_with_info_nce(lesson_config, pairs_file, tmp_path):
    weights = {"cosine": 1.0, "margin_mse": 1.0, "info_nce": 0.5}
    config = lesson_config(data=[{"path": str(pairs_file)}], teacher__weights=weights)
    out = train(config, tmp_path / "out", device="cpu")
    line = log_of(out)[0]
    whole = line["loss_cosine"] + line["loss_margin_mse"] + 0.5 * line["loss_info_nce"]
    assert line["loss"] == pytest.approx(whole, abs=1e-5)


def test_the_gradient_cache_gives_the_same_weights(lesson_config, tmp_path):
    models = []
    for cached in (False, True):
        config = lesson_config(
            teacher__weights=BOTH, gradient_cache=cached, forward_tokens=16, steps=2
        )
        out = train(config, tmp_path / f"cached-{cached}", device="cpu")
        models.append(Embedder.load(str(out)).encode_documents(some_texts(4)))
    np.testing.assert_allclose(models[0], models[1], atol=1e-5)


def test_held_out_texts_are_never_trained_on_and_measured(lesson_config, write_texts, tmp_path):
    config = lesson_config(
        data=[{"path": str(write_texts(*some_texts(240), name="more.txt"))}],
        teacher__held_out=22,
        teacher__weights=BOTH,
        evaluate__every_steps=2,
    )
    out = train(config, tmp_path / "out", device="cpu")
    scores = [line for line in log_of(out) if "teacher_cosine" in line]
    assert [line["step"] for line in scores] == [2, 4]
    assert scores[0].keys() == {"step", "teacher_cosine", "teacher_spearman", "teacher_top10"}
    assert "agreement with the teacher" in (out / "agreement.svg").read_text()
    card = (out / "README.md").read_text()
    assert "teacher_spearman" in card
    record = json.loads((out / "millpond.json").read_text())["record"]
    assert sum(source["pairs"] for source in record["data"]) == 240 - 22
    assert record["teacher"]["weights"] == BOTH
    named = (record["teacher"]["model"], record["config"]["teacher"]["model"])
    assert not any("/" in name for name in named)  # where it lay is nobody's concern


def test_the_loss_is_told_by_source(lesson_config, write_texts, tmp_path):
    sources = [{"path": str(write_texts(*some_texts(8), name=name))} for name in ("a.txt", "b.txt")]
    out = train(lesson_config(data=sources), tmp_path / "out", device="cpu")
    line = log_of(out)[-1]
    assert set(line["loss_by_source"]) <= {"a", "b"}
    assert line["loss_by_source"]


def test_a_student_goes_on_from_a_trained_one(lesson_config, tmp_path):
    first = train(lesson_config(), tmp_path / "first", device="cpu")
    config = lesson_config(adapter__start=str(first), teacher__keep_projection=True)
    second = train(config, tmp_path / "second", device="cpu")
    third = train(
        lesson_config(adapter__start=str(second), teacher__keep_projection=True),
        tmp_path / "third",
        device="cpu",
    )
    assert Embedder.load(str(third)).dimension == Embedder.load(str(second)).dimension


def test_another_teacher_is_refused_on_resume(lesson_plan, tmp_path, base_folder):
    def stop(report):
        raise KeyboardInterrupt

    config = read_config(lesson_plan(), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "out", device="cpu", progress=stop)
    changed = read_config(lesson_plan(teacher__model=str(base_folder["mistral"])), tmp_path)
    with pytest.raises(UsageError, match=r"teacher.model was"):
        train(changed, tmp_path / "out", resume=True, device="cpu")


def test_the_projection_starts_from_a_regression(lesson_config, tmp_path):
    told = []
    config = lesson_config(optimiser={"learning_rate": 1e-9}, steps=1, batch_pairs=12)
    out = train(config, tmp_path / "out", device="cpu", notify=told.append)
    assert any("Fitting the projection" in line for line in told)
    assert losses(out)[0] < 0.2  # a projection of zeros would have 1


def test_the_projection_is_fitted_on_each_text_once(lesson_config, tmp_path):
    """A text of a later epoch would be among those that choose the ridge and those learnt from."""
    told = []
    config = lesson_config(steps=6, batch_pairs=12)  # three epochs of 24 texts
    train(config, tmp_path / "out", device="cpu", notify=told.append)
    assert [line.split(" on ")[1] for line in told if "Fitting" in line] == ["24 texts."]


def test_pairs_in_the_data_take_the_query_prompt(lesson_config, write_pairs, tmp_path):
    path = write_pairs(*some_pairs(), name="asked.jsonl")
    config = lesson_config(data=[{"path": str(path)}], model__query_prompt="ask ")
    assert len(losses(train(config, tmp_path / "out", device="cpu"))) == 4
    assert torch.get_num_threads() >= 1


def test_a_batch_without_a_negative_has_no_margin_to_learn(lesson_config, write_pairs, tmp_path):
    rows = [{"query": f"q {i}", "positive": f"p {i}"} for i in range(8)]
    rows[3]["negatives"] = ["no"]
    config = lesson_config(
        data=[{"path": str(write_pairs(*rows))}],
        batch_pairs=2,
        teacher__weights={"margin_mse": 1.0},
    )
    values = losses(train(config, tmp_path / "out", device="cpu"))
    assert sorted(value > 0 for value in values) == [False, False, False, True]
