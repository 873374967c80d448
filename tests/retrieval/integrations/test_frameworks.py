"""LangChain, LlamaIndex and Haystack, each with its real package, as the docs say."""

import re
from pathlib import Path

import numpy as np
import pytest

from indexes import Index, IndexConfig
from retrieval import Document, Fingerprint
from retrieval.retriever import Retriever

PAGE = Path(__file__).resolve().parents[3] / "docs/integrations.md"
WORDS = ["corn", "frogs", "otters", "sluice"]


class WordEncoder:
    """Unit vectors that count four words."""

    dimension = len(WORDS)
    fingerprint = Fingerprint("words", {"model": "words"})

    def encode_documents(self, texts):
        counts = np.array([[text.count(word) for word in WORDS] for text in texts], np.float32)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)

    encode_queries = encode_documents


DOCUMENTS = [
    Document("mill", "mills grind corn", "Mills", {"year": 1851}),
    Document("copy", "mills grind corn.", "Mills again", {"year": 1900}),
    Document("pond", "frogs sing", "", {"year": 1900}),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An index called my-index in the working directory, whose model is the encoder above."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("retrieval.retriever.load_for_index", lambda *_, **__: WordEncoder())
    Index.create("my-index", WordEncoder(), DOCUMENTS)
    return "my-index"


@pytest.fixture(
    params=[
        pytest.param("langchain", id="langchain"),
        pytest.param("llama_index", id="llama_index"),
        pytest.param("haystack", id="haystack"),
    ]
)
def name(request, monkeypatch):
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    package = {"langchain": "langchain_core", "llama_index": "llama_index.core"}
    pytest.importorskip(package.get(request.param, request.param), reason="it is not installed")
    return request.param


def example(name):
    """The block of the page that imports this module."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (found,) = [block for block in blocks if f"integrations.{name} " in block]
    return found


def make(name, **choices):
    """Return a function from a query to (doc_id, text, metadata) of what the retriever finds."""
    if name == "haystack":
        from haystack import Pipeline

        from retrieval.integrations.haystack import MillpondRetriever

        choices = {"top_k" if key == "k" else key: value for key, value in choices.items()}
        pipeline = Pipeline()
        pipeline.add_component("found", MillpondRetriever("my-index", **choices))
        ours = ["retrieval.integrations.haystack"]
        pipeline = Pipeline.loads(pipeline.dumps(), allowed_modules=ours)

        def run(query):
            documents = pipeline.run({"found": {"query": query}})["found"]["documents"]
            return [(d.meta["doc_id"], d.content, d.meta | {"score": d.score}) for d in documents]

        return run
    opened = Retriever.open("my-index")
    if name == "langchain":
        from retrieval.integrations.langchain import MillpondRetriever

        found = MillpondRetriever(retriever=opened, **choices)
        return lambda query: [(d.id, d.page_content, d.metadata) for d in found.invoke(query)]
    from retrieval.integrations.llama_index import MillpondRetriever

    nodes = MillpondRetriever(opened, **choices)
    return lambda query: [
        (n.metadata["doc_id"], n.text, n.metadata | {"score": n.score})
        for n in nodes.retrieve(query)
    ]


def test_the_example_of_the_page_runs_as_printed(name, folder, capsys):
    exec(compile(example(name), str(PAGE), "exec"), {})
    first, *_ = capsys.readouterr().out.splitlines()
    assert first == "mill 1.0 mills grind corn"


def test_hits_come_with_their_metadata(name, folder):
    (found,) = make(name, k=1, mode="dense", where="year < 1900")("corn")
    doc_id, text, metadata = found
    assert (doc_id, text) == ("mill", "mills grind corn")
    assert metadata["score"] == pytest.approx(1.0)
    assert {"year": 1851, "title": "Mills", "doc_id": "mill"}.items() <= metadata.items()


def test_of_what_is_alike_one_is_found(name, folder):
    ask = make(name, k=2, mode="dense", distinct=True)
    assert [doc_id for doc_id, _, _ in ask("corn")] == ["copy", "pond"]


def test_a_passage_says_where_it_is(name, tmp_path, folder):
    text = "mills grind corn. frogs sing."
    halves = IndexConfig(passages={"tokens": 9, "overlap": 0}, overwrite=True)
    Index.create(
        "my-index", WordEncoder(), [Document("all", text)], halves, split=lambda _: text.split(". ")
    )
    ((doc_id, passage, metadata),) = make(name, mode="dense")("frogs")
    assert (doc_id, passage) == ("all", "frogs sing.")
    assert text[metadata["start"] : metadata["stop"]] == passage
