import csv
import io
import json
import math
import re

import pytest

from benchmarks.report import collect, render_csv, render_markdown, render_page
from benchmarks.report.collect import page_data
from benchmarks.report.items import most_different
from benchmarks.report.page import embed_json
from benchmarks.significance.compare import compare_nothing
from benchmarks.significance.comparison import CompareConfig

MEAN_CAUSAL = "smollm2-135m:mean+causal"
TWELVE = "smollm2-135m:mean+bidirectional,base_layers=12"


@pytest.fixture(scope="module")
def data(report):
    return page_data(report)


def table_of(report, task_type):
    return next(table for table in report.tables if table.task_type == task_type)


def test_task_types_come_in_their_order_and_models_best_first(report):
    task_types = [table.task_type for table in report.tables]
    assert task_types == ["retrieval", "sts", "classification", "clustering"]
    retrieval = table_of(report, "retrieval")
    means = [retrieval.means[name].score for name in retrieval.models[:-1]]
    assert means == sorted(means, reverse=True)
    assert [column.task for column in retrieval.columns] == [
        "cisi",
        "cranfield",
        "medline",
        "scifact",
    ]


def test_a_mean_is_the_mean_of_the_tasks(report, results):
    scores = [one.main_score for one in results if one.model == "bm25"]
    mean = table_of(report, "retrieval").means["bm25"].score
    assert mean == pytest.approx(sum(scores) / 4)


def test_a_model_without_a_task_has_no_mean_and_comes_last(report):
    table = table_of(report, "retrieval")
    assert table.models[-1] == MEAN_CAUSAL
    assert MEAN_CAUSAL not in table.means
    assert MEAN_CAUSAL not in table.columns[0].cells


def test_a_model_without_any_task_of_a_task_type_is_named(report):
    assert table_of(report, "sts").absent == ["bm25"]


def test_an_undefined_score_has_its_reason_and_no_letter(report):
    cell = table_of(report, "sts").columns[0].cells[TWELVE]
    assert math.isnan(cell.score)
    assert cell.reason == "Spearman's correlation is undefined: every cosine is 0.5."
    assert cell.marks == ""


def test_letters_agree_with_the_comparison_on_every_task(report, comparison):
    cells = {column.task: column.cells for table in report.tables for column in table.columns}
    tested = [one for one in comparison.differences if not math.isnan(one.p)]
    assert any(one.significant for one in tested)
    for one in tested:
        first, second = (cells[one.task][name].marks for name in (one.first, one.second))
        assert bool(set(first) & set(second)) == (not one.significant)


def test_a_baseline_gives_plus_and_minus_instead_of_letters(results_folder, results, compare):
    report = collect(results_folder, results, compare(results, baseline=MEAN_CAUSAL), "0", "")
    cells = table_of(report, "classification").columns[0].cells
    assert cells["millpond-135m"].marks == "+"
    assert cells[MEAN_CAUSAL].marks == ""
    flipped = collect(results_folder, results, compare(results, "millpond-135m"), "0", "")
    assert (
        table_of(flipped, "classification").columns[0].cells[MEAN_CAUSAL].marks == "\N{MINUS SIGN}"
    )


def test_most_different_takes_the_largest_gaps_of_each_side():
    first, second = [10, 5, 0, None, 3, 7], [0, 5, 9, 4, 8, 1]  # gaps 10, 0, -9, none, -5, 6
    assert most_different(first, second, 10) == ([0, 5], [2, 4])
    assert most_different(first, second, 1) == ([0], [2])


def test_item_scores_are_whole_ten_thousandths_of_the_results(data, results):
    whole, blocks = data
    task = next(n for n, task in enumerate(whole["tasks"]) if task["name"] == "scifact")
    model = next(n for n, model in enumerate(whole["models"]) if model["name"] == "bm25")
    result = next(one for one in results if (one.model, one.task) == ("bm25", "scifact"))
    assert blocks[task]["values"][model] == [round(v * 10_000) for v in result.items["ndcg@10"]]
    assert blocks[task]["ids"] == [str(number) for number in range(1, 301)]


def test_a_missing_cell_has_no_item_scores(data):
    whole, blocks = data
    task = next(n for n, task in enumerate(whole["tasks"]) if task["name"] == "cisi")
    rows = zip(whole["models"], blocks[task]["values"], strict=True)
    assert [model["name"] for model, row in rows if row is None] == [MEAN_CAUSAL]


def test_hits_are_kept_for_the_queries_that_a_pair_shows_and_no_others(data):
    whole, blocks = data
    task = next(n for n, task in enumerate(whole["tasks"]) if task["name"] == "scifact")
    block = blocks[task]
    for number, kept in enumerate(block["hits"]):
        shown = {
            item
            for pair, sides in block["most"].items()
            if str(number) in pair.split("-")
            for side in sides
            for item in side
        }
        assert set(kept) == shown
    assert sum(map(len, block["hits"])) < 6 * 300
    row = next(iter(block["hits"][0].values()))
    assert len(row) == 2 * 5  # five documents, each with its relevance


def test_notes_name_the_models_that_they_are_about(data):
    whole, _ = data
    undefined = next(note for note in whole["notes"] if "undefined" in note["text"])
    assert (undefined["task"], undefined["models"]) == ("sick-relatedness", [TWELVE])
    left_out = next(note for note in whole["notes"] if note["task"] == "cranfield")
    assert len(left_out["models"]) == 6
    assert whole["versions"]["torch"] == "2.8.0 / 2.9.0"


@pytest.mark.parametrize(
    "text", ["</script>", "<!--<script>", "]]>", "&lt;", "\u2028", '"quoted"', "\ud800", "@DATA@"]
)
def test_json_on_the_page_holds_any_text_and_no_markup(text):
    embedded = embed_json({text: [text]})
    assert re.search("[<>&\u2028\u2029]", embedded) is None
    assert json.loads(embedded) == {text: [text]}
    embedded.encode()


def test_the_page_holds_no_address_and_only_its_own_scripts(report):
    page = render_page(report)
    head = page.partition("<script")[0]
    targets = re.findall(r"""(?:src|href)=["']?([^"' >]*)""", head)
    assert [one for one in targets if not one.startswith(("#", "data:,"))] == []
    assert "url(" not in head
    assert page.count("<script>") == 1
    assert page.count("</script>") == 1 + 1 + 10  # the script, the whole's data, each task's
    assert "default-src 'none'" in page
    assert re.search(r"@[A-Z_]+@", page) is None


def test_the_page_weighs_less_than_two_megabytes_for_six_models_and_ten_tasks(report):
    assert len(render_page(report).encode()) < 2_000_000


def test_markdown_has_letters_dashes_and_what_is_undefined(report):
    text = render_markdown(report)
    row = next(line for line in text.splitlines() if line.startswith(f"| `{MEAN_CAUSAL}`"))
    assert row.split(" | ")[1:3] == ["\N{EN DASH}"] * 2
    assert "| undefined |" in text
    assert re.search(r"\*\*0\.\d{3}\*\* a", text)
    assert "## Significant differences" in text
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| ")}
    assert widths == {5, 3, 6}  # retrieval; two tasks each for the others; the differences


def test_markdown_lists_every_significant_difference_the_better_model_first(report, comparison):
    significant = [one for one in comparison.differences if one.significant]
    text = render_markdown(report)
    lines = text.partition("## Significant differences")[2].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][2:]
    assert len(rows) == len(significant)
    for row, one in zip(rows, significant, strict=True):
        better = one.first if one.difference > 0 else one.second
        assert row[1] == f"`{better}`"
        assert row[3] == f"{abs(one.difference):.3f}"


def test_markdown_keeps_a_pipe_and_a_backtick_in_a_name_inside_the_cell():
    from benchmarks.report.markdown import code, plain

    assert code("a|b\nc") == "`a\\|b c`"
    assert code("a`b") == "``a`b``"
    assert plain("<b>*x*") == "\\<b\\>\\*x\\*"


def test_csv_has_a_line_for_each_model_task_and_metric(results):
    rows = list(csv.DictReader(io.StringIO(render_csv(results))))
    assert len(rows) == sum(len(one.metrics) for one in results)
    mains = [row for row in rows if row["is_main"] == "1"]
    for row, result in zip(mains, results, strict=True):
        assert (row["model"], row["task"], row["metric"]) == (
            result.model,
            result.task,
            result.main_metric,
        )
        if math.isnan(result.main_score):
            assert row["score"] == ""
        else:
            assert float(row["score"]) == result.main_score
    assert mains[0]["parameters"] == ""  # bm25 has none
    assert float(mains[0]["peak_memory_bytes"]) == 2.1e9


def test_one_model_makes_a_report_without_pairs(results_folder, results):
    own = [one for one in results if one.model == "millpond-135m"]
    report = collect(results_folder, own, compare_nothing(own, CompareConfig()), "0", "")
    cell = table_of(report, "retrieval").columns[0].cells["millpond-135m"]
    assert (cell.marks, cell.leading) == ("", True)
    text = render_markdown(report)
    assert "None of 0 at 0.05 after correction." in text
    assert "- No two models were compared, so nothing was tested." in text
    assert "letter" not in text
    assert "report-data" in render_page(report)
