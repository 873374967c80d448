import json

import pytest

from tests.embedder.tiny_decoders import write_base

TEXTS = [f"the {word} of the mill {i}" for i, word in enumerate(["wheel", "pond", "race"] * 4)]


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "No teacher was given. Type --teacher MODEL"),
        (("--teacher", "st:x"), "No texts were given. Type --texts FILE"),
    ],
)
def test_what_is_missing_is_named(args, words, millpond):
    result = millpond("distill", *args)
    assert result.exit_code == 2
    assert words in result.stderr


def test_check_counts_the_texts_and_loads_no_model(millpond, texts):
    result = millpond(
        "distill", "--teacher", "st:no-such", "--texts", texts, "--batch", 4, "--check"
    )
    assert result.exit_code == 0, result.stderr
    assert f"{texts}: 11 texts, 0 negatives, weight 1" in result.stderr
    assert "1 text held out to compare with the teacher." in result.stderr
    assert "The config and all 11 texts are good." in result.stderr


def test_a_student_is_distilled_and_searches(millpond, texts, tmp_path):
    write_base(tmp_path / "student", "llama")
    write_base(tmp_path / "teacher", "qwen3")
    out = tmp_path / "model"
    result = millpond(
        *("distill", "--teacher", f"{tmp_path / 'teacher'}:mean+causal", "--device", "cpu"),
        *("--student", f"{tmp_path / 'student'}:mean+causal,max_tokens=64", "--texts", texts),
        *("--batch", 4, "--out", out),
    )
    assert result.exit_code == 0, result.stderr
    assert "Fitting the projection to the teacher's width on 8 texts." in result.stderr
    assert "Step 2 of 2: loss" in result.stderr
    assert " texts/s" in result.stderr
    again = millpond(
        *("distill", "--teacher", f"{tmp_path / 'teacher'}:mean+causal", "--device", "cpu"),
        *("--student", out, "--texts", texts, "--batch", 4, "--out", tmp_path / "second"),
    )
    assert again.exit_code == 0, again.stderr
    assert f"Training goes on from {out}." in again.stderr


def test_a_student_without_lora_is_refused(millpond, texts, tmp_path):
    from embedder import Embedder, VariantSpec
    from embedder.models.saving import save_model

    write_base(tmp_path / "base", "llama")
    spec = VariantSpec(base=str(tmp_path / "base"), pooling="mean", attention="causal")
    whole = Embedder.from_spec(spec, device="cpu")
    whole.backbone.requires_grad_(True)
    save_model(whole, tmp_path / "whole", record={})
    result = millpond(
        "distill",
        "--teacher",
        "st:x",
        "--student",
        tmp_path / "whole",
        "--texts",
        texts,
        "--out",
        "o",
    )
    assert result.exit_code == 2
    assert "has no LoRA to train on" in result.stderr


def test_two_indexes_of_one_name_are_both_learned_from(millpond, write_jsonl, tmp_path):
    for place, text in (("x", "first"), ("y", "second")):
        rows = ({"_id": f"{place}{n}", "text": f"{text} {n}"} for n in range(2))
        source = write_jsonl(f"{place}.jsonl", *rows)
        assert millpond("index", source, "--out", tmp_path / place / "ix").exit_code == 0
    given = [part for place in "xy" for part in ("--texts", tmp_path / place / "ix")]
    asked = ("--teacher", "st:no-such", "--check", "--batch", 2, "--out", tmp_path / "model")
    result = millpond("distill", *given, *asked)
    assert result.exit_code == 0, result.stderr
    written = tmp_path / "model.texts"
    texts = [(written / name).read_text() for name in ("ix.jsonl", "ix-2.jsonl")]
    assert "first 0" in texts[0] and "second 0" in texts[1]


def test_the_texts_of_an_index_are_those_that_are_not_deleted(millpond, corpus, tmp_path):
    assert millpond("index", corpus, "--out", tmp_path / "ix").exit_code == 0
    assert millpond("delete", tmp_path / "ix", "b").exit_code == 0
    given = ("distill", "--teacher", "st:no-such", "--texts", tmp_path / "ix", "--check")
    result = millpond(*given, "--batch", 2)
    assert result.exit_code == 2
    assert "its texts are written beside DIR. Type --out DIR" in result.stderr
    result = millpond(*given, "--batch", 2, "--out", tmp_path / "model")
    assert result.exit_code == 0, result.stderr
    written = tmp_path / "model.texts" / "ix.jsonl"
    assert f"Wrote the 2 texts of {tmp_path / 'ix'} to {written}." in result.stderr
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    assert [row["_id"] for row in rows] == ["a", "c"]
    assert "all 2 texts are good" in result.stderr
