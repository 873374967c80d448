"""A reranker gives the scores of its CrossEncoder, or says why it cannot be one."""

import json

import numpy as np
import pytest

from benchmarks.lab.layouts import encoders
from embedder.models.sentence_transformers import load_reranker
from embedder.models.sentence_transformers import reranker as module
from retrieval.errors import ModelError, SourceNotFoundError, UsageError
from tests.embedder.models import rerankers

QUERY = "the mill pond"
TEXTS = ["the pond", "", "a mill. " * 20, "x", "the mill: the pond", "mill"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bert")
    rerankers.write_bert(folder)
    return folder


def cross_encoder(folder):
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": "float32"})


@pytest.mark.parametrize(
    "write", [rerankers.write_bert, rerankers.write_causal, rerankers.write_scored_decoder]
)
def test_scores_are_those_of_the_cross_encoder_whatever_the_batch(write, tmp_path, monkeypatch):
    write(tmp_path)
    expected = cross_encoder(tmp_path).predict([(QUERY, text) for text in TEXTS], batch_size=1)
    assert len(set(expected.round(5))) > 3  # scores that could not tell texts apart prove nothing
    for tokens in (1, 100, 8192):
        monkeypatch.setattr(module, "_BATCH_TOKENS", tokens)
        reranker = load_reranker(str(tmp_path), "cpu")
        found = reranker.activate(reranker.score(QUERY, TEXTS))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_scores_are_what_the_sigmoid_makes_of_the_output(bert):
    reranker = load_reranker(str(bert), "cpu")
    outputs = reranker.score_pairs([(QUERY, text) for text in TEXTS], [9] * len(TEXTS))
    np.testing.assert_array_equal(outputs, reranker.score(QUERY, TEXTS))
    np.testing.assert_allclose(1 / (1 + np.exp(-outputs)), reranker.activate(outputs), atol=1e-6)


def test_the_models_own_activation_is_used(tmp_path):
    rerankers.write_bert(tmp_path, activation="torch.nn.modules.linear.Identity")
    reranker = load_reranker(str(tmp_path), "cpu")
    outputs = reranker.score_pairs([(QUERY, text) for text in TEXTS], [9] * len(TEXTS))
    np.testing.assert_array_equal(reranker.activate(outputs), outputs)


def test_pairs_are_counted_before_they_are_cut(bert):
    reranker = load_reranker(str(bert), "cpu")
    assert reranker.max_tokens == rerankers.LONGEST
    # [CLS] the mill pond [SEP] the pond [SEP]; and of twenty times "a mill ."
    assert reranker.count_tokens(QUERY, [TEXTS[0], TEXTS[2]]) == [8, 66]


def test_no_pair_is_longer_than_the_positions_that_a_model_has(tmp_path):
    rerankers.write_roberta(tmp_path)
    reranker = load_reranker(str(tmp_path), "cpu")
    assert reranker.max_tokens == rerankers.LONGEST
    assert np.isfinite(reranker.score(QUERY, TEXTS)).all()


def test_no_documents_have_no_scores(bert):
    assert load_reranker(str(bert), "cpu").score(QUERY, []).shape == (0,)


def _classifier(folder):
    rerankers.write_bert(folder, labels=3)


def _no_template(folder):
    rerankers.write_causal(folder, template=None, modules=False)


def _chat_alone(folder):
    rerankers.write_causal(folder, template=rerankers.CHAT, modules=False)


def _chat_with_modules(folder):
    rerankers.write_causal(folder, template=rerankers.CHAT)


def _modules_without_template(folder):
    rerankers.write_causal(folder, template=None)


def _code(folder):
    rerankers.write_bert(folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForSequenceClassification": "own.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('run')")


def _encoder_of_texts(folder):
    encoders.write_layout("bge-small", folder)


def _activation_of_its_own(folder):
    rerankers.write_bert(folder, activation="own.Activation")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (_classifier, "gives 3 numbers for a pair"),
        (_no_template, "causal language model"),
        (_chat_alone, "without a prompt template for reranking"),
        (_chat_with_modules, "without a prompt template for reranking"),
        (_modules_without_template, "without a prompt template for reranking"),
        (_encoder_of_texts, "no weights that score a pair"),
        (_code, "comes with Python code of its own"),
        (_activation_of_its_own, "own.Activation"),
        (lambda folder: None, "cannot load the reranker"),
    ],
)
def test_what_is_no_reranker_is_refused_in_one_line(write, said, tmp_path):
    write(tmp_path)
    with pytest.raises(ModelError, match=said) as caught:
        load_reranker(str(tmp_path), "cpu")
    assert "\n" not in str(caught.value)


def test_options_are_refused(bert):
    with pytest.raises(UsageError, match="takes none"):
        load_reranker(f"{bert},max_tokens=5", "cpu")


def test_a_path_that_is_not_there_is_named():
    with pytest.raises(SourceNotFoundError, match="no such folder"):
        load_reranker("./nowhere", "cpu")
