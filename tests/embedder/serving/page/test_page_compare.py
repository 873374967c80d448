"""Two indexes side by side in headless Chromium: rank changes in words and as lines."""

import pytest

from tests.embedder.serving import fakes

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
MINUS = "\N{MINUS SIGN}"
PHONE = {"width": 360, "height": 740}
LINK = "/?q=who+swims&k=6&with=others"


@pytest.fixture(autouse=True)
def patient():
    expect.set_options(timeout=120_000)


@pytest.fixture
def expected(pair, find):
    """Ids of both lists, and what stands beside the hits of the second."""
    first, second = (
        [hit["doc_id"] for hit in find(pair, "who swims", k=6, index=name)]
        for name in ("animals", "others")
    )
    signs = []
    for rank, doc in enumerate(second):
        up = first.index(doc) - rank if doc in first else None
        sign = "new" if up is None else "=" if up == 0 else f"{up:+}".replace("-", MINUS)
        signs.append(sign)
    return first, second, signs


def ids(page, side):
    hits = page.locator(f".column.{side} .hit")
    return hits.evaluate_all("nodes => nodes.map((node) => node.dataset.doc)")


def test_choosing_a_second_index_shows_both_lists_and_what_moved(open_page, pair, expected):
    first, second, signs = expected
    assert len({sign[0] for sign in signs}) >= 3  # the example has ups, downs and new ones
    page = open_page(pair)
    page.locator("#k").fill("6")
    page.locator("#query").fill("who swims")
    page.keyboard.press("Enter")
    expect(page.locator(".hit")).to_have_count(6)
    page.get_by_label("Compare with").select_option("others")
    expect(page.locator(".column.second .hit")).to_have_count(6)
    assert ids(page, "first") == first
    assert ids(page, "second") == second
    expect(page.locator(".second .change > [aria-hidden]")).to_have_text(signs)
    gone = [doc for doc in first if doc not in second]
    expect(page.locator(".first .change > [aria-hidden]")).to_have_text(["gone"] * len(gone))
    both = len(first) - len(gone)
    same = signs.count("=")
    summary = f"{both} in both lists, {same} of them at the same rank; {len(gone)} gone, "
    expect(page.locator("#status")).to_contain_text(summary + f"{signs.count('new')} new.")
    assert page.url.endswith(LINK)


def test_changes_are_words_for_who_does_not_see_the_lines(open_page, pair, expected):
    first, second, signs = expected
    page = open_page(pair, LINK)
    expect(page.locator(".column.second .hit")).to_have_count(6)
    for doc, sign, label in zip(second, signs, page.locator(".second .change").all(), strict=True):
        if sign == "new":
            words = "not in the first list"
        elif sign == "=":
            words = "same rank in both"
        else:
            way = "up" if sign[0] == "+" else "down"
            words = f"{way} {sign[1:]}, from rank {first.index(doc) + 1}"
        expect(label.locator(".unseen")).to_have_text(f", {words}")


def test_a_line_joins_the_titles_of_each_document_that_both_have(open_page, pair, expected):
    first, second, _ = expected
    page = open_page(pair, LINK)
    both = sorted(set(first) & set(second))
    lines = page.locator("svg.lines g.line")
    expect(lines).to_have_count(len(both))
    docs = lines.evaluate_all("nodes => nodes.map((node) => node.dataset.doc)")
    assert sorted(docs) == both

    def joined(doc):
        """Whether the line begins and ends at the height of the document's two titles."""
        ends = [
            page.locator(f".column.{side} .hit[data-doc='{doc}'] .title").bounding_box()
            for side in ("first", "second")
        ]
        box = page.locator(f"svg.lines g[data-doc='{doc}']").bounding_box()
        top, bottom = sorted(end["y"] + end["height"] / 2 for end in ends)
        near = 8  # the head of an arrow is 8 pixels high
        return abs(box["y"] - top) <= near and abs(box["y"] + box["height"] - bottom) <= near

    fakes.wait_until(lambda: all(joined(doc) for doc in both))
    before = page.locator(f"svg.lines g[data-doc='{both[-1]}']").bounding_box()
    page.locator(".column.first .hit .title").first.click()
    expect(page.locator(".column.first .hit.open")).to_have_count(1)
    fakes.wait_until(lambda: all(joined(doc) for doc in both))
    assert before != page.locator(f"svg.lines g[data-doc='{both[-1]}']").bounding_box()


def test_arrows_cross_over_to_the_same_document(open_page, pair, expected):
    first, second, _ = expected
    doc = next(doc for doc in first if doc in second)
    page = open_page(pair, LINK)
    expect(page.locator(".column.second .hit")).to_have_count(6)
    page.locator(f".first .hit[data-doc='{doc}'] .title").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(f".second .hit[data-doc='{doc}'] .title")).to_be_focused()
    expect(page.locator(f".hit.on[data-doc='{doc}']")).to_have_count(2)
    page.keyboard.press("ArrowLeft")
    expect(page.locator(f".first .hit[data-doc='{doc}'] .title")).to_be_focused()


def test_a_filter_that_fits_one_index_only_is_explained_for_the_other(
    open_page, serve, animals, make_index
):
    other = fakes.HashingEncoder("other", dimension=8)
    plain = make_index(
        "plain", other, [("d1", "A", "One. Two.", {"lang": "en"})], {"lang": "string"}
    )
    client = serve([animals.model, plain.model], [animals, plain])
    page = open_page(client, "/?q=x&with=plain&filter=year+>=+2020", refusals=True)
    expect(page.locator(".column.first .hit")).to_have_count(5)  # 2020 to 2024
    expect(page.locator(".column.second")).to_contain_text("does not fit this index")
    expect(page.locator("#filter-problem")).to_contain_text("plain: Unknown filter field 'year'")


def test_one_model_embeds_a_query_once_for_both_of_its_indexes(
    open_page, serve, animals, make_index, encoder
):
    rows = [(f"d{place}", "", f"Text {place}", {}) for place in range(3)]
    second = make_index("second", encoder, rows, {})
    client = serve([animals.model], [animals, second])
    page = open_page(client, "/?q=once&with=second")
    expect(page.locator(".column.second .hit")).to_have_count(3)
    asked = [texts for role, texts in encoder.batches if role == "query"]
    assert asked == [["once"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_one_list_below_the_other(open_page, pair, scheme):
    page = open_page(pair, LINK, PHONE, scheme)
    expect(page.locator(".column.second .hit")).to_have_count(6)
    first, second = (page.locator(f".column.{side}").bounding_box() for side in ("first", "second"))
    assert second["y"] >= first["y"] + first["height"]
    expect(page.locator("svg.lines")).to_be_hidden()
    expect(page.locator(".second .change").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
