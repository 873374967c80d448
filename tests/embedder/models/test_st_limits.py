"""A longest input for models of sentence-transformers that have several, or none."""

import json

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling as STPooling
from sentence_transformers.sentence_transformer.modules import Router, StaticEmbedding, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers

from benchmarks.lab.layouts import encoders
from embedder import load_encoder
from retrieval.errors import UsageError


def static_embedding():
    words = {"[UNK]": 0, "mill": 1, "pond": 2, "the": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return StaticEmbedding(tokenizer, embedding_dim=encoders.WIDTH)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return encoders.write_layout("bge-small", tmp_path_factory.mktemp("bge"))


def load(folder, options=""):
    return load_encoder(f"st:{folder}{options}", device="cpu")


def test_a_model_that_reads_every_token_takes_no_longest_input(tmp_path):
    SentenceTransformer(modules=[static_embedding()]).save(str(tmp_path))
    assert load(tmp_path).encode_queries(["mill pond"]).shape == (1, encoders.WIDTH)
    with pytest.raises(UsageError, match=r"\(StaticEmbedding\) reads every token.*max_tokens out"):
        load(tmp_path, ",max_tokens=8")


def test_of_a_router_each_side_that_has_a_longest_input_gets_it(bert, tmp_path):
    sides = {
        "query": [static_embedding()],
        "document": [Transformer(str(bert)), STPooling(encoders.WIDTH, "mean")],
    }
    SentenceTransformer(modules=[Router.for_query_document(**_named(sides))]).save(str(tmp_path))
    assert json.loads((tmp_path / "modules.json").read_text())[0]["type"].endswith("Router")
    whole, cut = load(tmp_path), load(tmp_path, ",max_tokens=8")
    router = cut.model[0]
    assert router.sub_modules["document"][0].max_seq_length == 8
    long, start = "mill pond " * 9, "mill pond mill pond mill pond"
    same = cut.encode_documents([long]) - whole.encode_documents([start])
    assert abs(same).max() < 1e-5
    assert abs(cut.encode_queries([long]) - whole.encode_queries([long])).max() < 1e-6


def _named(sides):
    return {f"{side}_modules": modules for side, modules in sides.items()}
