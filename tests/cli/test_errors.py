"""Every kind of bad input: one line on stderr, the right exit code, nothing lost."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.app import app, main
from indexes import Index

GOOD = {"_id": "a", "text": "x"}


def assert_one_line(result, code, *words):
    """stderr is one line that begins with "Error: "."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((GOOD, b"{oops"), "corpus.jsonl:2: not valid JSON"),
        ((GOOD, b"[1]"), "corpus.jsonl:2: "),
        ((GOOD, {"_id": "b"}), "corpus.jsonl:2: "),
        ((GOOD, {"_id": "a", "text": "y"}), "corpus.jsonl:2: the id 'a'"),
        ((), "holds no record"),
        ((b'{"_id": "a", "text": "\0"}',), "corpus.jsonl:1: a NUL byte"),
        ((b'{"_id": "a", "text": "\\u0000"}',), "corpus.jsonl:1: "),
        ((b'{"_id": "a", "text": "\xff"}',), "corpus.jsonl:1: not UTF-8"),
    ],
)
@pytest.mark.parametrize("command", ["index", "embed"])
def test_bad_records(command, rows, words, millpond, write_jsonl, tmp_path):
    path = write_jsonl("corpus.jsonl", *rows)
    result = millpond(command, path, "--out", tmp_path / "out.parquet")
    assert_one_line(result, 2, words)
    assert [entry.name for entry in tmp_path.iterdir()] == ["corpus.jsonl"]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((b"{oops",), "queries.jsonl:1: not valid JSON"),
        (({"_id": "q", "text": "x"}, {"_id": "q", "text": "y"}), "queries.jsonl:2: "),
        ((), "holds no record"),
        ((b'{"_id": "q", "text": "\xff"}',), "queries.jsonl:1: not UTF-8"),
    ],
)
def test_bad_queries_are_found_before_a_model_is_loaded(
    rows, words, millpond, write_jsonl, index_folder, tmp_path, loaded
):
    loaded.clear()
    path = write_jsonl("queries.jsonl", *rows)
    result = millpond("search", index_folder, "--queries", path, "--run", tmp_path / "run")
    assert_one_line(result, 2, words)
    assert loaded == []
    assert not (tmp_path / "run").exists()


def test_skip_bad_goes_on_with_the_other_queries(millpond, write_jsonl, index_folder):
    path = write_jsonl("queries.jsonl", b"{oops", {"_id": "q", "text": "water"})
    args = ("--queries", path, "--run", "-", "-k", 1)
    result = millpond("search", index_folder, *args, "--skip-bad")
    assert result.exit_code == 0
    assert result.stdout.startswith("q Q0 ")
    assert "1 bad query is skipped" in result.stderr


def test_missing_files_and_folders(millpond, corpus, index_folder, tmp_path):
    missing = tmp_path / "corpus.json"
    out = tmp_path / "out"
    assert_one_line(millpond("index", missing, "--out", out), 2, "no such file", "Did you mean")
    assert_one_line(millpond("embed", missing, "--out", f"{out}.parquet"), 2, "no such file")
    assert_one_line(millpond("search", tmp_path / "nowhere", "x"), 2, "nowhere")
    assert_one_line(millpond("info", tmp_path / "nowhere"), 2, "nowhere")
    assert_one_line(
        millpond("search", index_folder, "--queries", missing, "--run", out), 2, "no such file"
    )


def test_a_folder_that_holds_an_index_needs_overwrite(millpond, corpus, index_folder):
    result = millpond("index", corpus, "--out", index_folder)
    assert_one_line(result, 2, "already holds an index of 3 documents", "--overwrite")
    assert len(Index.open(index_folder)) == 3


def test_a_folder_of_something_else_is_left_alone(millpond, corpus, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"1")
    result = millpond("index", corpus, "--out", tmp_path / "photos", "--overwrite")
    assert_one_line(result, 2, "left alone")
    assert (tmp_path / "photos" / "one.jpg").read_bytes() == b"1"


@pytest.mark.parametrize("args", [("--factory", "Flatt"), ("--factory", "PQ7")])
def test_a_factory_that_cannot_be_built(args, millpond, corpus, tmp_path):
    result = millpond("index", corpus, "--out", tmp_path / "out", *args)
    assert_one_line(result, 2, args[1])
    assert not (tmp_path / "out").exists()


def test_an_unknown_backend(millpond, corpus, tmp_path):
    result = millpond("index", corpus, "--out", tmp_path / "out", "--backend", "fais")
    assert_one_line(result, 2, "Did you mean 'faiss'?")


@pytest.mark.parametrize("damage", ["{", "[]", '{"format": "other"}', "\ud800"])
@pytest.mark.parametrize("command", ["search", "info"])
def test_a_damaged_manifest(command, damage, millpond, index_folder):
    manifest = index_folder / "manifest.json"
    manifest.write_bytes(damage.encode(errors="surrogatepass"))
    args = (index_folder, "x") if command == "search" else (index_folder,)
    assert_one_line(millpond(command, *args), 1, "manifest.json is damaged", "--overwrite")


@pytest.mark.parametrize("name", ["index.faiss", "documents/00000.arrow"])
@pytest.mark.parametrize("size", [None, 0, 10])
def test_a_damaged_index(name, size, millpond, index_folder):
    if size is None:
        (index_folder / name).unlink()
    else:
        os.truncate(index_folder / name, size)
    assert_one_line(millpond("search", index_folder, "x"), 1, f"{name} is damaged")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("smollm2-135m:mena+causal", "Did you mean 'mean'?"),
        ("smollm2-135m:model6", "Accepted: model1"),
        ("smollm3", "Did you mean 'smollm2-135m'?"),
    ],
)
def test_an_unknown_variant_or_base(model, words, corpus, tmp_path):
    args = ("index", corpus, "--out", tmp_path / "out", "--model", model)
    assert_one_line(CliRunner().invoke(app, list(map(str, args))), 2, words)


def run_process(*args, **options):
    """Run ``python -m cli`` as its own process, with no fake encoder."""
    command = [sys.executable, "-m", "cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def assert_failed(result, code):
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "args",
    [
        ("index",),
        ("search", "x", "--no-such-option"),
        ("embed", "f", "--out", "o", "--as", "passage"),
        ("index", "python-stdlib", "--out", "o", "--limit", "0"),
    ],
)
def test_usage_errors(args, millpond):
    assert_one_line(millpond(*args), 2)


@pytest.mark.parametrize(
    ("typed", "form"),
    [
        ("compare --results r", " Type: millpond compare RESULTS; or"),  # an option for an argument
        ("train a.toml b.toml", " Type: millpond train [CONFIG]; or"),
        (
            "embed my-model texts.txt",
            " Type: millpond embed FILE --out OUT; or",
        ),  # and the other way
        ("bench my-model", " Type: millpond bench --model MODEL --task TASK --out DIR; or"),
        ("search --index my-index text", " Type: millpond search DIR... [TEXT]; or"),
        ("info", " Type: millpond info DIR; or"),
        (  # needs one of several options: its first example
            "distill my-model",
            " Type: millpond distill --teacher st:my-teacher --texts corpus.jsonl --out my-model;",
        ),
        ("models qwen", " Type: millpond models; or"),
        ("compar r", " Type 'millpond --help' for its options."),  # of no command
    ],
)
def test_what_is_typed_in_a_wrong_place_is_answered_with_how_to_type_it(typed, form, millpond):
    assert_one_line(millpond(*typed.split()), 2, form)


@pytest.mark.parametrize("args", [("index", "nowhere.jsonl", "--out", "out"), ("serch",)])
def test_usage_errors_of_a_real_process(args, tmp_path):
    result = run_process(*args, cwd=tmp_path)
    assert_failed(result, 2)


def test_a_full_disk_while_writing_a_run_keeps_the_old_one(
    millpond, index_folder, write_jsonl, tmp_path, monkeypatch
):
    queries = write_jsonl("q.jsonl", {"_id": "q", "text": "water"})
    run = tmp_path / "run"
    run.write_text("earlier")

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("cli.output.os.fsync", full)
    result = millpond("search", index_folder, "--queries", queries, "--run", run)
    assert result.exit_code == 1
    assert f"Error: {run}: cannot be written (No space left on device)" in result.stderr
    assert run.read_text() == "earlier"
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_full_device_as_run_and_as_vectors(millpond, index_folder, write_jsonl, corpus):
    queries = write_jsonl("q.jsonl", {"_id": "q", "text": "water"})
    result = millpond("search", index_folder, "--queries", queries, "--run", "/dev/full")
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    result = millpond("embed", corpus, "--out", "/dev/full")
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr


def test_a_full_stdout():
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "cli", "models", "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert_failed(result, 1)
    assert "No space left on device" in result.stderr


def test_a_disk_that_is_full_while_indexing(millpond, corpus, tmp_path, monkeypatch):
    def full(self, chunk):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("indexes.storage.staging.VectorWriter.append", full)
    result = millpond("index", corpus, "--out", tmp_path / "out")
    assert_one_line(result, 1, "full", "Free some space")
    assert not (tmp_path / "out").exists()


def test_an_unexpected_error_is_one_line_and_a_traceback_on_request(
    millpond, index_folder, monkeypatch
):
    def fail(self, text, k, **choices):
        raise TypeError("no\nway")

    monkeypatch.setattr("retrieval.retriever.Retriever.search", fail)
    result = millpond("search", index_folder, "x")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith(
        "Error: millpond failed unexpectedly (TypeError: no way). This is a bug;"
    )
    assert "Traceback" not in result.stderr
    assert "Traceback" in millpond("--traceback", "search", index_folder, "x").stderr


def test_ctrl_c_is_one_line_and_130(millpond, index_folder, monkeypatch):
    def interrupt(self, text, k, **choices):
        raise KeyboardInterrupt

    monkeypatch.setattr("retrieval.retriever.Retriever.search", interrupt)
    result = millpond("search", index_folder, "x")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "Interrupted."


def test_ctrl_c_of_a_real_process_leaves_nothing(tmp_path):
    pipe = tmp_path / "endless.jsonl"
    os.mkfifo(pipe)
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "embed", str(pipe), "--out", str(tmp_path / "v.parquet")],
        stderr=subprocess.PIPE, text=True,
        # A test run that was started in the background may ignore Ctrl-C, and hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    with pipe.open("w"):  # returns when the process has begun to read
        process.send_signal(signal.SIGINT)
        try:
            _, stderr = process.communicate(timeout=120)
        finally:
            process.kill()
    assert (process.returncode, stderr) == (130, "Interrupted.\n")
    assert list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize(
    ("closed", "args", "code"),
    [
        ("<&-", ("index", "-", "--out", "o"), 2),
        ("<&-", ("search", "nowhere"), 2),
        (">&-", ("models",), 0),
        ("2>&-", ("info", "nowhere"), 2),
    ],
)
def test_a_closed_standard_stream_is_read_as_empty_and_written_nowhere(
    closed, args, code, tmp_path
):
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "cli", *args]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stderr
    assert "unexpectedly" not in result.stderr


def test_a_reader_that_leaves_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "models"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=120) == 141
    assert "Error" not in stderr
    assert "Broken pipe" not in stderr


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["index", "python-stdlib", "--out", ""], "--out"),
        (["index", "", "--out", "ponds"], "One of CORPUS"),
        (["index", "python-stdlib", "--out", "ponds", "--model="], "--model"),
        (["index", "python-stdlib", "--out", "ponds", "--text", ""], "--text"),
        (["search", "", "mill"], "One of DIR... [TEXT]"),
        (["serve", ""], "One of DIR..."),
        (["delete", "ponds", "--ids", ""], "--ids"),
        (["embed", "texts.txt", "--out", "v.npy", "--model", ""], "--model"),
        (["bench", "-m", "a", "-m", "", "-t", "b", "--out", "c"], "--model"),
    ],
)
def test_a_variable_that_is_not_set_is_no_name(args, named, millpond, tmp_path, monkeypatch):
    """Path("") is the folder that one is in, and an empty model would be the default one."""
    monkeypatch.chdir(tmp_path)
    result = millpond(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {named} is empty; expected a value.")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("busy", ["cli.commands.bench", "typer.core"])
def test_ctrl_c_while_millpond_starts_is_one_line(busy):
    code = f"""
import sys

class Press:
    def find_spec(self, name, *rest):
        if name == {busy!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Press())
from cli.app import main
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "Interrupted.\n")


def test_ctrl_c_while_options_are_built_is_one_line(monkeypatch, capsys):
    def press(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.main.get_command", press)
    with pytest.raises(SystemExit, match="130"):
        main()
    assert capsys.readouterr().err == "Interrupted.\n"
