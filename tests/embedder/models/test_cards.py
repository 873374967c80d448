"""Prompts that only a model's card names are told wherever such a model is loaded."""

import shlex

import pytest

pytest.importorskip("sentence_transformers", reason="sentence-transformers is optional")

from benchmarks.lab.layouts import decoders, encoders
from embedder import load_encoder
from embedder.models.cards import say_which_prompts
from embedder.models.names import parse_changes, split_name


def said_of(name, used=("", ""), named=None):
    said = []
    say_which_prompts(name, used, named or {}, said.append)
    return said


@pytest.mark.parametrize(
    ("name", "query", "document"),
    [
        ("intfloat/multilingual-e5-small", "query: ", "passage: "),
        ("./models/E5-large-v2/", "query: ", "passage: "),
        ("BAAI/bge-base-en-v1.5", "Represent this sentence for searching relevant passages: ", ""),
        ("nomic-ai/nomic-embed-text-v1.5@main", "search_query: ", "search_document: "),
        ("cl-nagoya/ruri-base-v2", "クエリ: ", "文章: "),
        (
            "Salesforce/SFR-Embedding-2_R",
            "Instruct: Given a web search query, retrieve relevant passages that answer the query"
            "\nQuery: ",
            "",
        ),
    ],
)
def test_the_name_that_the_warning_shows_has_the_prompts(name, query, document):
    (line,) = said_of(name)
    assert line.startswith(f"Warning: {name} was trained with {query!r} before queries")
    (typed,) = shlex.split(line.partition("--model ")[2])
    plain, written = split_name(typed)
    options = parse_changes(written, "option")
    assert plain == name
    assert options == {"query_prompt": query, **({"document_prompt": document} if document else {})}


@pytest.mark.parametrize(
    "name", ["BAAI/bge-m3", "all-MiniLM-L6-v2", "my-e5-small-of-mills", "e5", "thenlper/gte-base"]
)
def test_nothing_is_said_of_others(name):
    assert said_of(name) == []


def test_nothing_is_said_where_the_files_have_a_prompt():
    assert said_of("intfloat/e5-base", used=("query: ", ""), named={"query": "query: "}) == []


def test_prompts_of_other_names_are_listed():
    (line,) = said_of("e5-mistral-7b-instruct", named={"web": "Instruct: ", "none": ""})
    assert "has no prompt named query or document, so none is used; it has web." in line


def write_encoder(folder):
    return encoders.write_layout("bge-small", folder)


def write_decoder(folder):
    return decoders.write_layout(folder, **decoders.LAYOUTS["e5-mistral"])


@pytest.mark.parametrize(
    ("write", "name"),
    [(write_encoder, "multilingual-e5-base"), (write_decoder, "SFR-Embedding-Mistral")],
)
def test_both_ways_of_loading_tell_it_once_and_not_where_prompts_are_typed(tmp_path, write, name):
    folder = write(tmp_path / "models").rename(tmp_path / name)
    said = []
    load_encoder(str(folder), device="cpu", notify=said.append)
    warning = [line for line in said if "as its card says" in line]
    assert len(warning) == 1
    (typed,) = shlex.split(warning[0].partition("--model ")[2])
    load_encoder(typed, device="cpu", notify=said.append)
    load_encoder(f"{folder},query_prompt=", device="cpu", notify=said.append)
    assert [line for line in said if "as its card says" in line] == warning
