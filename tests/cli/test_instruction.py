"""--instruction, wherever a model is named."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from benchmarks.lab.layouts import decoders, encoders
from cli.app import app
from embedder import load_encoder

SAID = "Find the miller, please"
PROMPT = f"Instruct: {SAID}\nQuery:"
TEXTS = ["the mill grinds corn", "the pond holds water", "a miller takes his share"]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    layout = decoders.LAYOUTS["qwen3-embedding"]
    return decoders.write_layout(tmp_path_factory.mktemp("qwen3"), **layout)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    rows = [{"_id": f"d{number}", "text": text} for number, text in enumerate(TEXTS)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def scores(model):
    """Return the dense scores of "who" with a prompt before it."""
    encoder = load_encoder(str(model), device="cpu")
    documents = encoder.encode_documents(TEXTS)

    def score(prompt):
        return (documents @ encoder.encode_documents([f"{prompt}who"]).T).ravel()

    return score


def search(folder, *options):
    found = run("search", folder, "who", "--json", "--mode", "dense", "--device", "cpu", *options)
    assert found.exit_code == 0, found.output
    hits = [json.loads(line) for line in found.stdout.splitlines()]
    return [hit["score"] for hit in sorted(hits, key=lambda hit: hit["doc_id"])]


def test_an_index_keeps_the_instruction_and_a_search_may_replace_it(
    model, corpus, scores, tmp_path
):
    folder = tmp_path / "index"
    made = run("index", corpus, "--out", folder, "--model", model, "--instruction", SAID)
    assert made.exit_code == 0, made.output
    assert f"Query prompt: {PROMPT!r}" in made.stderr
    fingerprint = json.loads((folder / "manifest.json").read_text())["fingerprint"]
    assert fingerprint["settings"]["query_prompt"] == PROMPT
    assert fingerprint["model"] == f"{model},query_prompt={json.dumps(PROMPT)}"
    np.testing.assert_allclose(search(folder), scores(PROMPT), atol=1e-5)
    other = scores("Instruct: Find a pond\nQuery:")
    np.testing.assert_allclose(search(folder, "--instruction", "Find a pond"), other, atol=1e-5)
    assert np.abs(scores(PROMPT) - other).max() > 1e-3


def test_queries_are_embedded_with_it_and_documents_are_not(model, tmp_path):
    (tmp_path / "texts.txt").write_text("who\n")
    out = tmp_path / "out.parquet"
    asked = ("embed", tmp_path / "texts.txt", "--out", out, "--model", model, "--device", "cpu")
    done = run(*asked, "--instruction", SAID, "--as", "query")
    assert done.exit_code == 0, done.output
    expected = load_encoder(str(model), device="cpu").encode_documents([f"{PROMPT}who"])[0]
    np.testing.assert_allclose(pq.read_table(out)["embedding"][0].as_py(), expected, atol=1e-5)
    refused = run(*asked, "--instruction", SAID)
    assert refused.exit_code == 2
    assert "Add --as query" in " ".join(refused.stderr.split())


def test_an_encoder_without_a_template_is_refused(corpus, tmp_path):
    folder = encoders.write_layout("bge-small", tmp_path / "bge")
    out = tmp_path / "index"
    refused = run("index", corpus, "--out", out, "--model", folder, "--instruction", SAID)
    assert refused.exit_code == 2
    assert "has no template for instructions" in " ".join(refused.stderr.split())
    assert not out.exists()


def test_negatives_are_mined_with_it(model, tmp_path):
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "mined.jsonl"
    rows = [{"query": f"who {number}", "positive": text} for number, text in enumerate(TEXTS)]
    pairs.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    asked = (
        "mine",
        pairs,
        "--out",
        out,
        "--instruction",
        SAID,
        "--from-rank",
        "1",
        "--to-rank",
        "3",
    )
    refused = run(*asked)
    assert refused.exit_code == 2
    assert "goes with --by MODEL" in " ".join(refused.stderr.split())
    done = run(*asked, "--by", model, "--device", "cpu", "--max-relative-score", "inf")
    assert done.exit_code == 0, done.output
    assert f"Query prompt: {PROMPT!r}" in done.stderr
    assert json.loads(out.read_text().splitlines()[0])["negatives"]
