"""What each arm gave a hit, and the words that matched, in headless Chromium."""

import os

import pytest

from embedder.serving import ServedIndex
from indexes import Index, IndexConfig
from retrieval import Document
from tests.embedder.serving import fakes

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect

TEXTS = {
    "shutil.rmtree": "Recursively delete a directory tree. Deleting links is refused.",
    "os.mkdir": "Create a directory named path with numeric mode mode.",
    "timeit": "Tool for measuring execution time of small code snippets.",
}


@pytest.fixture(autouse=True)
def patient():
    expect.set_options(timeout=120_000)


@pytest.fixture
def page(open_page, serve, encoder, tmp_path):
    documents = [Document(name, text, name) for name, text in TEXTS.items()]
    config = IndexConfig(language="english")
    index = Index.create(tmp_path / "docs", encoder, documents, config)
    served = ServedIndex("docs", index, fakes.make_model(encoder))
    return open_page(serve([served.model], [served]))


def ask(page, query):
    page.locator("#query").fill(query)
    page.keyboard.press("Enter")


def hit_of(page, name):
    return page.locator(f'.hit[data-doc="{name}"]')


def test_a_hit_has_two_bars_and_its_matched_words_are_marked(page):
    ask(page, "deleting directories")
    expect(page.locator(".hit")).to_have_count(3)
    best = hit_of(page, "shutil.rmtree")
    expect(best.locator(".arm-name")).to_have_text(["meaning", "words"])
    expect(best.locator(".word")).to_have_text(["delete", "directory", "Deleting"])
    expect(hit_of(page, "os.mkdir").locator(".word")).to_have_text(["directory"])
    expect(hit_of(page, "timeit").locator(".word")).to_have_count(0)
    wide = best.locator(".bar rect.lexical").get_attribute("width")
    assert float(wide) == 100  # the best of the list by words
    assert float(hit_of(page, "timeit").locator(".bar rect.lexical").get_attribute("width")) == 0
    expect(page.locator(".marking")).to_have_text("Marked: the sentence nearest to the query.")
    expect(best.locator(".word")).to_have_text(["delete", "directory", "Deleting"])  # still
    if folder := os.environ.get("MILLPOND_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/hybrid.png")


def test_words_alone_can_be_searched_and_the_link_says_so(page):
    page.locator("#mode").select_option("lexical")
    ask(page, "directory")
    expect(page.locator(".hit")).to_have_count(2)
    expect(page.locator(".arm")).to_have_count(0)
    assert "mode=lexical" in page.url
    page.reload()
    expect(page.locator("#mode")).to_have_value("lexical")
    expect(page.locator(".hit")).to_have_count(2)


def test_results_are_whole_while_the_model_still_marks(page):
    held = []

    def hold_documents(route):
        held.append(route) if "document" in route.request.post_data else route.continue_()

    page.route("**/v1/embeddings", hold_documents)
    ask(page, "directory")
    expect(page.locator(".marking")).to_contain_text("asking the model")
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")
    assert len(held) == 1
    held[0].continue_()
    expect(page.locator(".marking")).to_have_text("Marked: the sentence nearest to the query.")
