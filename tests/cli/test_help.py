import subprocess
import sys

import pytest

from cli.app import app, main
from indexes import IndexConfig

COMMANDS = [info.name for info in app.registered_commands]
HEAVY = ("torch", "transformers", "faiss", "pyarrow", "numpy")


def run(*args):
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=True)


def test_help_imports_little_and_nothing_heavy():
    report = run("-X", "importtime", "-m", "cli", "--help").stderr
    modules = [line.rpartition("|")[2].strip() for line in report.splitlines()]
    loaded = {module.partition(".")[0] for module in modules}
    assert "cli" in loaded
    assert loaded.isdisjoint(HEAVY)
    assert len(modules) < 500  # about 250 today, in a tenth of a second


@pytest.mark.parametrize("command", ["train", "study"])
def test_an_example_of_a_config_needs_no_model_library(command):
    report = run("-X", "importtime", "-m", "cli", command, "--example").stderr
    loaded = {line.rpartition("|")[2].strip() for line in report.splitlines()}
    assert loaded.isdisjoint({"torch", "transformers", "faiss"})


def test_the_commands_are_those_of_the_contract():
    assert COMMANDS == [
        "index",
        "search",
        "add",
        "update",
        "delete",
        "reindex",
        "tune",
        "info",
        "duplicates",
        "check",
        "serve",
        "mcp",
        "embed",
        "train",
        "distill",
        "mine",
        "merge",
        "soup",
        "whiten",
        "import",
        "export",
        "bench",
        "compare",
        "report",
        "reproduce",
        "export-results",
        "import-results",
        "study",
        "variants",
        "models",
        "doctor",
        "conform",
    ]


@pytest.mark.parametrize(
    ("typed", "built"), [(["variants"], ["variants"]), (["--help"], COMMANDS), ([], COMMANDS)]
)
def test_only_the_command_that_is_typed_is_built(monkeypatch, capsys, typed, built):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setattr(app, "registered_commands", app.registered_commands)
    monkeypatch.setattr(sys, "argv", ["millpond", *typed])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # Typer replaces it
    with pytest.raises(SystemExit):
        main()
    assert [info.name for info in app.registered_commands] == built
    assert "".join(capsys.readouterr())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_summary_and_an_example(command, millpond):
    shown = millpond(command, "--help").stdout
    assert "Example" in shown
    assert f"  millpond {command}" in shown
    summary = next(
        line.split(maxsplit=1)[1]
        for line in millpond("--help").stdout.splitlines()
        if line.startswith(f"  {command} ")
    )
    assert summary.endswith(".")
    assert not summary.endswith("...")  # the summary fits on its line


def test_defaults_that_help_shows_are_those_of_the_libraries(millpond):
    from embedder import DEFAULT_MODEL
    from embedder.models.whiten import POWER

    shown = " ".join(millpond("index", "--help").stdout.split())
    assert DEFAULT_MODEL in shown
    assert f"[default: {IndexConfig.backend}]" in shown
    assert f"[default: {IndexConfig.factory}]" in shown
    assert f"[default: {POWER:g}]" in " ".join(millpond("whiten", "--help").stdout.split())


def test_version(millpond):
    result = millpond("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("millpond ")


def test_no_command_prints_help(millpond):
    result = millpond()
    assert result.exit_code == 2
    assert "Commands:" in result.output
