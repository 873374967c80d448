"""A MODEL_DIR inside sentence-transformers 6 gives the vectors that millpond gives."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from embedder import Embedder
from embedder.models.manifest import read_manifest
from embedder.models.merge import merge_model
from embedder.models.saving import save_model
from retrieval.errors import UsageError

pytest.importorskip(
    "sentence_transformers", minversion="6.0", reason="sentence-transformers is optional"
)
from sentence_transformers import SentenceTransformer

from embedder.models.sentence_transformers_module import load_sentence_transformer
from tests.embedder.conftest import every_variant

TEXTS = ["a", "the quick brown fox", "", "mills grind slowly, ponds fill slower " * 4]
VARIANTS = every_variant()
RECORD = {"seed": 3}


@pytest.fixture
def saved(trained, tmp_path):
    """Save a trained model, by default one that only our module computes; return its folder."""

    def save(pooling="multi_layer", attention="causal", **settings):
        save_model(trained(pooling, attention, **settings), tmp_path / "model", record=RECORD)
        return tmp_path / "model"

    return save


def load(folder, **settings):
    return SentenceTransformer(
        str(folder), device="cpu", trust_remote_code=True, local_files_only=True, **settings
    )


def assert_same(model, folder):
    """Compare encode_query, encode_document and encode with millpond's own vectors."""
    own = Embedder.load(str(folder), device="cpu")
    documents = own.encode_documents(TEXTS)
    np.testing.assert_allclose(model.encode_query(TEXTS), own.encode_queries(TEXTS), atol=1e-5)
    np.testing.assert_allclose(model.encode_document(TEXTS), documents, atol=1e-5)
    np.testing.assert_allclose(model.encode(TEXTS), documents, atol=1e-5)
    np.testing.assert_allclose(model.encode(TEXTS, batch_size=1), documents, atol=1e-5)


@pytest.mark.parametrize(("pooling", "attention"), VARIANTS)
def test_vectors_are_the_same_for_every_variant(saved, pooling, attention):
    folder = saved(pooling, attention)
    assert_same(load(folder), folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"query_prompt": "query: ", "document_prompt": "passage: "},
        {"query_prompt": 'Q: "{text}" in a word:'},
        {"dimension": 8},
        {"normalize": False},
        {"max_tokens": 24, "query_prompt": "query: "},
        {"base_layers": 2},
    ],
)
def test_prompts_lengths_and_normalisation_are_the_specs(saved, settings):
    folder = saved("mean", "bidirectional", **settings)
    model = load(folder)
    assert_same(model, folder)
    assert model.get_embedding_dimension() == settings.get("dimension", 32)
    assert model.max_seq_length == settings.get("max_tokens", 96)
    lengths = np.linalg.norm(model.encode(TEXTS), axis=1)
    assert np.allclose(lengths, 1, atol=1e-5) == settings.get("normalize", True)


def test_a_prompt_stands_before_the_text_once(saved):
    model = load(saved(query_prompt="query: "))
    [row] = model.preprocess(["pond"], prompt=model.prompts["query"])["input_ids"].tolist()
    assert row == [*model[0].embedder.tokenize(["query: pond"])[0]]
    assert len(row) == len("query: pond") + 1  # one token a byte, and EOS


def test_another_base_with_its_own_bos_and_a_merged_model_work_too(saved, base_folder, tmp_path):
    folder = saved("eos", "causal", base=base_folder["gemma3"])
    assert_same(load(folder), folder)
    merge_model(folder, tmp_path / "merged")
    assert_same(load(tmp_path / "merged"), tmp_path / "merged")


@pytest.mark.parametrize("merged", [False, True])
def test_what_sentence_transformers_saves_both_load_again(saved, tmp_path, merged):
    folder = saved("last_layer", "bidirectional", query_prompt="query: ")
    if merged:
        merge_model(folder, tmp_path / "merged")
        folder = tmp_path / "merged"
    load(folder).save(str(tmp_path / "again"))
    assert_same(load(tmp_path / "again"), folder)
    assert_same(load(folder), tmp_path / "again")
    first, again = read_manifest(folder), read_manifest(tmp_path / "again")
    assert (again.spec, again.base, again.record) == (first.spec, first.base, first.record)
    assert not list((tmp_path / "again").glob(".millpond-*"))
    digests = {
        Embedder.load(str(f), device="cpu").fingerprint.digest for f in (folder, again_of(tmp_path))
    }
    assert len(digests) == 1


def again_of(folder):
    return folder / "again"


def test_prompts_changed_in_sentence_transformers_reach_the_spec(saved, tmp_path):
    model = load(saved(), prompts={"query": "ask: "})
    model.save(str(tmp_path / "again"))
    assert read_manifest(tmp_path / "again").spec.query_prompt == "ask: "
    assert_same(load(tmp_path / "again"), tmp_path / "again")
    assert_same(model, tmp_path / "again")


def test_a_step_in_sentence_transformers_moves_what_is_saved(saved, tmp_path):
    folder = saved("last_layer")
    model = load(folder).train()
    features = model.preprocess(["pond", "mill"])
    model(features)["sentence_embedding"].sum().backward()
    moving = [p for p in model.parameters() if p.grad is not None]
    assert moving and sum(p.requires_grad for p in model.parameters()) == len(moving)
    with torch.no_grad():
        for parameter in moving:
            parameter -= 0.1 * parameter.grad.sign()
    model.eval().save(str(tmp_path / "again"))
    assert_same(model, tmp_path / "again")
    before = Embedder.load(str(folder), device="cpu").encode_documents(TEXTS)
    assert np.abs(model.encode(TEXTS) - before).max() > 1e-3


def test_no_trust_in_remote_code_is_needed_where_the_module_is_handed_over(saved):
    folder = saved(query_prompt="query: ", document_prompt="passage: ")
    assert_same(load_sentence_transformer(folder, device="cpu"), folder)
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def test_no_code_of_the_folder_is_run(saved):
    folder = saved()
    for name in ("embedder.py", "sentence_transformers_module.py", "MillpondModule.py"):
        (folder / name).write_text("raise SystemExit('code of the folder was run')")
    assert_same(load(folder), folder)


def test_the_dtype_may_be_given(saved):
    model = load(saved(), model_kwargs={"dtype": "bfloat16"})
    assert next(model[0].embedder.backbone.model.parameters()).dtype is torch.bfloat16
    assert model.encode(TEXTS).dtype == np.float32


def test_what_cannot_be_honoured_is_refused(saved, tmp_path):
    folder = saved()
    model = load(folder)
    with pytest.raises(UsageError, match="weights are written as safetensors"):
        model.save(str(tmp_path / "again"), safe_serialization=False)
    with pytest.raises(UsageError, match=r"model_kwargs holds \['attn_implementation'\]"):
        load(folder, model_kwargs={"attn_implementation": "eager"})
    with pytest.raises(UsageError, match="text 0 is tuple"):
        model.encode([("a", "pair")])


def test_importing_embedder_does_not_import_sentence_transformers():
    code = "import sys, embedder.models.saving; sys.exit('sentence_transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
