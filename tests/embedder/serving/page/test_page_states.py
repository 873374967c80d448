"""What the page says when something is missing or goes wrong."""

import threading

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect


@pytest.fixture(autouse=True)
def patient():
    expect.set_options(timeout=120_000)


def ask(page, query):
    page.locator("#query").fill(query)
    page.keyboard.press("Enter")


def test_without_an_index_the_page_says_how_to_start_one(open_page, serve):
    page = open_page(serve())
    expect(page.locator("#problem")).to_contain_text("millpond serve DIR")
    expect(page.locator("#search")).to_be_hidden()


def test_a_link_to_an_index_that_is_gone_names_those_there_are(open_page, client):
    page = open_page(client, "/?q=x&index=old")
    expect(page.locator("#problem")).to_contain_text("the index old, which is not served here")
    expect(page.locator("#problem")).to_contain_text("Served: animals.")
    expect(page.locator(".hit")).to_have_count(0)
    ask(page, "x")
    expect(page.locator(".hit")).to_have_count(10)
    expect(page.locator("#problem")).to_be_hidden()


def test_a_search_that_takes_long_says_that_it_runs(open_page, client, encoder):
    page = open_page(client)
    expect(page.locator(".indexes")).to_be_visible()
    encoder.gate.clear()
    ask(page, "slow")
    expect(page.locator("#status")).to_have_text("Searching …")
    expect(page.locator("#results")).to_have_attribute("aria-busy", "true")
    encoder.gate.set()
    expect(page.locator(".hit")).to_have_count(10)
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")


def test_a_new_query_replaces_one_that_still_runs(open_page, client, encoder, find):
    page = open_page(client)
    expect(page.locator(".indexes")).to_be_visible()
    encoder.gate.clear()
    ask(page, "abandoned")
    assert encoder.entered.wait(120)
    ask(page, "wanted")
    encoder.gate.set()
    wanted = [hit["title"] for hit in find(client, "wanted")]
    expect(page.locator(".hit .name")).to_have_text(wanted)
    expect(page.locator("#problem")).to_be_hidden()


def test_a_busy_server_is_asked_again_by_itself(open_page, serve, animals, encoder):
    client = serve([animals.model], [animals], queue_requests=1)
    page = open_page(client, refusals=True)
    expect(page.locator(".indexes")).to_be_visible()
    encoder.gate.clear()
    body = {"input": "held"}
    held = threading.Thread(target=client.post, args=("/v1/embeddings",), kwargs={"json": body})
    encoder.entered.clear()
    held.start()
    assert encoder.entered.wait(120)
    ask(page, "water")
    expect(page.locator("#problem")).to_contain_text("Try again")
    expect(page.locator("#problem .clock")).to_contain_text("by itself in")
    encoder.gate.set()
    held.join(120)
    expect(page.locator(".hit")).to_have_count(10)
    expect(page.locator("#problem")).to_be_hidden()


def test_a_server_with_keys_asks_for_one_and_keeps_it_for_the_tab(open_page, serve, animals):
    client = serve([animals.model], [animals], keys=("right-key",))
    page = open_page(client, "/?q=water", refusals=True)
    expect(page.locator("#key-says")).to_contain_text("A key is needed")
    expect(page.locator("#key")).to_be_focused()
    for wrong, says in (("wrong-key", "not one of this server's"), ("two words", "no blanks")):
        page.locator("#key").fill(wrong)
        page.keyboard.press("Enter")
        expect(page.locator("#key-says")).to_contain_text(says)
    page.locator("#key").fill("right-key")
    page.keyboard.press("Enter")
    expect(page.locator(".hit")).to_have_count(10)
    expect(page.locator("#key-form")).to_be_hidden()
    page.reload()
    expect(page.locator(".hit")).to_have_count(10)
    assert "right-key" not in page.url


def test_a_server_that_is_gone_is_said_to_be_gone(open_page, client):
    page = open_page(client, refusals=True)
    expect(page.locator(".indexes")).to_be_visible()
    client.running.stop()
    ask(page, "water")
    expect(page.locator("#problem")).to_contain_text("The server does not answer")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")


def test_an_error_of_the_server_is_shown_in_its_words(open_page, client):
    page = open_page(client, refusals=True)
    ask(page, "poison")
    expect(page.locator("#problem")).to_contain_text("The server failed on request")
    ask(page, " ".join(["long"] * 21))
    expect(page.locator("#problem")).to_contain_text("more than the 20 tokens that hash reads")
    ask(page, "water")
    expect(page.locator(".hit")).to_have_count(10)


SPLIT = """async (text) => {
  const { splitSentences } = await import("/static/sentences.js");
  return splitSentences(text).map(({ start, end }) => text.slice(start, end));
}"""


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        ("One.  Two, e.g. this!\tThree?", ["One.", "Two, e.g. this!", "Three?"]),
        ("join(a, b)\n\nA line\nthat wraps. End", ["A line\nthat wraps."]),
        ("List:\n- the first of them all\n- second\n---", ["- the first of them all"]),
        ("Title\n=====\nBody\n  of it.", ["Body\n  of it."]),
        ("Only a heading\n", ["Only a heading"]),
        ("池には魚がいる。鷺は動かない。", ["池には魚がいる。", "鷺は動かない。"]),
        ("\N{OTTER}\N{OTTER} swim. Yes!", ["\N{OTTER}\N{OTTER} swim.", "Yes!"]),
    ],
)
def test_texts_are_cut_into_sentences_where_a_reader_would(open_page, client, text, sentences):
    assert open_page(client).evaluate(SPLIT, text) == sentences
