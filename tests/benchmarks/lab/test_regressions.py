"""The scores that the docs quote: they are those of the table, and the table can be made again."""

import re
from pathlib import Path
from statistics import fmean

import pytest

from benchmarks.lab.regressions import PAGE, TABLE, main, read_plan
from tests.benchmarks import fakes

ROOT = Path(__file__).resolve().parents[3]
SETS = {"STS-B test": "STSB-test", "XQuAD": "xquad-en"}
MODELS = {"BM25": "bm25", "dense": "millpond-135m", "rrf": "hybrid, rrf"}
FIRST_COLUMNS = {"docs/builtin-model.md": "task", "docs/hybrid.md": "set"}


def read_rows(page, first):
    """Yield (row, column, cell) of the table of a page whose first column is called so."""
    lines = (ROOT / page).read_text().splitlines()
    [start] = [place for place, line in enumerate(lines) if line.startswith(f"| {first} |")]
    head = [cell.strip(" `") for cell in lines[start].strip("|").split("|")]
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return
        cells = [cell.strip(" *") for cell in line.strip("|").split("|")]
        yield from ((cells[0], column, cell) for column, cell in zip(head, cells, strict=True))


@pytest.mark.parametrize("page", FIRST_COLUMNS)
def test_the_scores_of_a_page_are_those_of_the_table(page):
    plan = read_plan(TABLE.read_text())
    checked = 0
    for row, column, cell in read_rows(page, FIRST_COLUMNS[page]):
        model = MODELS.get(column, column)
        if model not in plan.models or not cell:
            continue
        name = SETS.get(row.partition(",")[0], row.partition(",")[0])
        name = next((one for one in plan.sets if one.lower() == name.lower()), name)
        if name == "mean":
            ranked = [one for one in plan.rows if plan.sets[one.set][0] == "ndcg@10"]
            expected = fmean(one.score for one in ranked if one.model == model)
        else:
            expected = plan.score(model, name)
        assert expected is not None, f"{page}: {model} on {name} is not in regressions.toml"
        assert float(cell) == pytest.approx(expected, abs=0.51 * 10 ** -len(cell[2:])), (
            row,
            column,
        )
        checked += 1
    assert checked > 10
    assert "regressions.md" in (ROOT / page).read_text()


def test_bm25_in_the_example_of_bench_and_the_scores_of_the_readme_are_those_of_the_table():
    plan = read_plan(TABLE.read_text())
    shown = (ROOT / "docs" / "benchmarks.md").read_text().partition("metric        1\n")[2]
    rows = [line.split() for line in shown.partition("\n\n")[0].splitlines()]
    assert len(rows) == 6
    for name, _, score in rows:
        assert float(score) == pytest.approx(plan.score("bm25", name), abs=0.00051)
    readme = (ROOT / "README.md").read_text().partition("## What to expect today")[2]
    quoted = re.findall(r"\b0\.\d{3}\b", readme.partition("## ")[0])
    known = {f"{one.score:.3f}" for one in plan.rows}
    assert quoted and set(quoted) <= known


def test_the_page_is_the_table():
    assert PAGE.read_text() == read_plan(TABLE.read_text()).render()


SMALL = """scores = [
  { model = "words", set = "ponds", score = 0.1, tolerance = 0.01 },
  { model = "bm25", set = "ponds", score = 1, tolerance = 0.01 },
]
[models]
words = "words"
bm25 = "bm25"
[sets]
ponds = { metric = "ndcg@10", path = "beir/ponds" }
"""


def test_a_score_that_is_off_fails_and_is_written_when_that_is_asked_for(tmp_path, capsys):
    fakes.write_all(tmp_path / "data")
    table, page = tmp_path / "table.toml", tmp_path / "page.md"
    table.write_text(SMALL)
    said = [str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--table", str(table)]
    said += ["--page", str(page)]
    with pytest.raises(SystemExit, match="1"):
        main(said, load=fakes.Models())
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"DIFFERS words on ponds: .*, expected 0\.1 within 0\.01", first)
    assert second == "ok      bm25 on ponds: 1.0000, expected 1 within 0.01"
    assert table.read_text() == SMALL

    with pytest.raises(SystemExit, match="0"):
        main([*said, "--update"], load=fakes.Models())
    found = read_plan(table.read_text())
    assert found.score("words", "ponds") > 0.2
    assert page.read_text() == found.render()
    with pytest.raises(SystemExit, match="0"):
        main(said, load=fakes.Models())


def test_a_model_that_is_not_there_fails_alone(tmp_path, capsys):
    fakes.write_all(tmp_path / "data")
    table = tmp_path / "table.toml"
    table.write_text(SMALL.replace('words = "words"', 'words = "broken words"'))
    said = [str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--table", str(table)]
    with pytest.raises(SystemExit, match="1"):
        main(said, load=fakes.Models())
    assert [line[:7] for line in capsys.readouterr().out.splitlines()] == ["FAILED ", "ok     "]
