"""An encoder of sentence-transformers behind the server: its own vectors, counts and limits."""

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="sentence-transformers is optional")

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from embedder.loading import load_encoder
from embedder.serving import serve_embedder

WORDS = ["[PAD]", "[UNK]", "query", ":", "mill", "pond", "water"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny BERT that reads six tokens, with a query prompt of two."""
    home, out = (tmp_path_factory.mktemp(name) for name in ("bert", "model"))
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=6
    ).save_pretrained(home)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(WORDS), intermediate_size=16, **shape)
    BertModel(config).save_pretrained(home)
    modules = [Transformer(str(home), max_seq_length=6), Pooling(8, "mean"), Normalize()]
    prompts = {"query": "query : ", "document": ""}
    SentenceTransformer(modules=modules, prompts=prompts, device="cpu").save(str(out))
    return out


@pytest.fixture
def client(serve, folder):
    return serve([serve_embedder(load_encoder(f"st:{folder}", "cpu"))], accept_token_ids=True)


def test_served_vectors_are_the_librarys(client, folder):
    reference = SentenceTransformer(str(folder), device="cpu")
    texts = ["mill", "pond water"]
    for name, expected in (
        (f"st:{folder}", reference.encode_document(texts)),
        (f"st:{folder}:query", reference.encode_query(texts)),
    ):
        answer = client.post("/v1/embeddings", json={"model": name, "input": texts}).json()
        found = [item["embedding"] for item in answer["data"]]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert answer["usage"]["prompt_tokens"] == 7  # "query : " is 2, twice, and 1 + 2 words


def test_a_text_counts_as_too_long_with_its_prompt(client, folder):
    six = "mill pond water mill pond water"
    assert client.post("/v1/embeddings", json={"input": six}).status_code == 200
    query = {"model": f"st:{folder}:query", "input": six}
    refused = client.post("/v1/embeddings", json=query)
    assert (refused.status_code, refused.json()["error"]["code"]) == (
        413,
        "context_length_exceeded",
    )
    cut = client.post("/v1/embeddings", json={**query, "truncate": True})
    reference = SentenceTransformer(str(folder), device="cpu")
    found = cut.json()["data"][0]["embedding"]
    np.testing.assert_allclose(found, reference.encode_query([six])[0], atol=1e-5)


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/v1/embeddings", {"input": [4, 5]}, "takes text, not token ids"),
        ("/tokenize", {"inputs": "mill"}, "does not show its tokens"),
        ("/embed", {"inputs": "mill", "truncation_direction": "left"}, "at the end (right) alone"),
        ("/embed", {"inputs": "mill", "normalize": False}, "cannot undo it"),
    ],
)
def test_what_it_cannot_do_is_refused(client, path, body, says):
    answer = client.post(path, json=body)
    assert answer.status_code in (400, 422)
    assert says in answer.text


def test_info_says_where_it_computes(client):
    assert client.get("/info").json()["model_dtype"] == "float32"
