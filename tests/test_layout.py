"""Guards of the project's shape: public names, import direction, documentation, the wheel."""

import ast
import importlib
import re
import sys
import tomllib
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("retrieval", "embedder", "indexes", "benchmarks", "cli")

PUBLIC_NAMES = {
    "retrieval": {
        "Document",
        "Query",
        "Hit",
        "Scalar",
        "Corpus",
        "read_corpus",
        "read_queries",
        "Encoder",
        "VectorIndex",
        "Vectors",
        "Progress",
        "Fingerprint",
        "check_fingerprints",
        "MillpondError",
    },
    "embedder": {
        "Embedder",
        "VariantSpec",
        "Variant",
        "BaseModel",
        "DEFAULT_MODEL",
        "get_variant",
        "list_variants",
        "list_bases",
        "cache_folder",
        "load_encoder",
    },
    "indexes": {
        "Index",
        "IndexConfig",
        "Change",
        "check_target",
        "read_manifest",
        "Manifest",
        "FileEntry",
        "list_backends",
    },
    "benchmarks": {
        "run_benchmark",
        "BenchConfig",
        "read_results",
        "Result",
        "compare",
        "CompareConfig",
    },
    "cli": {"app"},
}

MAY_IMPORT = {
    "retrieval": set(),
    "embedder": {"retrieval"},
    "indexes": {"retrieval"},
    "benchmarks": {"retrieval", "embedder", "indexes"},
    "cli": {"retrieval", "embedder", "indexes", "benchmarks"},
}
"""The arrows of cli -> benchmarks -> {embedder, indexes} -> retrieval."""

ALLOWED_BESIDES = {
    "retrieval.retriever": {"embedder", "indexes"},  # puts a model and an index together
    "benchmarks.lab.trace": {"cli"},  # runs commands; not in the wheel
}

MOST_FILES = 16
"""A folder with more modules than this wants rooms; but every command has a file of its own."""

LIGHT = {
    "embedder.environment",
    "embedder.models.names",
    "retrieval.errors",
    "retrieval.passages",
    "retrieval.runs",
    "retrieval.typed",
    "retrieval.types",
}
"""What the command line imports before it knows which command runs: no numpy, no torch."""

NEVER_IMPORT = {
    "retrieval": {"torch", "transformers", "faiss"},
    "indexes": {"torch", "transformers"},
    "embedder": {"faiss", "typer", "rich"},
    "benchmarks": {"typer"},
}


def modules_of(package):
    """Yield each module of a package with its file."""
    for path in sorted((ROOT / package).rglob("*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path


def find_edges():
    """Return, for each of our modules, those that it imports, in functions and for types too."""
    modules = {name: path for package in PACKAGES for name, path in modules_of(package)}
    modules["millpond"] = ROOT / "millpond.py"
    edges = {}
    for name, path in modules.items():
        edges[name] = set()
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                edges[name] |= {alias.name for alias in node.names} & set(modules)
            elif isinstance(node, ast.ImportFrom) and node.module in modules:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found = inner & set(modules)
                edges[name] |= found if found == inner else found | {node.module}
    return edges


def find_circle(edges):
    """Return the modules of a circle of imports, the first again at the end; [] without one."""
    finished, path = set(), []

    def follow(module):
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return []
        path.append(module)
        for imported in sorted(edges[module]):
            if circle := follow(imported):
                return circle
        finished.add(path.pop())
        return []

    return next((circle for module in sorted(edges) if (circle := follow(module))), [])


def find_imports(package):
    """Yield (file, module, inside a function or not) for each absolute import."""
    for path in sorted((ROOT / package).rglob("*.py")):
        tree = ast.parse(path.read_text(), str(path))
        lazy = {
            id(node)
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            or (isinstance(function, ast.If) and ast.unparse(function.test) == "TYPE_CHECKING")
            for node in ast.walk(function)
        }
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
                names = [node.module or ""]
            for name in names:
                yield path, name, id(node) in lazy


@pytest.mark.parametrize("package", PACKAGES)
def test_public_names_are_these_and_exist(package):
    module = importlib.import_module(package)
    exported = list(getattr(module, "__all__", []))
    assert len(exported) == len(set(exported))
    assert set(exported) == PUBLIC_NAMES[package]
    assert [name for name in exported if not hasattr(module, name)] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package):
    wrong = set()
    for module, imported in find_edges().items():
        if module.partition(".")[0] == package:
            allowed = MAY_IMPORT[package] | {package} | ALLOWED_BESIDES.get(module, set())
            wrong |= {(module, name) for name in imported if name.partition(".")[0] not in allowed}
    assert wrong == set()


def test_no_circle_of_imports_even_in_functions_and_for_types():
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    circle = find_circle(find_edges())
    assert circle == [], " -> ".join(circle)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_is_a_flat_pile(package):
    folders = Counter(path.parent.relative_to(ROOT).as_posix() for _, path in modules_of(package))
    del folders["cli/commands"]
    product = {name: count for name, count in folders.items() if "benchmarks/lab" not in name}
    assert {name: count for name, count in product.items() if count > MOST_FILES} == {}


@pytest.mark.parametrize("package", sorted(NEVER_IMPORT))
def test_packages_stay_free_of_what_is_not_theirs(package):
    found = {(str(path), name.partition(".")[0]) for path, name, _ in find_imports(package)}
    assert {(path, name) for path, name in found if name in NEVER_IMPORT[package]} == set()


def test_cli_imports_outside_of_commands_only_what_is_light():
    eager = {name for _, name, lazy in find_imports("cli") if not lazy}
    ours = {name for name in eager if name.partition(".")[0] in set(PACKAGES) - {"cli"}}
    assert ours == LIGHT


@pytest.mark.parametrize("package", PACKAGES)
def test_no_package_is_called_like_a_module_of_the_standard_library(package):
    assert package not in sys.stdlib_module_names


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed(package):
    assert (ROOT / package / "py.typed").is_file()


def test_every_command_is_documented():
    from cli.app import app

    texts = [path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]]
    names = [info.name for info in app.registered_commands]
    assert [name for name in names if not any(f"millpond {name}" in text for text in texts)] == []


def read_project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_wheel_is_configured_to_hold_our_packages_and_no_other():
    targets = read_project()["tool"]["hatch"]["build"]["targets"]
    assert sorted(targets["wheel"]["only-include"]) == sorted([*PACKAGES, "millpond.py"])


def test_the_wheel_holds_our_packages_and_no_other(tmp_path, monkeypatch):
    build = pytest.importorskip("hatchling.build", reason="hatchling is not installed")
    monkeypatch.chdir(ROOT)
    name = build.build_wheel(str(tmp_path))
    with zipfile.ZipFile(tmp_path / name) as wheel:
        names = wheel.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {*PACKAGES, "millpond.py"}
    assert [name for name in names if name.startswith("benchmarks/lab")] == []
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert [name for name in names if "__pycache__" in name] == []


def test_constraints_pin_every_dependency_exactly():
    project = read_project()["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"]]
    for extra in ("cpu", "qdrant", "documents", "test"):
        wanted += [text for text in extras[extra] if not text.startswith(f"{project['name']}[")]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    assert {re.split(r"[<>=;\s\[]", text)[0] for text in wanted} <= pinned
    assert [line for line in lines if line and not line.startswith("#") and "==" not in line] == []
