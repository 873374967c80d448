"""An instruction goes into the template that a model's own files have."""

import json

import numpy as np
import pytest

from benchmarks.lab.layouts import decoders, encoders
from embedder import load_encoder
from embedder.instructions import (
    add_instruction,
    check_instruction,
    find_template,
    replace_instruction,
)
from embedder.models.saving import save_model
from retrieval.errors import UsageError

SAID = 'Given a question, find "it", fast'
TEXTS = ["who grinds the corn", "the pond"]

PUBLISHED = [
    (
        "Instruct: Given a web search query, retrieve passages\nQuery:",  # Qwen3-Embedding
        "Instruct: {instruction}\nQuery:",
    ),
    (
        "Instruct: Given a web search query, retrieve passages\nQuery: ",  # e5-mistral, gte-Qwen2
        "Instruct: {instruction}\nQuery: ",
    ),
    ("Instruct: Classify \n Query: ", "Instruct: {instruction} \n Query: "),
    ("<instruct>Given a query\n<query>", "<instruct>{instruction}\n<query>"),  # bge-en-icl
    (
        "<|user|>\nFind it\n<|embed|>\n",  # GritLM
        "<|user|>\n{instruction}\n<|embed|>\n",
    ),
    ("<|embed|>\n", "<|user|>\n{instruction}\n<|embed|>\n"),
    ("task: search result | query: ", "task: {instruction} | query: "),  # embeddinggemma
    ("Instruct: Find it\nQuery: {text}", "Instruct: {instruction}\nQuery: "),
    ("query: ", None),
    ("", None),
    ("Represent this sentence for searching relevant passages: ", None),
]


@pytest.mark.parametrize(("prompt", "template"), PUBLISHED)
def test_the_template_is_found_in_a_published_prompt(prompt, template):
    assert find_template(["", "something else", prompt]) == template


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(name, **changes):
        key = (name, str(changes))
        if key not in made:
            layout = {**decoders.LAYOUTS[name], **changes}
            made[key] = decoders.write_layout(tmp_path_factory.mktemp(name), **layout)
        return made[key]

    return folder


def load(name):
    return load_encoder(name, device="cpu")


@pytest.mark.parametrize(
    ("layout", "prompt"),
    [
        ("qwen3-embedding", f"Instruct: {SAID}\nQuery:"),
        ("gritlm", f"<|user|>\n{SAID}\n<|embed|>\n"),
        ("embeddinggemma", f"task: {SAID} | query: "),
    ],
)
def test_a_published_decoder_gets_it_in_its_own_template(folders, layout, prompt):
    library = pytest.importorskip("sentence_transformers")
    folder, lines = folders(layout), []
    name = add_instruction(str(folder), SAID, lines.append)
    assert lines == [f"Query prompt: {prompt!r}"]
    encoder, plain = load(name), load(str(folder))
    assert encoder.spec.query_prompt == encoder.fingerprint.settings["query_prompt"] == prompt
    reference = library.SentenceTransformer(str(folder), device="cpu")
    expected = reference.encode(TEXTS, prompt=prompt, normalize_embeddings=True)
    assert np.abs(encoder.encode_queries(TEXTS) - expected).max() < 1e-5
    np.testing.assert_array_equal(encoder.encode_documents(TEXTS), plain.encode_documents(TEXTS))
    assert load(encoder.name).fingerprint == encoder.fingerprint


def test_any_prompt_of_the_model_may_show_the_template(folders):
    """e5-mistral names its prompts by task, and none of them is called query."""
    prompts = {"sts_query": "Instruct: Retrieve similar text\nQuery: "}
    name = add_instruction(str(folders("e5-mistral", prompts=prompts)), SAID)
    assert load(name).spec.query_prompt == f"Instruct: {SAID}\nQuery: "


def test_another_decoder_gets_the_usual_template_and_is_told(base_folder, folders):
    for name in (str(base_folder["llama"]), str(folders("max")), f"{folders('max')}:mean+causal"):
        lines = []
        encoder = load(add_instruction(name, SAID, lines.append))
        assert encoder.spec.query_prompt == f"Instruct: {SAID}\nQuery: "
        (line,) = [line for line in lines if line.startswith("Warning:")]
        assert "names no template for instructions" in line


def test_a_saved_model_keeps_the_template_it_was_trained_with(folders, tmp_path):
    save_model(load(str(folders("qwen3-embedding"))), tmp_path / "saved", record={})
    lines = []
    name = add_instruction(f"{tmp_path / 'saved'},max_tokens=48", SAID, lines.append)
    encoder = load(name)
    assert (encoder.spec.query_prompt, encoder.spec.max_tokens) == (
        f"Instruct: {SAID}\nQuery:",
        48,
    )
    assert not any(line.startswith("Warning:") for line in lines)


def test_an_encoder_gets_it_where_its_files_have_a_template(tmp_path):
    prompts = {"query": "Instruct: Given a query\nQuery: "}
    folder = encoders.write_layout("multilingual-e5", tmp_path / "e5", prompts=prompts)
    for name in (str(folder), f"st:{folder}", f"st:{folder},max_tokens=16"):
        encoder = load(add_instruction(name, SAID))
        assert encoder.prompt("query") == f"Instruct: {SAID}\nQuery: "
        assert encoder.prompt("document") == ""


@pytest.mark.parametrize("prefix", ["", "st:"])
def test_an_encoder_without_a_template_is_refused_with_advice(tmp_path, prefix):
    folder = encoders.write_layout("bge-small", tmp_path / "bge")
    with pytest.raises(UsageError, match=r"it is an encoder \(bert\).*name the whole prompt"):
        add_instruction(f"{prefix}{folder}", SAID)


def test_an_instruction_and_a_query_prompt_are_one_too_many(folders):
    name = f"{folders('qwen3-embedding')},query_prompt=Q: ,max_tokens=32"
    with pytest.raises(UsageError, match="names a query_prompt, and there is an instruction too"):
        add_instruction(name, SAID)
    encoder = load(replace_instruction(name, SAID))
    assert encoder.spec.query_prompt == f"Instruct: {SAID}\nQuery:"
    assert encoder.spec.max_tokens == 32


def test_another_instruction_goes_into_the_template_that_the_first_one_filled(base_folder):
    """Such as the one that a warning told of when the index was made."""
    first, lines = add_instruction(str(base_folder["llama"]), SAID), []
    encoder = load(replace_instruction(first, "Find a pond", lines.append))
    assert encoder.spec.query_prompt == "Instruct: Find a pond\nQuery: "
    assert not any(line.startswith("Warning:") for line in lines)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "The instruction is empty"),
        (" \n", "The instruction is empty"),
        ("Instruct: find it\nQuery: ", "is a whole template"),
        ("Instruct: find it", "is a whole template"),
        ("find {text}", "is a whole template"),
        ("<instruct>find it\n<query>", "is a whole template"),
    ],
)
def test_what_is_no_instruction_is_refused(typed, message):
    with pytest.raises(UsageError, match=message):
        check_instruction(typed)


def test_odd_prompts_in_the_files_of_an_encoder_are_no_template(tmp_path):
    folder = encoders.write_layout("bge-small", tmp_path / "bge")
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps({"prompts": {"query": 3, "other": None}}))
    with pytest.raises(UsageError, match="has no template for instructions"):
        add_instruction(str(folder), SAID)
