"""Published encoders, named by their folder: the vectors that sentence-transformers gives."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("sentence_transformers", reason="sentence-transformers is optional")

from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from benchmarks.lab.layouts import encoders
from benchmarks.lab.layouts.encoders import LAYOUTS, change_json, write_json, write_layout
from embedder import Embedder, load_encoder
from embedder.models.sentence_transformers import (
    SentenceTransformersEncoder,
    needs_sentence_transformers,
)
from embedder.splitting import make_splitter, tokens_beside, tokens_read
from retrieval.errors import MissingDependencyError, ModelError, UnknownNameError, UsageError
from tests.embedder import stand_ins

TEXTS = ["mill", "the pond: a MILL.", "", "  two  blanks ", "é 水车", "abc def ghi " * 9]


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Return the folder of a layout, written once and not to be changed."""
    written = {}

    def find(name):
        if name not in written:
            written[name] = write_layout(name, tmp_path_factory.mktemp(name))
        return written[name]

    return find


@pytest.fixture
def copy(write, tmp_path):
    """Return a layout's folder that may be changed."""

    def make(name="bge-small"):
        return shutil.copytree(write(name), tmp_path / "model")

    return make


def load(name, **options):
    said = []
    return load_encoder(str(name), device="cpu", notify=said.append, **options), said


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vectors_are_those_of_sentence_transformers(write, layout):
    folder = write(layout)
    reference = SentenceTransformer(str(folder), device="cpu")
    encoder, said = load(folder)
    assert isinstance(encoder, SentenceTransformersEncoder)
    assert said[0].startswith(f"Loading {folder} with sentence-transformers: it is an encoder")
    for mine, theirs in (
        (encoder.encode_queries, reference.encode_query),
        (encoder.encode_documents, reference.encode_document),
    ):
        expected = theirs(TEXTS, normalize_embeddings=True)
        np.testing.assert_allclose(mine(TEXTS), expected, atol=1e-5)
        np.testing.assert_allclose(mine(TEXTS[1:2]), expected[1:2], atol=1e-5)
    prompts = LAYOUTS[layout][2]
    same = np.allclose(encoder.encode_queries(TEXTS), encoder.encode_documents(TEXTS), atol=1e-3)
    assert same == (not prompts)
    asked = [prompts.get("query", "") + text for text in TEXTS]
    lengths = [len(ids) for ids in reference.tokenizer(asked)["input_ids"]]
    longest = encoders.LONGEST
    assert lengths[-1] > encoder.max_tokens == longest
    counts = ([min(n, longest) for n in lengths], [n > longest for n in lengths])
    assert encoder.count_tokens(TEXTS, "query") == counts


def test_the_same_model_has_the_same_fingerprint_under_both_names(write):
    folder = write("bge-small")
    plain, prefixed = load(folder)[0].fingerprint, load(f"st:{folder}")[0].fingerprint
    assert plain.digest == prefixed.digest
    assert (plain.model, prefixed.model) == (str(folder), f"st:{folder}")
    assert plain.settings["modules"] == "Transformer (bert), Pooling (cls), Normalize"


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        (lambda f: change_json(f / "config.json", hidden_act="relu"), "module_settings"),
        (
            lambda f: write_json(
                f / "1_Pooling" / "config.json",
                {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True},
            ),
            "module_settings",
        ),
        (lambda f: change_json(f / "sentence_bert_config.json", max_seq_length=9), "max_tokens"),
        (
            lambda f: change_json(
                f / "config_sentence_transformers.json", prompts={"query": "q: "}
            ),
            "query_prompt",
        ),
        (
            lambda f: change_json(
                f / "config_sentence_transformers.json", similarity_fn_name="dot"
            ),
            "similarity",
        ),
        (lambda f: change_json(f / "tokenizer_config.json", do_lower_case=False), "tokens"),
    ],
)
def test_a_changed_file_changes_the_fingerprint(write, copy, change, differs):
    folder = copy()
    before = load(folder)[0].fingerprint
    change(folder)
    after = load(folder)[0].fingerprint
    assert differs in [line.split()[0] for line in before.differences(after)]


@pytest.mark.parametrize("prefix", ["", "st:"])
def test_weights_that_are_missing_are_not_drawn_at_random(copy, prefix):
    folder = copy()
    weights = load_file(folder / "model.safetensors")
    pooled = {name: tensor for name, tensor in weights.items() if "pooler" not in name}
    save_file(pooled, folder / "model.safetensors", {"format": "pt"})
    load(f"{prefix}{folder}")  # no vector depends on them
    lost = next(name for name in pooled if "layer.1.output.dense.weight" in name)
    del pooled[lost]
    save_file(pooled, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights .* \(such as .*layer\.1\.output\.dense"):
        load(f"{prefix}{folder}")


@pytest.mark.parametrize("kind", ["CrossEncoder", "SparseEncoder"])
def test_a_folder_of_another_kind_of_model_is_told(copy, kind):
    folder = copy()
    change_json(folder / "config_sentence_transformers.json", model_type=kind)
    assert load(folder)[1][1:] == [
        f"{folder} was saved as a {kind}, no embedding model; sentence-transformers' default, "
        f"mean pooling, is used."
    ]


def test_a_model_without_weights_is_computed(tmp_path):
    from sentence_transformers import models

    SentenceTransformer(modules=[models.BoW(vocab=["mill", "pond"])]).save(str(tmp_path / "bow"))
    vectors = load(tmp_path / "bow")[0].encode_queries(["mill pond", "pond"])
    np.testing.assert_allclose(vectors, [[0.5**0.5, 0.5**0.5], [0, 1]], atol=1e-6)


def test_bfloat16_weights_are_computed_in_float32_and_have_a_fingerprint(copy):
    folder = copy()
    weights = load_file(folder / "model.safetensors")
    half = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    save_file(half, folder / "model.safetensors", {"format": "pt"})
    change_json(folder / "config.json", dtype="bfloat16")
    encoder, _ = load(folder)
    assert encoder.dtype == "float32"
    whole = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), whole.encode_query(TEXTS), atol=1e-5)
    in_bfloat16 = SentenceTransformer(str(folder), device="cpu")
    assert in_bfloat16.dtype == torch.bfloat16
    same = SentenceTransformersEncoder("x", in_bfloat16)
    assert same.fingerprint.digest == encoder.fingerprint.digest
    assert np.isfinite(same.encode_queries(TEXTS)).all()


def test_a_model_that_compares_by_dot_product_keeps_the_length_of_its_vectors(tmp_path):
    folder = write_layout("gte-modernbert", tmp_path, similarity_fn_name="dot")
    encoder, _ = load(folder)
    reference = SentenceTransformer(str(folder), device="cpu").encode_query(TEXTS)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), reference, rtol=1e-4, atol=1e-5)
    assert not encoder.normalized
    assert np.abs(np.linalg.norm(reference, axis=1) - 1).max() > 0.1


def test_without_modules_json_the_default_is_named(copy):
    folder = copy()
    (folder / "modules.json").unlink()
    encoder, said = load(folder)
    assert said[1] == (
        f"{folder} has no modules.json; sentence-transformers' default, mean pooling, is used."
    )
    expected = SentenceTransformer(str(folder), device="cpu")
    expected = expected.encode_query(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), expected, atol=1e-5)


def test_roberta_without_a_longest_input_is_cut_before_its_positions_end(copy):
    folder = copy("all-distilroberta")
    for name in ("modules.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    change_json(folder / "tokenizer_config.json", model_max_length=10**30)
    encoder, _ = load(folder)
    assert encoder.max_tokens == encoders.LONGEST
    assert np.isfinite(encoder.encode_documents(TEXTS)).all()


def test_a_prompt_of_passages_goes_before_documents_and_is_told(tmp_path):
    prompts = {"query": "query: ", "passage": "passage: "}
    folder = write_layout("multilingual-e5", tmp_path, prompts=prompts)
    encoder, said = load(folder)
    assert "calls its prompt of documents 'passage': 'passage: '" in said[-1]
    reference = SentenceTransformer(str(folder), device="cpu")
    expected = reference.encode(TEXTS, prompt_name="passage", normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_documents(TEXTS), expected, atol=1e-5)


def test_options_change_what_the_files_say(write):
    folder = write("bge-small")
    name = f"{folder},max_tokens=8,dimension=4,query_prompt=the pond: ,document_prompt=mill"
    encoder, _ = load(name)
    reference = SentenceTransformer(str(folder), device="cpu", truncate_dim=4)
    reference.max_seq_length = 8
    expected = reference.encode(TEXTS, prompt="the pond: ", normalize_embeddings=True)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), expected, atol=1e-5)
    settings = encoder.fingerprint.settings
    assert (settings["max_tokens"], settings["dimension"]) == (8, 4)
    assert settings["document_prompt"] == "mill"
    again = load(encoder.fingerprint.model)[0]
    assert again.fingerprint.digest == encoder.fingerprint.digest


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (",max_tokens=25", UsageError, "max_tokens is 25; expected 1 to 24, the model's own"),
        (",dimension=0", UsageError, "dimension is 0; expected 1 to 16"),
        (",pooling=mean", UnknownNameError, "Unknown option of a model of sentence-transformers"),
        (",query_prompt={text} end", UsageError, "puts a prompt before the text"),
        (":mean+bidirectional", UsageError, "It has its own; type --model"),
        (":mean+bidirectional,max_tokens=8", UsageError, "names a pooling and an attention"),
    ],
)
def test_what_an_encoder_does_not_take_is_refused(write, options, error, message):
    with pytest.raises(error, match=message):
        load(f"{write('bge-small')}{options}")


def test_progress_and_order_hold_for_many_texts(write):
    encoder, _ = load(write("bge-small"))
    texts = [" ".join(["mill"] * (number % 7)) + f" pond {number}" for number in range(300)]
    done = []
    vectors = encoder.encode_documents(texts, progress=done.append)
    assert sum(done) == 300
    assert len(done) > 1
    np.testing.assert_allclose(
        vectors[123:124], encoder.encode_documents(texts[123:124]), atol=1e-5
    )
    assert encoder.encode_queries([]).shape == (0, 16)
    with pytest.raises(UsageError, match="texts is one string"):
        encoder.encode_queries("mill")


def test_passages_are_counted_in_the_tokens_of_the_model(write):
    encoder, _ = load(write("bge-small"))
    assert tokens_read(encoder) == encoders.LONGEST
    assert tokens_beside(encoder) == 2  # [CLS] and [SEP]
    split = make_splitter(encoder, 4, 0)
    assert split("mill pond mill pond the mill") == ["mill pond mill pond", " the mill"]
    with pytest.raises(UsageError, match="the model reads 24 per text. Type 22 or less"):
        make_splitter(encoder, 25, 0)


def test_decoders_and_saved_models_stay_with_our_engine(tmp_path):
    stand_ins.write_model_folder(tmp_path)
    assert isinstance(load(f"{tmp_path}:mean+causal")[0], Embedder)


def test_without_the_package_its_extra_is_named(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependencyError, match=r"millpond\[sentence-transformers\]") as found:
        load(write("bge-small"))
    assert "it is an encoder (bert)" in str(found.value)


CODE = """
from pathlib import Path
from transformers import BertConfig, BertModel
Path({marker!r}).write_text("run")
class Config(BertConfig): pass
class Model(BertModel): config_class = Config
"""


@pytest.fixture
def hostile(copy, tmp_path):
    """A BERT that comes with code, which transformers would leave out silently."""
    folder, marker = copy(), tmp_path / "marker"
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    auto_map = {"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    change_json(folder / "config.json", auto_map=auto_map)
    return folder, marker


@pytest.mark.parametrize("prefix", ["", "st:"])
def test_code_is_run_only_where_it_is_trusted(hostile, monkeypatch, prefix):
    folder, marker = hostile
    monkeypatch.setattr("builtins.input", lambda *asked: "y")
    with pytest.raises(ModelError, match="config.json names as auto_map") as refused:
        load(f"{prefix}{folder}")
    assert "--trust-remote-code" in str(refused.value)
    assert not marker.exists()
    encoder, _ = load(f"{prefix}{folder}", trust_remote_code=True)
    assert marker.exists()
    assert encoder.dimension == 16


def test_a_module_of_another_package_is_refused_by_its_class(copy):
    folder = copy()
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["type"] = "own_pooling.Pooling"
    write_json(folder / "modules.json", modules)
    with pytest.raises(ModelError, match="modules.json names the class own_pooling.Pooling"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("modules.json", "{", "its modules.json cannot be read as JSON"),
        ("modules.json", "{}", "its modules.json is no list of modules"),
        ("1_Pooling/config.json", "{}", "sentence-transformers cannot load"),
        ("model.safetensors", "x", "sentence-transformers cannot load"),
    ],
)
def test_a_damaged_file_is_one_clear_line(copy, name, content, message):
    folder = copy()
    (folder / name).write_text(content)
    with pytest.raises(ModelError, match=message) as found:
        load(folder)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("layout", ["bge-small", "sentence-t5"])
def test_our_engine_refuses_an_encoder_whatever_its_variant(write, layout):
    for variant in ("", ":mean+bidirectional"):
        with pytest.raises(ModelError, match="expected a decoder. sentence-transformers gives"):
            Embedder.load(f"{write(layout)}{variant}", device="cpu")


def test_a_decoder_with_code_of_its_own_goes_there_only_where_it_is_trusted(tmp_path):
    folder, marker = tmp_path / "model", tmp_path / "marker"
    stand_ins.write_model_folder(folder)
    code = CODE.format(marker=str(marker)).replace("Bert", "Llama")
    (folder / "own.py").write_text(code)
    change_json(
        folder / "config.json", auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    )
    with pytest.raises(ModelError, match="config.json names as auto_map") as refused:
        load(folder)
    assert f"--model st:{folder} --trust-remote-code" in str(refused.value)
    assert not marker.exists()
    encoder, said = load(folder, trust_remote_code=True)
    assert said[0].endswith("it comes with Python code of its own")
    assert marker.exists()
    assert isinstance(encoder, SentenceTransformersEncoder)


def write_folder(folder, **files):
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    ]
    folder.mkdir(exist_ok=True)
    for name, content in ({"modules": modules} | files).items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def test_a_decoder_that_is_put_into_a_chat_template_goes_through_the_library(tmp_path):
    kinds = {"text": {"method": "forward"}, "message": {"method": "forward"}}
    write_folder(
        tmp_path, config={"model_type": "llama"}, sentence_bert_config={"modality_config": kinds}
    )
    assert "chat template" in needs_sentence_transformers(str(tmp_path))
    del kinds["message"]
    write_folder(
        tmp_path, config={"model_type": "llama"}, sentence_bert_config={"modality_config": kinds}
    )
    assert needs_sentence_transformers(str(tmp_path)) == ""


def test_an_adapter_of_an_encoder_goes_through_the_library(tmp_path):
    base, folder = tmp_path / "base", tmp_path / "adapter"
    write_folder(base, config={"model_type": "bert"})
    write_folder(folder, adapter_config={"base_model_name_or_path": str(base)})
    assert "an encoder (bert)" in needs_sentence_transformers(str(folder))
    (base / "config.json").write_text('{"model_type": "llama"}')
    assert needs_sentence_transformers(str(folder)) == ""


def test_an_activation_that_is_code_is_refused_and_not_replaced(tmp_path):
    dense = {"idx": 1, "name": "1", "path": "1_Dense", "type": "sentence_transformers.models.Dense"}
    write_folder(tmp_path, config={"model_type": "bert"})
    modules = json.loads((tmp_path / "modules.json").read_text())
    write_folder(tmp_path, modules=[*modules, dense])
    (tmp_path / "1_Dense").mkdir()
    config = {"in_features": 4, "out_features": 4, "activation_function": "acme.code.Swish"}
    (tmp_path / "1_Dense" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"1_Dense/config\.json names the activation acme\.code"):
        load_encoder(f"st:{tmp_path}")
