"""Searching one index in headless Chromium."""

import re

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect
PHONE = {"width": 360, "height": 740}


@pytest.fixture(autouse=True)
def patient():
    expect.set_options(timeout=120_000)


def ask(page, query):
    page.locator("#query").fill(query)
    page.keyboard.press("Enter")


def names(hits):
    return [hit["title"] for hit in hits]


def test_a_typed_query_shows_what_the_api_finds(open_page, client, find):
    page = open_page(client)
    expect(page.locator("#query")).to_be_focused()
    expect(page.locator("#results")).to_contain_text("10 documents")
    page.locator("#k").fill("4")
    ask(page, "who builds dams")
    hits = find(client, "who builds dams", k=4)
    expect(page.locator(".hit .name")).to_have_text(names(hits))
    expect(page.locator(".hit .rank")).to_have_text(["1", "2", "3", "4"])
    scores = [f"{hit['score']:.3f}".replace("-", "\N{MINUS SIGN}") for hit in hits]
    expect(page.locator(".hit .score")).to_have_text([f"score {score}" for score in scores])
    expect(page.locator("#status")).to_have_text("4 results in animals.")
    taken = re.compile(r"^Query embedded in [\d.]+ m?s, searched in [\d.]+ m?s\.$")
    expect(page.locator(".latency")).to_have_text(taken)
    first = page.locator(".hit").first
    expect(first.locator(".fields")).to_contain_text(f"year{hits[0]['metadata']['year']}")


def test_the_model_chooses_the_sentence_that_is_marked(open_page, client, find, encoder):
    page = open_page(client)
    ask(page, "who swims")
    expect(page.locator(".marking")).to_have_text("Marked: the sentence nearest to the query.")
    query = encoder.vector("who swims", "query")
    expected = []
    for hit in find(client, "who swims"):
        sentences = [f"{part.rstrip('.')}." for part in hit["text"].split(". ")]
        expected.append(max(sentences, key=lambda one: float(query @ encoder.vector(one))))
    assert len({sentence.split()[0] for sentence in expected}) == 2  # first ones and second ones
    expect(page.locator(".hit mark.by-model")).to_have_text(expected)


def test_a_passage_says_where_it_stands_and_an_address_is_a_link(open_page, client):
    page = open_page(client)

    def place_first(route):
        answer = route.fetch()
        found = answer.json()
        fields = {"heading": "Guide > Install", "page": 12, "url": "https://mill.example/a"}
        passage = {"number": 0, "start": 0, "stop": 9}
        found["hits"][0] |= {"metadata": fields, "passage": passage}
        route.fulfill(response=answer, json=found)

    page.route("**/v1/search", place_first)
    ask(page, "who swims")
    first = page.locator(".hit").first
    expect(first.locator(".place")).to_have_text("Guide > Install, page 12")
    expect(first.locator(".fields a")).to_have_attribute("href", "https://mill.example/a")
    expect(first.locator(".fields")).not_to_contain_text("Guide")
    expect(page.locator(".place")).to_have_count(1)


def test_without_the_model_the_sentence_that_shares_most_words_is_marked(open_page, client):
    page = open_page(client, refusals=True)

    def refuse_documents(route):
        busy = '{"error": {"message": "The queue is full."}}'
        if '"document"' in route.request.post_data:
            route.fulfill(status=429, body=busy, headers={"Retry-After": "7"})
        else:
            route.continue_()

    page.route("**/v1/embeddings", refuse_documents)
    ask(page, "what swims in a POND")
    expect(page.locator(".marking")).to_contain_text("because the model gave no answer")
    expect(page.locator(".marking")).to_contain_text("the server is busy")
    expect(page.locator("mark.by-words")).to_have_text([re.compile("swims in the pond.$")] * 10)


def test_queries_that_come_again_are_not_embedded_again(open_page, client, encoder):
    page = open_page(client)
    ask(page, "who builds dams")
    expect(page.locator(".marking")).to_have_text("Marked: the sentence nearest to the query.")
    before = len(encoder.batches)
    page.locator("#k").fill("3")
    page.keyboard.press("Enter")
    expect(page.locator(".hit")).to_have_count(3)
    expect(page.locator(".latency")).to_have_text(re.compile("^Query embedded before, searched in"))
    expect(page.locator(".marking")).to_have_text("Marked: the sentence nearest to the query.")
    assert len(encoder.batches) == before


def test_a_filter_narrows_and_a_wrong_one_is_explained_at_its_box(open_page, client, find):
    page = open_page(client, refusals=True)
    expect(page.locator("#filter-hint .name")).to_have_text(["year int", "kind string"])
    page.locator("#filter-hint .name").first.click()
    page.keyboard.type(">= 2023")
    expect(page.locator("#filter")).to_have_value("year >= 2023")
    ask(page, "water")
    expected = find(client, "water", filter="year >= 2023")
    assert {hit["doc_id"] for hit in expected} == {"d8", "d9"}
    expect(page.locator(".hit .name")).to_have_text(names(expected))
    for wrong in ("year >=", "colour == 1", 'year == "x"'):
        page.locator("#filter").fill(wrong)
        page.keyboard.press("Enter")
        refused = client.post("/v1/search", json={"query": "water", "filter": wrong})
        says = refused.json()["error"]["message"]
        expect(page.locator("#filter-problem")).to_have_text(" ".join(says.split()))
        expect(page.locator("#filter")).to_have_attribute("aria-invalid", "true")
        expect(page.locator(".hit")).to_have_count(0)
    page.locator("#filter").fill("year == 1")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("No document matches the filter.")
    expect(page.locator("#filter-problem")).to_be_hidden()


def test_results_are_walked_opened_and_closed_by_keys(open_page, client):
    page = open_page(client)
    ask(page, "water")
    titles = page.locator(".hit .title")
    expect(titles).to_have_count(10)
    page.keyboard.press("ArrowDown")
    expect(titles.nth(0)).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(titles.nth(1)).to_be_focused()
    expect(titles.nth(1)).to_have_attribute("aria-expanded", "true")
    expect(page.locator(".hit").nth(1).locator(".late dd")).to_be_visible()  # the id
    page.keyboard.press("Escape")
    expect(titles.nth(1)).to_have_attribute("aria-expanded", "false")
    expect(titles.nth(1)).to_be_focused()
    page.keyboard.press("End")
    expect(titles.nth(9)).to_be_focused()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowUp")
    expect(page.locator("#query")).to_be_focused()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("/")
    expect(page.locator("#query")).to_be_focused()
    expect(page.locator("#query")).to_have_value("water")


def test_a_long_text_is_cut_around_its_best_sentence_until_it_is_opened(
    open_page, serve, make_index, encoder
):
    filler = "Nothing of note happens in this part. " * 40
    text = f"{filler}Herons stand still for hours.\n\n{filler}"
    index = make_index("long", encoder, [("d", "Birds", text, {})], {})
    page = open_page(serve([index.model], [index]), refusals=True)
    page.route(
        "**/v1/embeddings",
        lambda route: route.abort() if "Nothing" in route.request.post_data else route.continue_(),
    )
    ask(page, "herons")
    shown = page.locator(".hit .text")
    expect(shown.locator("mark")).to_have_text("Herons stand still for hours.")
    assert len(shown.inner_text()) < 320
    assert shown.inner_text().startswith("… ")
    page.locator(".hit .title").click()
    expect(shown).to_have_text(" ".join(text.split()))
    assert shown.evaluate("node => node.textContent") == text


def test_the_address_holds_the_search_and_back_goes_back(open_page, client, find):
    page = open_page(client)
    ask(page, "first question")
    expect(page.locator(".hit")).to_have_count(10)
    page.locator("#k").fill("2")
    page.locator("#filter").fill('kind == "mammal"')
    ask(page, "second & <question>")
    expect(page.locator(".hit")).to_have_count(2)
    assert page.url.endswith("/?q=second+%26+%3Cquestion%3E&k=2&filter=kind+%3D%3D+%22mammal%22")
    link = page.url.removeprefix(client.running.url)
    restored = open_page(client, link)
    hits = find(client, "second & <question>", k=2, filter='kind == "mammal"')
    expect(restored.locator(".hit .name")).to_have_text(names(hits))
    expect(restored.locator("#filter")).to_have_value('kind == "mammal"')
    expect(restored).to_have_title("second & <question> · millpond")
    page.go_back()
    expect(page.locator(".hit .name")).to_have_text(names(find(client, "first question")))
    expect(page.locator("#k")).to_have_value("10")


def test_text_that_looks_like_markup_stays_text(open_page, serve, make_index, encoder):
    evil = "<img src=x onerror=alert(1)></li><script>alert(2)</script>&amp;"
    rows = [(f"{evil} id", f"{evil} title", f"{evil} one. Two {evil}.", {f"{evil}": evil})]
    index = make_index(f"{evil} index", encoder, rows, {evil: evil})
    page = open_page(serve([index.model], [index]))
    ask(page, evil)
    expect(page.locator(".hit .name")).to_have_text(f"{evil} title")
    page.locator(".hit .title").click()
    expect(page.locator(".hit .fields")).to_contain_text(f"{evil} id")
    page.locator("#filter-hint .name").click()
    expect(page.locator("#filter")).to_have_value(f"`{evil}` ")
    assert page.locator("img, li script").count() == 0
    assert page.locator("h2").inner_text() == f"{evil} index"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(open_page, serve, make_index, encoder, scheme):
    long = "Donaudampfschifffahrtsgesellschaft" * 4
    rows = [(f"{place}{long}", f"{long} {place}", long, {long: long}) for place in range(5)]
    index = make_index("long-words-" * 6, encoder, rows, {long: "string"})
    page = open_page(serve([index.model], [index]), "/", PHONE, scheme)
    ask(page, long)
    expect(page.locator(".hit")).to_have_count(5)
    page.locator(".hit .title").first.click()
    expect(page.locator(".hit .late").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 27)"}[scheme]
