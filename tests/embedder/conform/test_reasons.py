"""Against servers that have each fault on purpose, the fault is found and said."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from embedder import Embedder
from embedder.conform.endpoint import open_endpoint
from embedder.conform.examine import conform
from embedder.conform.findings import LEAST_COSINE
from embedder.conform.local import EmbedderModel, LoadedModel
from embedder.engine.text import PromptTemplate
from retrieval.errors import UsageError
from tests.embedder.conform.conftest import MAX_TOKENS, unit


def change_model(tiny, **changes):
    """A fresh model of the same base: what a server with other settings loads."""
    return Embedder.from_spec(replace(tiny.spec, **changes), device="cpu")


def change(tiny, **changes):
    return change_model(tiny, **changes).encode_documents


def drop_last(row):
    return row[:-1] or row


def from_rows(tiny, edit, prompt="passage: "):
    """Vectors of token ids as our model makes them, after an edit of each row."""

    def embed(texts):
        return tiny.encode_tokens([edit(row) for row in tiny.tokenize(texts, prompt)])

    return embed


def in_dtype(tiny, dtype):
    return Embedder.from_spec(tiny.spec, device="cpu", dtype=dtype).encode_documents


def reads_padding(tiny):
    """Texts of a batch are padded on the left to the longest, and padding is read as text."""

    def embed(texts):
        rows = tiny.tokenize(texts, "passage: ")
        longest = max(map(len, rows))
        return tiny.encode_tokens([[0] * (longest - len(row)) + row for row in rows])

    return embed


def cut_from_the_left(tiny, most):
    """The last ``most`` tokens with EOS, from the whole text."""
    return from_rows(change_model(tiny, max_tokens=512), lambda row: row[-most:])


FAULTS = {
    "no EOS": (
        lambda tiny: from_rows(change_model(tiny, max_tokens=MAX_TOKENS + 1), drop_last),
        ["tokens around"],
        "no token ends a text; here, '<eos>' does",
    ),
    "another EOS": (
        lambda tiny: from_rows(tiny, lambda row: [*row[:-1], 1]),
        ["tokens around"],
        "'<bos>' ends a text; here, '<eos>' does",
    ),
    "two EOS": (
        lambda tiny: from_rows(tiny, lambda row: [*row, 2]),
        ["tokens around"],
        "'<eos>' '<eos>' ends a text",
    ),
    "BOS": (
        lambda tiny: from_rows(tiny, lambda row: [1, *row]),
        ["first token"],
        "'<bos>' begins a text; here, no token does",
    ),
    "last token": (
        lambda tiny: change(tiny, pooling="eos"),
        ["pooling"],
        "a vector is the last token; here, it is the mean of the tokens",
    ),
    "max": (lambda tiny: change(tiny, pooling="max"), ["pooling"], "the largest value"),
    "weighted mean": (
        lambda tiny: change(tiny, pooling="weighted_mean"),
        ["pooling"],
        "the weighted mean",
    ),
    "no prompt": (
        lambda tiny: change(tiny, document_prompt=""),
        ["prompt"],
        "no prompt goes before a text; here, the document prompt is 'passage: '",
    ),
    "doubled prompt": (
        lambda tiny: change(tiny, document_prompt="passage: passage: "),
        ["prompt"],
        "the prompt is there twice",
    ),
    "prompt of the other side": (
        lambda tiny: tiny.encode_queries,
        ["prompt"],
        "the query prompt 'query: ' is used",
    ),
    "lower case": (lambda tiny: change(tiny, lowercase=True), ["case"], "put in lower case"),
    "bidirectional": (
        lambda tiny: change(tiny, attention="bidirectional"),
        ["attention"],
        "attention is bidirectional",
    ),
    "not normalised": (
        lambda tiny: change(tiny, normalize=False),
        ["normalize"],
        "vectors are not normalised: lengths are",
    ),
    "shorter texts": (
        lambda tiny: change(tiny, max_tokens=60),
        ["limit"],
        f"texts of more than 60 tokens lose their end; here, those of more than {MAX_TOKENS}",
    ),
    "longer texts": (
        lambda tiny: change(tiny, max_tokens=512),
        ["limit"],
        f"is read whole; here, it is cut at {MAX_TOKENS}",
    ),
    "cut from the left": (
        lambda tiny: cut_from_the_left(tiny, 80),
        ["limit"],
        "texts of more than 80 tokens lose their beginning",
    ),
    "dimension": (
        lambda tiny: change(tiny, dimension=16),
        ["dimension"],
        "only the first 16 of the 32 numbers",
    ),
    "blanks": (
        lambda tiny: lambda texts: tiny.encode_documents([text.strip() for text in texts]),
        ["spaces"],
        "blanks and newlines are taken off both ends",
    ),
    "newlines": (
        lambda tiny: (
            lambda texts: tiny.encode_documents([text.replace("\n", " ") for text in texts])
        ),
        ["spaces"],
        "newlines are replaced by blanks",
    ),
    "an empty text is a blank": (
        lambda tiny: lambda texts: tiny.encode_documents([text or " " for text in texts]),
        ["empty"],
        "an empty text is read as one blank",
    ),
    "dependence on the batch": (reads_padding, ["batch"], "depends on the texts it is sent with"),
    "three at once": (
        lambda tiny: from_rows(
            change_model(tiny, pooling="eos", max_tokens=MAX_TOKENS + 1), drop_last, prompt=""
        ),
        ["pooling", "prompt", "tokens around"],
        "no prompt goes before a text",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_is_found_and_everything_is_explained(fault, tiny, local, start):
    make, causes, text = FAULTS[fault]
    server = start(make(tiny))
    found = conform(local, open_endpoint(server.url))
    assert not found.same
    assert sorted(finding.cause for finding in found.findings) == causes
    assert text in " ".join(finding.text for finding in found.findings)
    assert found.unexplained == 0
    for finding in found.findings:
        assert finding.after is None or finding.after > max(finding.before, 0.999)


def test_the_same_model_is_the_same_and_nothing_is_said(tiny, local, start):
    found = conform(local, open_endpoint(start(tiny.encode_documents).url))
    assert found.same
    assert (found.findings, found.notes, found.unexplained) == ([], [], 0)
    assert sum(kind.texts for kind in found.kinds) == 40
    assert min(kind.least for kind in found.kinds) > 0.999999


def test_queries_are_compared_with_the_query_prompt(tiny, local, start):
    found = conform(local, open_endpoint(start(tiny.encode_queries).url), side="query")
    assert found.same


def test_special_tokens_that_are_read_out_of_texts_are_found(tiny, local, start):
    def embed(texts):
        ids = tiny.backbone.tokenizer.backend_tokenizer
        ids.encode_special_tokens = False
        rows = [
            ids.encode(f"passage: {text}", add_special_tokens=False).ids[: MAX_TOKENS - 1]
            for text in texts
        ]
        return tiny.encode_tokens([[*row, 2] for row in rows])

    found = conform(local, open_endpoint(start(embed).url))
    (finding,) = found.findings
    assert finding.cause == "specials"
    assert finding.text.startswith("there, a text that spells a special token is read as that")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_found_where_it_counts(dtype, tiny, local, start):
    url = start(in_dtype(tiny, dtype)).url
    assert conform(local, open_endpoint(url)).same  # to four digits, on this tiny model
    exact = conform(local, open_endpoint(url), least=1 - 1e-8)
    assert [finding.cause for finding in exact.findings] == ["precision"]
    assert f"computes with {str(dtype).removeprefix('torch.')}" in exact.findings[0].text


def test_a_chat_template_is_found(base_folder, start):
    tiny = Embedder.load(f"{base_folder['llama']}:mean+causal,max_tokens=100", device="cpu")
    tiny.backbone.tokenizer.chat_template = "<bos>user: {{ messages[0]['content'] }} end"
    spec = replace(tiny.spec, chat_template=True)
    chatty = Embedder(spec, tiny.backbone)
    found = conform(EmbedderModel(tiny), open_endpoint(start(chatty.encode_documents).url))
    assert [finding.cause for finding in found.findings] == ["tokens around"]
    assert found.findings[0].text == "there, the chat template is applied; here, it is not"
    assert found.unexplained == 0


def test_the_first_token_of_a_model_that_has_cls_is_found(tiny, local, start):
    found = conform(local, open_endpoint(start(change(tiny, pooling="cls")).url))
    assert "first token (CLS)" in found.findings[0].text


def test_another_model_is_not_explained_away(base_folder, local, start):
    other = Embedder.load(f"{base_folder['qwen3']}:mean+causal,max_tokens=100", device="cpu")
    found = conform(local, open_endpoint(start(other.encode_documents).url))
    assert not found.same
    assert found.findings == []
    assert found.unexplained > 30
    assert "probably another model, or other weights" in " ".join(found.notes)


def test_another_dimension_is_another_model(local, start):
    random = np.random.default_rng(0).standard_normal((256, 48))

    def embed(texts):
        return [unit(random[[len(text) % 256]])[0] for text in texts]

    found = conform(local, open_endpoint(start(embed).url))
    assert (found.dimension_here, found.dimension_there) == (32, 48)
    assert "48 numbers; here, 32: probably another model" in found.findings[0].text


def test_a_server_that_answers_at_random_is_found(tiny, local, start):
    random = np.random.default_rng(0)

    def embed(texts):
        noise = random.standard_normal((len(texts), 32)).astype(np.float32)
        return unit(tiny.encode_documents(texts) + 0.1 * noise)

    found = conform(local, open_endpoint(start(embed).url))
    assert found.findings[0].cause == "repeat"


def test_texts_that_are_refused_are_named_and_the_rest_is_compared(tiny, local, start):
    server = start(tiny.encode_documents)
    usual = server.answer

    def refuse(body):
        if "" in body["input"]:
            return 400, {}, b'{"error": {"message": "input is empty"}}'
        return usual(body)

    server.answer = refuse
    found = conform(local, open_endpoint(server.url))
    assert found.same
    refused = {kind.kind: kind.refused for kind in found.kinds if kind.refused}
    assert refused == {"empty": 1}
    assert found.notes == [
        f"Not compared: empty, since {server.url}/v1/embeddings answers 400: input is empty"
    ]


def test_a_vector_of_zeros_is_named_and_not_taken_for_a_missing_normalisation(tiny, local, start):
    def embed(texts):
        return [
            row * bool(text) for text, row in zip(texts, tiny.encode_documents(texts), strict=True)
        ]

    found = conform(local, open_endpoint(start(embed).url))
    assert [finding.text for finding in found.findings] == ["there, a vector is all zeros (empty)"]
    assert found.unexplained == 1


def test_two_models_of_this_machine_are_compared_too(tiny, local):
    same = conform(local, LoadedModel(tiny, "document"))
    assert same.same
    assert same.against == tiny.fingerprint.model


def test_a_least_cosine_out_of_range_is_refused(tiny, local):
    with pytest.raises(UsageError, match="least cosine is 1.5"):
        conform(local, LoadedModel(tiny, "document"), least=1.5)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "mistral", "gemma3"])
@pytest.mark.parametrize("pooling", ["mean", "eos", "prompt_eos", "last_layer"])
def test_taken_apart_a_model_gives_its_own_vectors(base_folder, architecture, pooling):
    prompts = "query_prompt=q: {text} ?,document_prompt=d: "
    name = f"{base_folder[architecture]}:{pooling}+causal,max_tokens=100,{prompts}"
    tiny = Embedder.load(name, device="cpu")
    local = EmbedderModel(tiny)
    texts = ["", "abc", "é <eos>", "x" * 300]
    for side in ("query", "document"):
        again = unit(local.vectors(texts, local.recipes[side]))
        np.testing.assert_allclose(again, local.encode(texts, side), atol=1e-5)


def test_prompts_stand_where_the_embedder_puts_them(tiny, local):
    recipe = local.recipes["query"]
    assert (recipe.prefix, recipe.ending, recipe.head) == ("query: ", (2,), ())
    assert PromptTemplate.parse(tiny.spec.query_prompt).prefix == recipe.prefix
    assert LEAST_COSINE < 1
