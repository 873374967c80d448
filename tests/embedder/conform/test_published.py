"""Published layouts and models of sentence-transformers, taken apart and compared."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="sentence-transformers is optional")

from sentence_transformers.sentence_transformer.modules import Pooling

from benchmarks.lab.layouts.decoders import LAYOUTS, write_layout
from embedder import Embedder
from embedder.conform.endpoint import open_endpoint
from embedder.conform.examine import conform
from embedder.conform.local import EmbedderModel, LibraryModel, LoadedModel, take_apart
from embedder.loading import load_encoder
from retrieval.errors import UsageError
from tests.embedder.conform.conftest import unit

TEXTS = ["", "the corn", "é </s> 水", "the corn " * 200]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {
        name: write_layout(tmp_path_factory.mktemp(name), **layout)
        for name, layout in LAYOUTS.items()
    }


def load_library(folder):
    return LibraryModel(load_encoder(f"st:{folder}", device="cpu"))


@pytest.mark.parametrize("side", ["query", "document"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_taken_apart_a_published_model_gives_its_own_vectors(layout, side, folders):
    local = EmbedderModel(Embedder.load(str(folders[layout]), device="cpu"))
    again = local.vectors(TEXTS[1:], local.recipes[side])
    np.testing.assert_allclose(unit(again), unit(local.encode(TEXTS[1:], side)), atol=1e-5)


@pytest.mark.parametrize("side", ["query", "document"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_taken_apart_sentence_transformers_gives_its_own_vectors(layout, side, folders):
    local = load_library(folders[layout])
    again = local.vectors(TEXTS[1:], local.recipes[side])
    np.testing.assert_allclose(unit(again), unit(local.encode(TEXTS[1:], side)), atol=1e-5)


def test_sentence_transformers_reads_special_tokens_and_nothing_else_differs(folders):
    folder = folders["bidirectional-mean"]
    ours = EmbedderModel(Embedder.load(str(folder), device="cpu"))
    there = LoadedModel(load_encoder(f"st:{folder}", device="cpu"), "query")
    found = conform(ours, there, side="query")
    assert [finding.cause for finding in found.findings] == ["specials"]
    assert found.unexplained == 0
    swapped = conform(load_library(folder), LoadedModel(ours._embedder, "query"), side="query")
    assert [finding.text for finding in swapped.findings] == [
        "there, a text that spells a special token stays text; here, it is read as that token"
    ]


def test_the_wrong_end_token_of_qwen3_embedding_is_found(folders, start):
    """What a server does that takes eos_token (<|im_end|>) for the end of a text."""
    ours = Embedder.load(str(folders["qwen3-embedding"]), device="cpu")
    spec = replace(ours.spec, ending="<|im_end|>")
    found = conform(
        EmbedderModel(ours),
        open_endpoint(start(Embedder(spec, ours.backbone).encode_documents).url),
    )
    (finding,) = found.findings
    assert finding.text == "there, '<|im_end|>' ends a text; here, '<|endoftext|>' does"
    assert found.unexplained == 0


def test_a_prompt_that_is_pooled_though_the_model_leaves_it_out_is_found(folders, start):
    ours = Embedder.load(f"{folders['gritlm']},query_prompt=the corn: ", device="cpu")
    pooled = Embedder(replace(ours.spec, pool_prompt=True), ours.backbone)
    found = conform(
        EmbedderModel(ours), open_endpoint(start(pooled.encode_queries).url), side="query"
    )
    assert "pooled prompt" in [finding.cause for finding in found.findings]
    assert "there, the prompt is pooled too; here, the prompt is left out of the pooling" in [
        finding.text for finding in found.findings
    ]


def test_faults_of_a_server_are_found_by_a_model_of_sentence_transformers_too(folders, start):
    encoder = load_encoder(f"st:{folders['e5-mistral']}", device="cpu")
    local = take_apart(encoder)
    other = load_encoder(f"st:{folders['e5-mistral']}", device="cpu")
    other.model[1] = Pooling(32, "mean")
    found = conform(local, open_endpoint(start(other.encode_documents).url))
    (finding,) = found.findings
    assert finding.text == "there, a vector is the mean of the tokens; here, it is the last token"
    shorter = load_encoder(f"st:{folders['e5-mistral']}", device="cpu")
    shorter.model.max_seq_length = 30
    found = conform(local, open_endpoint(start(shorter.encode_documents).url))
    (finding,) = found.findings
    assert finding.text.startswith("there, texts of more than 30 tokens lose their end")
    assert found.unexplained == 0


def test_what_cannot_be_taken_apart_is_refused():
    class Encoder:
        fingerprint = type("Named", (), {"model": "strange"})

    with pytest.raises(UsageError, match="strange cannot be taken apart"):
        take_apart(Encoder())
