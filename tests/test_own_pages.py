"""This project's own pages, indexed as typed: the right one is among the first by its vectors."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app
from indexes import read_manifest
from retrieval.retriever import Retriever

ROOT = Path(__file__).resolve().parents[1]
QUESTIONS = {
    "how do I delete documents from an index?": "indexes.md",
    "what does a filter mean when a field has no value?": "filters.md",
    "how do OpenAI clients get embeddings from the server?": "serve.md",
    "how are p-values corrected for many pairs of models?": "significance.md",
    "find hard negatives for my training pairs": "mining.md",
}


@pytest.mark.slow
@pytest.mark.base
def test_long_pages_are_found_by_default(tmp_path):
    pages = [str(ROOT / name) for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs")]
    made = CliRunner().invoke(app, ["index", *pages, "--out", str(tmp_path / "i")])
    assert made.exit_code == 0, made.output
    assert read_manifest(tmp_path / "i").passages == {"tokens": 90, "overlap": 11}
    retriever = Retriever.open(tmp_path / "i")
    ranks = {}
    for question, page in QUESTIONS.items():
        names = [hit.doc_id for hit in retriever.search(question, 20, mode="dense")]
        ranks[question] = names.index(f"docs/{page}") + 1
    assert max(ranks.values()) <= 3, ranks
    assert sum(rank <= 2 for rank in ranks.values()) >= 4, ranks
