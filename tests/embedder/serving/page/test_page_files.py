"""The page as it is sent: what it may load, and that all that it loads is there."""

import re

import pytest

from embedder.serving import app as pages

SCRIPTS = sorted(path.name for path in pages.STATIC.glob("*.js"))


@pytest.mark.parametrize("path", ["/", "/docs", "/static/search.js", "/static/search.css"])
def test_pages_and_their_files_forbid_everything_from_elsewhere(client, path):
    headers = client.get(path).headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    own = {"script-src", "style-src", "connect-src"}
    assert {name for name, value in policy.items() if value == "'self'"} == own
    assert policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-cache"


def test_an_unchanged_file_is_not_sent_twice_and_a_missing_one_is_404(client):
    first = client.get("/static/search.js")
    again = client.get("/static/search.js", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/static/nowhere.js").status_code == 404


def test_every_file_that_the_page_names_is_served(client):
    named = re.findall(r'(?:src|href)="(static/[^"]+)"', client.get("/").text)
    assert sorted(named) == ["static/search.css", "static/search.js"]
    for script in SCRIPTS:
        source = client.get(f"/static/{script}").text
        named += [f"static/{name}" for name in re.findall(r'from "\./([^"]+)"', source)]
    assert {f"static/{script}" for script in SCRIPTS} <= set(named)  # none is left over
    for name in set(named):
        assert client.get(f"/{name}").status_code == 200


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_write_text_never_markup(script):
    source = (pages.STATIC / script).read_text(encoding="utf-8")
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
    assert re.findall(forbidden, source) == []


def test_nothing_on_the_page_names_another_host():
    for path in pages.STATIC.iterdir():
        addresses = re.findall(r"https?://[^\s\"')]+", path.read_text(encoding="utf-8"))
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, path.name  # SVG's name, no address
