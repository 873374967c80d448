"""Models that sentence-transformers computes, as encoders."""

import numpy as np
import pytest

from retrieval.errors import ModelError, SourceNotFoundError

pytest.importorskip("sentence_transformers", reason="sentence-transformers is optional")

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from benchmarks.scoring.models import load_model
from embedder.models.sentence_transformers import SentenceTransformersEncoder

WORDS = ["[PAD]", "[UNK]", "query", ":", "mill", "pond", "water"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny BERT with mean pooling and a query prompt, as sentence-transformers saves it."""
    home = tmp_path_factory.mktemp("bert")
    words = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=6
    )
    tokenizer.save_pretrained(home)
    BertModel(
        BertConfig(
            vocab_size=len(WORDS),
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
        )
    ).save_pretrained(home)
    transformer = Transformer(str(home), max_seq_length=6)
    pooling = Pooling(8, pooling_mode="mean")
    out = tmp_path_factory.mktemp("baseline")
    SentenceTransformer(
        modules=[transformer, pooling], prompts={"query": "query : ", "document": ""}, device="cpu"
    ).save(str(out))
    return out


def load(folder):
    return load_model(f"st:{folder}", "cpu", lambda line: None)


def test_vectors_are_those_of_sentence_transformers_with_its_prompts(folder):
    loaded, reference = load(folder), SentenceTransformer(str(folder), device="cpu")
    assert loaded.encoder.dimension == 8
    texts = ["mill", "pond water"]
    for mine, theirs in (
        (loaded.encoder.encode_queries, reference.encode_query),
        (loaded.encoder.encode_documents, reference.encode_document),
    ):
        found = mine(texts)
        assert found.dtype == np.float32
        expected = theirs(texts)
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.allclose(
        loaded.encoder.encode_queries(texts), loaded.encoder.encode_documents(texts)
    )
    assert loaded.encoder.encode_queries([]).shape == (0, 8)


def test_tokens_are_counted_with_the_prompt_and_the_cut(folder):
    count = load(folder).count_tokens
    assert count(["mill"], "document") == 1
    assert count(["mill"], "query") == 3  # query : mill
    assert count(["water " * 9], "document") == 6  # cut
    assert count(["mill", "pond water"], "query") == 3 + 4
    each = load(folder).encoder.count_tokens
    assert each(["mill", "water " * 9], "query") == ([3, 6], [False, True])


def test_the_fingerprint_follows_weights_and_prompts(folder):
    model = SentenceTransformer(str(folder), device="cpu")
    before = SentenceTransformersEncoder("st:a", model).fingerprint
    assert before.digest == SentenceTransformersEncoder("st:b", model).fingerprint.digest
    model.prompts["query"] = "question : "
    asked = SentenceTransformersEncoder("st:a", model).fingerprint
    assert [line.split()[0] for line in before.differences(asked)] == ["query_prompt"]
    next(model.parameters()).data.add_(1)
    changed = SentenceTransformersEncoder("st:a", model).fingerprint
    assert [line.split()[0] for line in asked.differences(changed)] == ["weights"]


def test_what_cannot_be_loaded_is_one_clear_line(tmp_path):
    with pytest.raises(SourceNotFoundError, match="there is no such folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="sentence-transformers cannot load"):
        load(tmp_path / "empty")


@pytest.mark.parametrize("error", [IndexError("out of range"), TypeError("no such input")])
def test_what_fails_inside_of_sentence_transformers_is_told_as_such(folder, monkeypatch, error):
    encoder = load(folder).encoder

    def fail(*given, **how):
        raise error

    monkeypatch.setattr(encoder._model, "encode_document", fail)
    with pytest.raises(ModelError, match=f"sentence-transformers fails to compute .*: {error}"):
        encoder.encode_documents(["mill"])
