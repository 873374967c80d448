"""benchmarks/lab/speed/encode.py: fair baselines, and arithmetic worked by hand."""

import json
import sys

import numpy as np
import pytest
import torch

from benchmarks.lab.speed import encode
from benchmarks.lab.speed.baselines import (
    NaiveEncoder,
    OpenVinoEncoder,
    is_installed,
    load_sentence_transformer,
    write_plain_base,
)
from benchmarks.lab.speed.interleaved import Contestant, Timings, format_table, ratios, take_turns
from embedder import Embedder
from retrieval.errors import UsageError
from tests.embedder.stand_ins import set_int8

TEXTS = ["pond", "the mill by the pond turns, and turns again all day", "", "a b c"]


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def contestant(name, clock, seconds, order):
    def run():
        order.append(name)
        clock.now += seconds

    return Contestant(name, run)


def test_contestants_take_turns_and_the_first_one_changes():
    clock, order = Clock(), list[str]()
    pair = [contestant("a", clock, 1, order), contestant("b", clock, 2, order)]
    timings = take_turns(pair, rounds=3, budget_seconds=100, notify=str, clock=clock)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert timings.seconds == {"a": [1, 1, 1], "b": [2, 2, 2]}


@pytest.mark.parametrize(("budget", "rounds"), [(1, 1), (9, 3), (8, 2)])
def test_no_round_begins_that_would_end_after_the_budget(budget, rounds):
    """A round takes 3 s: 9 s hold three of them, 8 s two, and one is always run."""
    clock = Clock()
    pair = [contestant("a", clock, 1, []), contestant("b", clock, 2, [])]
    timings = take_turns(pair, rounds=9, budget_seconds=budget, notify=str, clock=clock)
    assert timings.rounds == rounds


def test_a_contestant_of_a_part_is_counted_as_if_it_did_all():
    """2 s for a quarter of the work are 8 s for all of it."""
    clock = Clock()
    part = Contestant("a", contestant("a", clock, 2, []).run, share=0.25)
    timings = take_turns([part], rounds=1, budget_seconds=100, notify=str, clock=clock)
    assert timings.seconds == {"a": [8]}


def test_only_the_naive_embed_an_eighth_and_only_of_many_texts(tiny_base):
    """A text of 1 byte has 2 tokens with EOS, one of 3 bytes 4: 64 x 2 of 64 x 2 + 448 x 4."""
    model = Embedder.load(f"{tiny_base}:mean+causal", device="cpu")
    texts = ["a"] * 64 + ["abc"] * 448
    seen = []

    def count(part):
        seen.append(len(part))

    for name, many in (("naive, batches of 64", texts), (encode.BASELINE, texts)):
        encode.make_contestant(name, count, model, many).run()
    assert seen == [64, 512]
    share = encode.make_contestant("naive, batches of 64", count, model, texts).share
    assert share == pytest.approx(128 / (128 + 1792))
    assert encode.make_contestant("naive, batches of 64", count, model, texts[:511]).share == 1


def test_ratios_are_taken_within_rounds_and_the_table_shows_their_median():
    """The second round was slow for both: 4/2, 12/4, 5/1 are 2, 3, 5; 30/2 tokens a second."""
    timings = Timings({"ours": [2, 4, 1], "theirs": [4, 12, 5]})
    assert ratios(timings, "ours", "theirs") == [2, 3, 5]
    assert format_table(timings, 30, ["theirs"], {"cosine": {"ours": "1.0"}}) == [
        "| contestant | tokens/s | x theirs | cosine |",
        "| --- | ---: | ---: | ---: |",
        "| ours | 15 | 3.00 (2.00 to 5.00) | 1.0 |",
        "| theirs | 6 | 1.00 |  |",
    ]


@pytest.mark.parametrize("lowercase", ["true", "false"])
def test_the_baselines_embed_the_same_tokens_to_the_same_vectors(tiny_base, tmp_path, lowercase):
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    options = f"max_tokens=24,lowercase={lowercase}"
    model = Embedder.load(f"{tiny_base}:mean+causal,{options}", device="cpu")
    model.backbone.tokenizer.chat_template = "never {{ messages[0]['content'] }} to be applied"
    write_plain_base(model, tmp_path)
    expected = model.encode_documents(TEXTS)
    naive = NaiveEncoder(tmp_path, 24, batch_texts=3).encode(TEXTS)
    np.testing.assert_allclose(naive, expected, atol=1e-5)
    baseline = load_sentence_transformer(tmp_path, 24)
    np.testing.assert_allclose(baseline.encode(TEXTS), expected, atol=1e-5)


class OpenVinoStandIn:
    """As much of the package as is called; torch computes."""

    def convert_model(self, model, example_input):
        model(**example_input)
        return model

    def compile_model(self, model, device, settings):
        return lambda inputs: [model(**{k: torch.from_numpy(v) for k, v in inputs.items()}).numpy()]


@pytest.mark.parametrize("which", ["stand-in", *(["openvino"] if is_installed("openvino") else [])])
def test_openvino_embeds_the_same_tokens_to_the_same_vectors(
    tiny_base, tmp_path, monkeypatch, which
):
    if which != "openvino":
        monkeypatch.setitem(sys.modules, "openvino", OpenVinoStandIn())
    model = Embedder.load(f"{tiny_base}:mean+causal,max_tokens=24", device="cpu")
    write_plain_base(model, tmp_path)
    texts = [*TEXTS, *TEXTS[::-1], "one more, of another length"]  # 9: a batch of 4, 4 and 1
    with torch.no_grad():
        found = OpenVinoEncoder(tmp_path, 24, batch_texts=4).encode(texts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, model.encode_documents(texts), atol=1e-5)


@pytest.mark.slow
def test_where_a_baseline_is_not_installed_one_line_says_so(tiny_base, data, capsys, monkeypatch):
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    monkeypatch.setattr(encode, "is_installed", lambda *names: "openvino" not in names)
    model = f"{tiny_base}:mean+causal,max_tokens=24"
    assert encode.main([str(data), "--model", model, "--texts", "4", "--rounds", "1"]) == 0
    printed = capsys.readouterr()
    assert printed.err.count("not installed: openvino") == 1
    assert encode.OPENVINO not in printed.out


def test_a_model_that_the_baselines_could_not_repeat_is_refused(tiny_base, tmp_path):
    model = Embedder.load(f"{tiny_base}:eos+causal", device="cpu")
    with pytest.raises(UsageError, match=r"is not mean\+causal"):
        write_plain_base(model, tmp_path)


@pytest.fixture
def data(tmp_path):
    """Three documents and four sentences, laid out as the shared data are."""
    scifact, sts = tmp_path / "beir/scifact", tmp_path / "sts"
    scifact.mkdir(parents=True)
    sts.mkdir()
    rows = [{"_id": str(n), "title": f"T{n}", "text": "long text " * 5} for n in range(3)]
    (scifact / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = ["score\tsentence1\tsentence2", '1.0\ta "quoted\tb', "2.0\tc\td"]
    (sts / "STSB-train.tsv").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_texts_are_documents_and_sentences_the_same_each_time(data):
    texts = encode.read_texts(data, count=5, documents_share=0.4)
    assert texts == encode.read_texts(data, count=5, documents_share=0.4)
    assert sum(text.startswith("T") for text in texts) == 2  # 0.4 of 5
    assert len(set(texts) & {'a "quoted', "b", "c", "d"}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("there_is", [False, True])
def test_the_command_prints_a_table_of_all_contestants(
    tiny_base, data, capsys, monkeypatch, there_is
):
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    set_int8(monkeypatch, there_is)
    model = f"{tiny_base}:mean+causal,max_tokens=24"
    options = ["--model", model, "--texts", "6", "--documents-share", "0.5", "--rounds", "2"]
    assert encode.main([str(data), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "6 texts" in lines[0]
    assert "2 interleaved rounds in wall time" in lines[0]
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert table[0][1] == "tokens/s"
    assert [row[0] for row in table[2:]] == [
        "millpond padded",
        "millpond exact (packed)",
        *(["millpond fast (int8)"] if there_is else []),
        "sentence-transformers, batches of 32",
        *([encode.ONNX] if is_installed("onnx", "onnxscript", "onnxruntime") else []),
        *([encode.OPENVINO] if is_installed("openvino") else []),
        "naive, batches of 32",
        "naive, batches of 64",
    ]
    for row in table[2:]:
        assert float(row[-1]) >= (0.98 if "int8" in row[0] else 0.99999)


def test_a_missing_data_folder_is_named(tmp_path, capsys):
    assert encode.main([str(tmp_path)]) == 1
    assert "corpus.jsonl is not there" in capsys.readouterr().err
