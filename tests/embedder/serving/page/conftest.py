"""A real server with two small indexes, and headless Chromium that looks at its page."""

from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from embedder.serving import ServedIndex
from tests.embedder.serving import fakes

DESKTOP = {"width": 1280, "height": 900}
REFUSED = "Failed to load resource"  # Chromium's own line for an answer of 400 and above

ANIMALS = ["otter", "beaver", "heron", "trout", "newt", "frog", "stork", "swan", "duck", "goose"]
FIELDS = {"year": "int", "kind": "string"}


@pytest.fixture
def open_page(chromium):
    """Open a server's page; afterwards check that it complained of nothing and called nobody else.

    ``refusals`` lets the browser report answers of 400 and above, which it does by itself.
    """
    problems, pages = [], []

    def open_one(client, path="/", viewport=DESKTOP, scheme="light", refusals=False):
        host = urlsplit(client.running.url).netloc
        page = chromium.new_page(
            base_url=client.running.url, viewport=viewport, color_scheme=scheme
        )
        page.set_default_timeout(120_000)  # a busy machine is no failure
        pages.append(page)
        page.on(
            "console",
            lambda line: (
                (refusals and line.text.startswith(REFUSED))
                or problems.append(f"console: {line.text}")
            ),
        )
        page.on("pageerror", lambda error: problems.append(f"page: {error}"))
        page.on("dialog", lambda box: (problems.append(f"dialog: {box.message}"), box.dismiss()))
        page.on(
            "request",
            lambda request: (
                urlsplit(request.url).netloc in (host, "")
                or problems.append(f"request: {request.url}")
            ),
        )
        page.goto(path)
        return page

    yield open_one
    for page in pages:
        page.close()
    # A server that has stopped before its page was closed is no complaint of the page.
    assert [one for one in problems if "ERR_CONNECTION_REFUSED" not in one] == []


@pytest.fixture
def make_index():
    """Return an index of (id, title, text, metadata), served under a name."""

    class TitledIndex(fakes.ListIndex):
        def __init__(self, encoder, rows):
            super().__init__(encoder, [(doc, text, fields) for doc, _, text, fields in rows])
            self._titles = {doc: title for doc, title, *_ in rows}

        def search(self, vectors, k, **options):
            found = super().search(vectors, k, **options)
            return [[replace(hit, title=self._titles[hit.doc_id]) for hit in row] for row in found]

    def make(name, encoder, rows, fields=FIELDS):
        return ServedIndex(name, TitledIndex(encoder, rows), fakes.make_model(encoder), fields)

    return make


@pytest.fixture
def animals(make_index, encoder):
    """Ten animals; the two sentences of a text differ in their last word."""
    return make_index("animals", encoder, [describe(place) for place in range(10)])


@pytest.fixture
def others(make_index):
    """Eight of the ten animals, by another model."""
    rows = [describe(place) for place in range(2, 10)]
    return make_index("others", fakes.HashingEncoder("other", dimension=8), rows)


@pytest.fixture
def client(serve, animals):
    return serve([animals.model], [animals])


@pytest.fixture
def pair(serve, animals, others):
    return serve([animals.model, others.model], [animals, others])


def describe(place):
    name = ANIMALS[place]
    text = f"The {name} lives by the water. Every {name} swims in the pond."
    kind = "mammal" if place < 2 else "other"
    return (f"d{place}", f"About the {name}", text, {"year": 2015 + place, "kind": kind})


@pytest.fixture
def find():
    """Return what the API finds."""

    def ask(client, query, **body):
        answer = client.post("/v1/search", json={"query": query, **body})
        assert answer.status_code == 200, answer.text
        return answer.json()["hits"]

    return ask
