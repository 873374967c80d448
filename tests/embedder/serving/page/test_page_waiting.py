"""What is asked before the server has said which indexes it has waits for them."""

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = playwright.expect


@pytest.fixture(autouse=True)
def patient():
    expect.set_options(timeout=120_000)


@pytest.fixture
def held(open_page, client):
    """Open the page with its list of indexes held back; return it and what takes a held request."""

    def open_held(path="/", refusals=False):
        page = open_page(client, refusals=refusals)
        waiting = []
        page.route("**/v1/indexes", lambda route: waiting.append(route))
        page.goto(path)
        expect(page.locator("#status")).to_contain_text("Asking the server")

        def take():
            while not waiting:
                page.wait_for_timeout(10)
            return waiting.pop()

        return page, take

    return open_held


def ask(page, query):
    page.locator("#query").fill(query)
    page.keyboard.press("Enter")


def test_a_query_submitted_early_is_searched_for_when_the_indexes_are_known(held):
    page, take = held("/?q=swan&k=5")
    ask(page, "water")
    page.get_by_role("button", name="Search").click()
    take().continue_()
    expect(page.locator(".hit")).to_have_count(5)
    expect(page.locator("#query")).to_have_value("water")
    assert "q=water" in page.url


def test_a_failure_to_list_the_indexes_is_said_and_the_query_is_kept(held):
    page, take = held(refusals=True)
    ask(page, "water")
    take().abort()
    expect(page.locator("#problem")).to_contain_text("The server does not answer")
    page.locator("#query").press("Enter")
    expect(page.locator("#problem")).to_be_hidden()
    take().fulfill(status=500, json={"error": {"message": "The disk is gone."}})
    expect(page.locator("#problem")).to_contain_text("The disk is gone.")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#problem")).to_be_hidden()
    take().continue_()
    expect(page.locator(".hit")).to_have_count(10)
    expect(page.locator("#query")).to_have_value("water")


@pytest.mark.parametrize("box", ["query", "filter"])
def test_what_is_being_typed_is_neither_overwritten_nor_searched_for(held, box):
    page, take = held("/?q=swan")
    page.locator(f"#{box}").fill("half a wo")
    take().continue_()
    expect(page.locator(".indexes")).to_be_visible()
    expect(page.locator(f"#{box}")).to_have_value("half a wo")
    expect(page.locator(".hit")).to_have_count(0)


def test_going_back_before_the_indexes_are_known_asks_what_the_address_asks(held):
    page, take = held("/")
    page.evaluate("history.pushState(null, '', '?q=swan&k=2')")
    ask(page, "water")
    page.evaluate("history.back()")
    expect(page.locator("#query")).to_have_value("")
    page.evaluate("history.forward()")
    expect(page.locator("#query")).to_have_value("swan")
    take().continue_()
    expect(page.locator(".hit")).to_have_count(2)


def test_a_search_that_was_left_neither_appears_nor_leaves_the_page_busy(held):
    page, take = held("/?q=swan")
    take().continue_()
    expect(page.locator(".hit")).to_have_count(10)
    page.route("**/v1/search", lambda route: None)
    ask(page, "water")
    expect(page.locator("#results")).to_have_attribute("aria-busy", "true")
    ask(page, " ")
    expect(page.locator(".indexes")).to_be_visible()
    expect(page.locator("#results")).not_to_have_attribute("aria-busy", "true")


def test_a_retry_asks_what_failed_and_not_what_is_being_typed(held):
    page, take = held(refusals=True)
    take().continue_()
    expect(page.locator(".indexes")).to_be_visible()
    page.route("**/v1/search", lambda route: route.abort(), times=1)
    ask(page, "water")
    page.locator("#query").fill("half a wo")
    with page.expect_request("**/v1/search") as request:
        page.get_by_role("button", name="Try again").click()
    assert request.value.post_data_json["query"] == "water"
    expect(page.locator("#query")).to_have_value("half a wo")
