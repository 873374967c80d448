"""The page in headless Chromium: opened from disk, clicked through, phone and desktop."""

import pytest

from benchmarks.report import collect, render_page
from benchmarks.significance.compare import compare as compare_results
from benchmarks.significance.comparison import CompareConfig
from tests.benchmarks.significance.test_ranking import make_board

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 900}


@pytest.fixture(scope="module")
def page_file(report, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_page(report), encoding="utf-8")
    return path


@pytest.fixture
def open_page(chromium):
    """Open a file, and afterwards check that it complained of nothing and asked for nothing."""
    problems, pages = [], []

    def open_file(path, viewport=DESKTOP, scheme="light"):
        page = chromium.new_page(viewport=viewport, color_scheme=scheme)
        page.set_default_timeout(120_000)  # a busy machine is no failure
        pages.append(page)
        page.on("console", lambda line: problems.append(f"console: {line.text}"))
        page.on("pageerror", lambda error: problems.append(f"page: {error}"))
        page.on("dialog", lambda box: (problems.append(f"dialog: {box.message}"), box.dismiss()))
        page.on(
            "request",
            lambda request: (
                request.url in (path.as_uri(), "data:,")
                or problems.append(f"request: {request.url}")
            ),
        )
        page.goto(path.as_uri())
        page.wait_for_selector("#cost svg, #cost .notice")
        return page

    yield open_file
    for page in pages:
        page.close()
    assert problems == []


def first_models(page):
    return page.locator(".leaderboard").first.locator("tbody th").all_inner_texts()


def first_scores(page, column):
    cells = page.locator(".leaderboard").first.locator(f"tbody tr td:nth-of-type({column})")
    return [text.split()[0] for text in cells.all_inner_texts()]


def pick(page, section, place, label):
    page.locator(f"#{section} select").nth(place).select_option(label=label)


TAKE_EVERY_CHOICE = """box => {
  for (const option of [...box.options].filter(option => !option.disabled)) {
    box.value = option.value;
    box.dispatchEvent(new Event("change", { bubbles: true }));
  }
}"""


def click_through(page):
    """Sort by every heading, take every choice of every select, open what can be opened."""
    for head in page.locator(".leaderboard thead button").all():
        head.click()
        head.click()
    for select in page.locator("select").all():
        select.evaluate(TAKE_EVERY_CHOICE)
    pick(page, "two", 0, "scifact (ndcg@10)")
    pick(page, "two", 1, "bm25")
    pick(page, "two", 2, "millpond-135m")
    page.get_by_role("button", name="Swap A and B").click()
    for summary in page.locator("details > summary").all():
        summary.click()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_the_page_survives_every_click_and_never_scrolls_sideways(
    open_page, page_file, viewport, scheme
):
    page = open_page(page_file, viewport, scheme)
    click_through(page)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= viewport["width"]
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 27)"}[scheme]


def test_a_heading_sorts_down_then_up_and_keeps_missing_scores_last(open_page, page_file):
    page = open_page(page_file)
    head = page.locator(".leaderboard").first.get_by_role("button", name="cisi")
    head.click()
    down = first_scores(page, 2)
    assert down[:-1] == sorted(down[:-1], reverse=True)
    head.click()
    up = first_scores(page, 2)
    assert up[:-1] == sorted(down[:-1])
    assert (up[-1], down[-1]) == (DASH, DASH)
    sorted_by = page.locator(".leaderboard").first.locator("th[aria-sort]")
    assert sorted_by.get_attribute("aria-sort") == "ascending"
    page.locator(".leaderboard").first.get_by_role("button", name="Model").click()
    assert first_models(page) == sorted(first_models(page))


def test_the_heatmap_goes_by_arrow_keys_and_enter_chooses_the_pair(open_page, page_file, report):
    page = open_page(page_file)
    pick(page, "pairs", 0, "banking77 (accuracy)")
    page.locator("[data-place='0-1']").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    order = next(table for table in report.tables if table.task_type == "classification").models
    assert page.locator("#two select").nth(1).locator("option:checked").inner_text() == order[0]
    assert page.locator("#two select").nth(2).locator("option:checked").inner_text() == order[3]
    one = next(
        one
        for one in report.comparison.differences
        if one.task == "banking77" and {one.first, one.second} == {order[0], order[3]}
    )
    shown = page.locator("#pairs .readout").inner_text()
    assert f"+{abs(one.difference):.3f}" in shown
    assert "10 texts" in shown


def test_cells_say_sign_and_significance_without_colour(open_page, page_file):
    page = open_page(page_file)
    pick(page, "pairs", 0, "banking77 (accuracy)")
    upper, lower = (page.locator(f"[data-place='{place}']") for place in ("0-4", "4-0"))
    assert upper.inner_text().startswith("+")
    assert lower.inner_text().startswith(MINUS)
    assert ", significant" in upper.get_attribute("aria-label")
    weight = upper.locator(".number").evaluate("node => getComputedStyle(node).fontWeight")
    assert weight == "700"


def test_the_scatter_is_read_by_arrow_keys_and_by_hover(open_page, page_file):
    page = open_page(page_file)
    pick(page, "two", 0, "scifact (ndcg@10)")
    page.locator(".scatter").focus()
    page.keyboard.press("ArrowRight")
    shown = page.locator("#two .readout")
    assert "queries: 0.000 against 0.000" in shown.inner_text()
    assert "what is known about" in shown.inner_text()
    pick(page, "two", 0, "sts-benchmark (spearman)")
    page.locator("circle.dot").last.hover()
    assert "true score" in shown.inner_text()


def test_the_queries_that_differ_most_show_the_documents_of_both(open_page, page_file):
    page = open_page(page_file)
    pick(page, "two", 0, "scifact (ndcg@10)")
    assert page.locator("details.query").count() == 20
    page.locator("details.query > summary").first.click()
    hits = page.locator("details.query").first.locator(".hits")
    hits.locator("li").first.wait_for()
    assert hits.locator("li").count() == 2 * 5
    assert "● relevant" in hits.inner_text()
    assert "○ not judged relevant" in hits.inner_text()


def test_the_labels_of_the_cost_plot_do_not_overlap(open_page, page_file):
    page = open_page(page_file)
    for cost in ("Tokens per second", "Median time of a query", "Parameters"):
        pick(page, "cost", 1, cost)
        boxes = [label.bounding_box() for label in page.locator("#cost svg text.label").all()]
        assert len(boxes) >= 4
        for place, one in enumerate(boxes):
            for other in boxes[place + 1 :]:
                across = min(one["x"] + one["width"], other["x"] + other["width"])
                down = min(one["y"] + one["height"], other["y"] + other["height"])
                apart = across <= max(one["x"], other["x"]) or down <= max(one["y"], other["y"]) + 2
                assert apart, cost


def test_text_that_looks_like_markup_stays_text(open_page, write_bench, compare, tmp_path):
    evil = '</script><script>alert("model")</script> & "q" \'s\' <img src=x onerror=alert(2)>'
    folder, results = write_bench(tmp_path / "results", lambda name: evil + name)
    report = collect(folder, results, compare(results), evil, "2026-11-21T08:00:00+00:00")
    path = tmp_path / "report.html"
    path.write_text(render_page(report), encoding="utf-8")
    page = open_page(path)
    click_through_names = page.locator(".leaderboard tbody th").all_inner_texts()
    assert all(name.startswith("</script><script>") for name in click_through_names)
    assert page.locator("img").count() == 0
    pick(page, "two", 0, "medline (ndcg@10)")
    for value in range(2):
        page.locator("#two select").nth(2 - value).select_option(str(value))
    for summary in page.locator("details > summary").all():
        summary.click()
    page.locator(".scatter").focus()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    assert "alert(" in page.locator("#two").inner_text()


def test_the_page_of_one_model_says_that_there_is_no_pair(
    open_page, results_folder, results, tmp_path
):
    from benchmarks.significance.compare import compare_nothing
    from benchmarks.significance.comparison import CompareConfig

    own = [one for one in results if one.model == "millpond-135m"]
    report = collect(results_folder, own, compare_nothing(own, CompareConfig()), "0", "2026-11-21")
    path = tmp_path / "report.html"
    path.write_text(render_page(report), encoding="utf-8")
    page = open_page(path, PHONE)
    assert "no pair to compare" in page.locator("#pairs").inner_text()
    assert "No two models have scores of single items" in page.locator("#two").inner_text()


def test_the_printed_page_holds_the_pairs_of_every_task(open_page, page_file):
    page = open_page(page_file)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    titles = page.locator("#pairs .printed h3").all_inner_texts()
    assert len([title for title in titles if "(" in title and "mean" not in title]) == 10
    assert not page.locator("#pairs .controls").is_visible()


def test_many_imported_models_are_in_groups_and_only_those_in_sight_are_on_the_page(
    open_page, tmp_path
):
    board = make_board([0.1 + 0.005 * number for number in range(150)], tasks=24)
    comparison = compare_results(board, CompareConfig(resamples=1_000))
    path = tmp_path / "many.html"
    path.write_text(render_page(collect(tmp_path, board, comparison, "0.1.0", "2026-11-30")))
    page = open_page(path)
    ranking = page.locator("#ranking")
    assert ranking.locator("tbody tr").count() < 60
    assert ranking.locator("tbody th").first.inner_text() == "m149 imported"
    groups = ranking.locator("tbody tr:not(.spacer) td:first-child").all_inner_texts()
    assert groups[0] == "1" and groups == sorted(groups, key=int) and groups[-1] != "1"
    ranking.locator(".scroller").evaluate("box => { box.scrollTop = box.scrollHeight; }")
    ranking.locator("tbody tr", has_text="m0 imported").wait_for()
    page.locator("input[type=search]").last.fill("m14")
    rows = page.locator("#leaderboard-tables tbody tr")
    rows.nth(10).wait_for()
    assert rows.count() == 11  # m14, and m140 to m149
