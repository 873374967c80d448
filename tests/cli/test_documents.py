"""A folder of many formats is indexed by one command, and each file answers a question."""

import pytest

from tests.retrieval.documents import made


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made.write_folder(tmp_path_factory.mktemp("made") / "all")


QUESTIONS = {
    "bread.rst": ("rye loaves oven", "Bread > Ovens"),
    "guide.md": ("sluice gate brass key", "Guide > Install > Windows"),
    "hedges.odt": ("hazel cut february", "Hedges > Care"),
    "herons.html": ("herons nest alder", "Herons > Nests"),
    "inbox.mbox/<m2@x>": ("cats granary mice", ""),
    "ledger.docx": ("boy earns shillings", "Wages"),
    "letter.eml": ("paddles larch", ""),
    "mill.py": ("flour granite stones", "Mill > grind"),
    "notes.txt": ("otters tail race", ""),
    "rain.ipynb": ("wettest month", "Rainfall"),
    "tales.epub": ("ferryman eels", "The ferry"),
    "toads.pptx": ("newts stay", "Newts, page 2"),
    "toll.go": ("barge pays lock", "Toll"),
    "weir.pdf": ("ducks return april", "Chapter 2, page 2"),
}


def test_every_format_answers_its_question(millpond, folder, tmp_path):
    made_index = millpond("index", folder, "--out", tmp_path / "i", "--passages", 14)
    assert made_index.exit_code == 0, made_index.stderr
    assert "1 attachment of an e-mail is not read." in made_index.stderr
    for name, (question, place) in QUESTIONS.items():
        shown = millpond("search", tmp_path / "i", question, "-k", 1, "--mode", "lexical")
        first, second = shown.stdout.splitlines()[:2]
        assert f"  all/{name}" in first
        assert not place or second == f"    {place}"
    kept = millpond("update", tmp_path / "i", folder / "guide.md")
    assert "Kept 1 in " in kept.stderr
    info = millpond("info", tmp_path / "i").stdout
    assert ["files", "all/", str(folder)] in [line.split() for line in info.splitlines()]
    found = millpond("search", tmp_path / "i", "gate", "--filter", "modified > '2020-01-01'")
    assert "guide.md" in found.stdout
