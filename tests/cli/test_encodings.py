"""Commands whose stdout and stderr are not UTF-8."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from cli.app import app

GREEK, CHINESE = "ποταμός", "水车"


@pytest.fixture
def run(loaded):
    """Run a command line in this process, with streams of some encoding."""

    def run(encoding, *args):
        runner = CliRunner(charset=encoding)
        return runner.invoke(app, [str(arg) for arg in args], prog_name="millpond")

    return run


@pytest.fixture
def folder(run, write_jsonl, tmp_path):
    """An index, queries, pairs and judgements, with ids and texts in several scripts."""
    rows = [
        {"_id": f"{GREEK} 1", "title": CHINESE, "text": f"water {GREEK}", "价格": "是"},
        {"_id": "b", "text": f"mills {CHINESE} — grind"},
        {"_id": "c", "text": "corn"},
    ]
    write_jsonl("corpus.jsonl", *rows)
    write_jsonl("queries.jsonl", {"_id": f"{CHINESE} q", "text": f"water {GREEK}"})
    pairs = [{"query": f"{GREEK} {n}", "positive": f"{CHINESE} {n}"} for n in range(3)]
    write_jsonl("pairs.jsonl", *pairs)
    (tmp_path / "qrels").mkdir()
    lines = f"query-id\tcorpus-id\tscore\n{CHINESE} q\t{GREEK} 1\t1\n"
    (tmp_path / "qrels" / "test.tsv").write_text(lines, encoding="utf-8")
    (tmp_path / f"{GREEK}.txt").write_text(f"{GREEK}\n{CHINESE}\n", encoding="utf-8")
    (tmp_path / "broken.toml").write_text(f'"{GREEK}" = 1', encoding="utf-8")
    made = run("cp1252", "index", tmp_path / "corpus.jsonl", "--out", tmp_path / "index")
    assert made.exit_code == 0, made.stderr
    return tmp_path


COMMANDS = {
    "search": ("index", f"water {GREEK}"),
    "search with scores": ("index", f"water {GREEK}", "-k", "3", "--filter", '价格 == "是"'),
    "search --run": ("index", "--queries", "queries.jsonl", "--run", "-"),
    "info": ("index",),
    "check": ("index",),
    "add": ("index", "corpus.jsonl"),
    "delete": ("index", f"{GREEK} 1"),
    "embed": (f"{GREEK}.txt", "--out", f"{GREEK}.csv"),
    "mine": ("pairs.jsonl", "--out", f"{GREEK}.jsonl", "--from-rank", "1", "--to-rank", "3"),
    "bench": ("--model", "bm25", "--task", ".", "--out", f"{GREEK}"),
    "report": (f"{GREEK}", "--out", f"{GREEK}.html"),
    "compare": (f"{GREEK}",),
    "train": ("broken.toml", "--check"),
    "study": ("broken.toml", "--dry-run"),
    "models": (),
    "variants": (),
    "serve": (f"--{GREEK}",),
    "reindex": (f"{GREEK}",),
    "update": (f"{GREEK}", f"{GREEK}"),
    "merge": (f"{GREEK}", "--out", f"{GREEK}"),
    "soup": (f"{GREEK}", "--out", f"{GREEK}"),
    "whiten": (f"{GREEK}", "--out", f"{GREEK}"),
}


REFUSED = {
    "report",
    "compare",
    "train",
    "study",
    "serve",
    "reindex",
    "update",
    "merge",
    "soup",
    "whiten",
}
"""What ends in a message that names a Greek file, key or option."""


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_fails_over_what_the_terminal_cannot_show(
    run, folder, monkeypatch, command, encoding
):
    monkeypatch.chdir(folder)
    result = run(encoding, command.split()[0], *COMMANDS[command])
    assert b"This is a bug" not in result.stderr_bytes
    assert result.exit_code == (2 if command in REFUSED else 0), result.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-16", "utf-8"])
def test_json_and_runs_are_utf_8_whatever_the_terminal_is(run, folder, encoding):
    found = run(encoding, "search", folder / "index", f"water {GREEK}", "-k", 1, "--json")
    assert json.loads(found.stdout_bytes.decode("utf-8"))["doc_id"] == f"{GREEK} 1"
    args = ("--queries", folder / "queries.jsonl", "--run", "-", "-k", 1)
    found = run(encoding, "search", folder / "index", *args)
    query, _, document, *_ = found.stdout_bytes.decode("utf-8").split(" ")
    assert (query, document) == (f"{CHINESE}%20q", f"{GREEK}%201")


def test_a_process_whose_streams_are_not_utf_8(folder, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    monkeypatch.setenv("PYTHONUTF8", "0")
    args = [sys.executable, "-m", "cli", "info", str(folder / GREEK)]
    result = subprocess.run(args, capture_output=True, check=False)
    assert result.returncode == 2
    assert b"Traceback" not in result.stderr
    assert ascii(GREEK)[1:-1].encode() in result.stderr
