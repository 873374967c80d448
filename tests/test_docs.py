"""The documentation: links lead somewhere, and the commands and modules it names exist."""

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "benchmarks" / "lab").glob("*.md"),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def find_anchors(page):
    """The anchors that GitHub gives the headings of a page."""
    headings = HEADING.findall(FENCE.sub("", page.read_text()))
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in words}


def test_an_anchor_is_the_heading_in_small_letters_with_hyphens(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One `thing`, two\n\n```\n# a comment\n```\n")
    assert find_anchors(page) == {"one-thing-two"}


@each_page
def test_relative_links_lead_to_a_file_and_a_heading(page):
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        found = target.exists() and (not anchor or anchor in find_anchors(target))
        if not found or not target.resolve().is_relative_to(ROOT):
            broken.append(link)
    assert broken == []


def find_commands(page):
    """The command lines of millpond in the page's code, each as its words."""
    shown = "\n".join(FENCE.findall(page.read_text())).replace("\\\n", " ")
    lines = re.findall(r"^ *(?:\$ )?millpond ([a-z].*)$", shown, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@each_page
def test_commands_and_options_that_are_shown_exist(page):
    from typer.main import get_command

    from cli.app import app

    commands = get_command(app).commands
    unknown = []
    for name, *words in find_commands(page):
        options = {text for option in commands[name].params for text in option.opts}
        unknown += [(name, word) for word in words if word[:2] == "--" and word not in options]
    assert unknown == []


@each_page
def test_modules_that_are_run_exist(page):
    run = re.findall(r"python -m ((?:benchmarks|cli)[\w.]*\w)", page.read_text())
    assert [name for name in run if importlib.util.find_spec(name) is None] == []


@each_page
def test_names_that_are_imported_exist(page):
    ours = r"^ *from ((?:millpond|retrieval|embedder|indexes|benchmarks)[\w.]*) import (.+)$"
    missing = []
    for module, names in re.findall(ours, page.read_text(), re.MULTILINE):
        found = importlib.import_module(module)
        missing += [name for name in names.split(", ") if not hasattr(found, name)]
    assert missing == []


def test_every_script_of_the_lab_is_listed_in_its_readme():
    readme = (ROOT / "benchmarks" / "lab" / "README.md").read_text()
    scripts = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__main__")
        for path in (ROOT / "benchmarks" / "lab").rglob("*.py")
        if "argparse" in path.read_text() and "__main__" in path.read_text()
    }
    helpers = {"benchmarks.lab.speed.index_memory", "benchmarks.lab.speed.serve_target"}
    assert {name for name in scripts - helpers if name not in readme} == set()


@each_page
def test_data_outside_the_repository_is_said_to_be_the_readers_own(page):
    text = page.read_text()
    assert "../shared" not in text or "of your own" in text
