"""``millpond mcp``: what an assistant's client gets, in process and over stdin and stdout."""

import asyncio
import os
import socket
import subprocess
import sys

import httpx
import pytest

from indexes import Index
from retrieval import Document
from retrieval.retriever import Retriever
from tests.cli.conftest import WordEncoder
from tests.embedder.serving import fakes

pytest.importorskip("mcp", reason="mcp is not installed")
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from cli.mcp_server import MOST_CHARACTERS, build_server

LONG = "mill " * 10_000


@pytest.fixture
def retriever(tmp_path):
    encoder = WordEncoder("fake")
    documents = [
        Document("a", "water flows down hill", "Rivers", {"year": 2001}),
        Document("b", "mills grind corn", "", {"year": 1851}),
        Document("long", LONG),
    ]
    return Retriever(encoder, Index.create(tmp_path / "i", encoder, documents))


def ask(server, *calls):
    """Return the result of each call of a tool by the package's own client."""

    async def run():
        async with Client(server) as client:
            return [await client.call_tool(name, arguments) for name, arguments in calls]

    return asyncio.run(run())


def read(result):
    assert not result.is_error, result.content
    return result.structured_content


@pytest.fixture
def call(retriever):
    server = build_server({"notes": retriever}, "1.2")
    return lambda name, **arguments: ask(server, (name, arguments))[0]


def test_search_gives_hits_with_what_each_arm_says(call, retriever):
    found = read(call("search", query="mills grind corn", k=1))
    (expected,) = retriever.search("mills grind corn", 1)
    assert found["index"] == "notes"
    (hit,) = found["hits"]
    assert (hit["doc_id"], hit["score"]) == ("b", pytest.approx(expected.score))
    assert hit["matched"] == ["mills", "grind", "corn"]
    assert set(hit["arms"]) == {"dense", "lexical"}


def test_search_takes_a_filter_and_a_mode(call):
    found = read(call("search", query="water", filter="year < 1900", mode="dense"))
    assert [hit["doc_id"] for hit in found["hits"]] == ["b"]


def test_long_texts_come_in_parts(call):
    hits = read(call("search", query="mill"))["hits"]
    (long,) = [hit for hit in hits if hit["doc_id"] == "long"]
    assert long["truncated"] and len(long["text"]) == 2000
    parts, start = [], 0
    while start is not None:
        part = read(call("fetch", doc_id="long", start=start))
        assert len(part["text"]) <= MOST_CHARACTERS
        parts.append(part["text"])
        start = part["next_start"]
    assert "".join(parts) == LONG


def test_fetch_gives_a_whole_document(call):
    assert read(call("fetch", doc_id="a")) == {
        "index": "notes",
        "doc_id": "a",
        "title": "Rivers",
        "text": "water flows down hill",
        "metadata": {"year": 2001},
        "next_start": None,
    }


def test_list_indexes_says_what_a_filter_can_name(call):
    (listed,) = read(call("list_indexes"))["indexes"]
    assert listed["name"] == "notes"
    assert (listed["documents"], listed["model"]) == (3, "fake")
    assert listed["modes"] == ["hybrid", "dense", "lexical"]
    assert listed["fields"] == {"year": "int"}


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("search", {"query": " "}, "text is empty"),
        ("search", {"query": "x", "index": "other"}, "Indexes: notes"),
        ("search", {"query": "x", "filter": "yaer > 3"}, "year"),
        ("search", {"query": "x", "filter": "(("}, "expected a field name"),
        ("search", {"query": "x", "mode": "sideways"}, "hybrid"),
        ("search", {"query": "x", "k": 10**9}, "k"),
        ("search", {"query": "x", "k": True}, "valid integer"),
        ("search", {"query": "x", "k": "5"}, "valid integer"),
        ("fetch", {"doc_id": "a", "start": False}, "valid integer"),
        ("search", {"query": "x" * 100_000}, "query"),
        ("fetch", {"doc_id": "nowhere"}, "no document 'nowhere'"),
        ("search", {"query": "x", "filters": "year < 1900"}, "filters"),
        ("fetch", {"doc_id": "a", "length": 5}, "length"),
        ("list_indexes", {"index": "notes"}, "index"),
    ],
)
def test_what_cannot_be_done_is_said_to_the_assistant(call, name, arguments, said):
    result = call(name, **arguments)
    assert result.is_error
    assert said in result.content[0].text


def test_two_indexes_are_told_apart(retriever, tmp_path):
    other = Index.create(tmp_path / "j", retriever.encoder, [Document("z", "corn fields")])
    server = build_server({"notes": retriever, "more": Retriever(retriever.encoder, other)})
    first, second = ask(
        server,
        ("search", {"query": "corn", "k": 1}),
        ("search", {"query": "corn", "k": 1, "index": "more"}),
    )
    assert [read(one)["hits"][0]["doc_id"] for one in (first, second)] == ["b", "z"]


SERVER = """
import cli.models, retrieval.retriever
from tests.cli.conftest import WordEncoder
load = lambda *arguments, **options: WordEncoder("fake")
retrieval.retriever.load_for_index = load
from cli.app import main
import sys
sys.argv = ["millpond", "mcp", sys.argv[1]]
main()
"""


def test_an_assistant_talks_to_the_command_over_stdin_and_stdout(retriever):
    folder = str(retriever.index.folder)
    started = StdioServerParameters(
        command=sys.executable, args=["-c", SERVER, folder], env=dict(os.environ)
    )

    async def run():
        async with Client(stdio_client(started)) as client:
            tools = await client.list_tools()
            found = await client.call_tool("search", {"query": "mills grind corn", "k": 1})
            return [tool.name for tool in tools.tools], found

    names, found = asyncio.run(run())
    assert names == ["search", "fetch", "list_indexes"]
    assert read(found)["hits"][0]["doc_id"] == "b"


def test_two_indexes_of_one_name_are_refused(millpond, index_folder):
    result = millpond("mcp", f"x={index_folder}", f"x={index_folder}")
    assert result.exit_code == 2
    assert "NAME=DIR" in result.stderr


def test_without_the_package_the_extra_is_named(millpond, index_folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = millpond("mcp", index_folder)
    assert result.exit_code != 0
    assert "millpond[mcp]" in result.stderr


def test_over_http_other_hosts_are_refused(retriever, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = str(retriever.index.folder)
    code = SERVER.replace("sys.argv[1]]", f"sys.argv[1], '--http', '{port}']")
    url = f"http://127.0.0.1:{port}/mcp"
    with (tmp_path / "log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-c", code, folder], stderr=log)
    try:
        fakes.wait_until(lambda: answers(port) or server.poll() is not None)
        (found,) = ask(url, ("search", {"query": "mills grind corn", "k": 1}))
        assert read(found)["hits"][0]["doc_id"] == "b"
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        for header in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            assert httpx.post(url, json=body, headers=header).status_code in (403, 421)
    finally:
        server.terminate()
        server.wait(60)


def test_a_port_in_use_is_an_error_before_any_model_loads(millpond, index_folder, loaded):
    loaded.clear()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = millpond("mcp", index_folder, "--http", port)
    assert refused.exit_code == 2
    assert f"cannot listen at 127.0.0.1, port {port}" in refused.stderr
    assert (loaded, "Serving" in refused.output) == ([], False)


def answers(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_changed_index_is_seen_by_the_next_call(call, retriever):
    assert read(call("search", query="mills grind corn", k=1))["hits"][0]["doc_id"] == "b"
    Index.open(retriever.index.folder, retriever.encoder).delete(["b"])
    assert "b" not in [hit["doc_id"] for hit in read(call("search", query="mills"))["hits"]]
    assert call("fetch", doc_id="b").is_error
    assert read(call("list_indexes"))["indexes"][0]["documents"] == 2
