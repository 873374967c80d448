"""``import millpond``: the names that users get, cheaply, and the README's lines that use them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import millpond
from embedder import DEFAULT_MODEL, Embedder
from retrieval import errors
from retrieval.errors import DownloadError, MissingDependencyError

ROOT = Path(__file__).resolve().parent.parent
NAMES = {
    "Embedder",
    "VariantSpec",
    "list_variants",
    "train",
    "Index",
    "Retriever",
    "read_corpus",
    "Document",
    "Query",
    "Hit",
    "parse_filter",
    "run_benchmark",
    "compare",
    "__version__",
}


def test_the_public_names_are_these_and_all_errors():
    every_error = {name for name in errors.__all__ if name.endswith("Error")}
    assert set(millpond.__all__) == NAMES | every_error
    assert dir(millpond) == sorted(millpond.__all__)
    with pytest.raises(AttributeError, match="'millpond' has no attribute 'importlib_metadata'"):
        _ = millpond.importlib_metadata


@pytest.mark.parametrize("name", sorted(millpond.__all__))
def test_every_name_is_what_its_package_calls_so(name):
    value = getattr(millpond, name)
    assert isinstance(value, str) if name == "__version__" else value.__name__ == name


def test_importing_it_loads_nothing_heavy():
    code = "import sys, millpond; print({'torch', 'faiss', 'numpy', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "set()\n"


def quick_start():
    """Return the README's Python block that imports millpond."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return next(block for block in blocks if "millpond" in block)


def test_the_quick_start_has_five_lines():
    assert len([line for line in quick_start().splitlines() if line.strip()]) == 5


@pytest.mark.base
@pytest.mark.network
def test_the_quick_start_of_the_readme_runs_as_printed(tmp_path, monkeypatch, capsys):
    try:
        Embedder.load(DEFAULT_MODEL, device="cpu")
    except (DownloadError, MissingDependencyError) as error:
        pytest.skip(f"the base cannot be fetched: {error}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.jsonl").write_text(
        '{"_id": "mill", "text": "The miller grinds corn between two stones."}\n'
        '{"_id": "pond", "text": "A heron stands in the water and waits for fish."}\n'
    )
    exec(quick_start(), {})
    assert capsys.readouterr().out.split()[0] == "mill"
