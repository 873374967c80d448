"""Variants of one base and attention in one forward pass: the vectors of each by itself."""

from itertools import groupby

import numpy as np
import pytest

from embedder import Embedder, VariantSpec, list_variants
from embedder.engine.shared_pass import can_share, encode_together
from embedder.pooling import PoolingOptions
from embedder.variants import ATTENTIONS
from retrieval.errors import ModelError, UsageError

TEXTS = ["a", "mill", "the quick brown fox jumps", "", "pond", "mills grind slowly " * 9]
POOLINGS = [v.pooling for v in list_variants() if v.attention == "causal"]


def make(folder, pooling, attention="causal", **settings):
    return VariantSpec(
        base=str(folder), pooling=pooling, attention=attention, **{"max_tokens": 96, **settings}
    )


def over(first, *specs):
    return [first, *(Embedder(spec, first.backbone) for spec in specs)]


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "padded"])
@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("side", ["query", "document"])
def test_each_variant_gets_the_vectors_that_it_gives_alone(base_folder, attention, side, packs):
    prompts = {"query_prompt": "find: ", "document_prompt": "text: "}
    specs = [make(base_folder["llama"], p, attention, **prompts) for p in POOLINGS]
    specs.append(make(base_folder["llama"], "mean", attention, **prompts, dimension=8))
    options = PoolingOptions(layers=(2, -1), latents=5)
    specs.append(
        make(base_folder["llama"], "multi_layer", attention, **prompts, pooling_options=options)
    )
    shared = [spec for spec in specs if can_share(specs[0], spec)]
    assert {spec.pooling for spec in shared} == set(POOLINGS) - {"prompt_eos"}
    embedders = over(Embedder.from_spec(shared[0], device="cpu", batch_tokens=64), *shared[1:])
    embedders[0].packs = packs
    found = encode_together(embedders, TEXTS, side)
    for spec, vectors in zip(shared, found, strict=True):
        alone = Embedder.from_spec(spec, device="cpu")
        encode = alone.encode_queries if side == "query" else alone.encode_documents
        np.testing.assert_allclose(vectors, encode(TEXTS), atol=1e-5, err_msg=spec.pooling)
        assert vectors.dtype == np.float32 and vectors.shape == (len(TEXTS), alone.dimension)


def test_the_base_runs_once_whatever_the_number_of_variants(base_folder, monkeypatch):
    first = Embedder.from_spec(make(base_folder["llama"], "eos"), device="cpu")
    embedders = over(first, *(make(base_folder["llama"], p) for p in ("mean", "multi_layer")))
    runs = []
    handle = first.backbone.model.register_forward_hook(lambda *_: runs.append(1))
    encode_together(embedders, TEXTS, "document")
    together = len(runs)
    for one in embedders:
        one.encode_documents(TEXTS)
    handle.remove()
    assert together == 1
    assert len(runs) == together + len(embedders)


@pytest.mark.parametrize(
    "changes",
    [
        {"attention": "bidirectional"},
        {"max_tokens": 32},
        {"query_prompt": "q: "},
        {"document_prompt": "d: "},
        {"base_layers": 2},
        {"pooling": "prompt_eos"},
        {"chat_template": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_variants_that_see_other_states_do_not_share(base_folder, changes):
    settings = {"pooling": "mean", "attention": "causal"}
    one = make(base_folder["llama"], **settings)
    other = make(base_folder["llama"], **{**settings, **changes})
    assert can_share(one, one)
    assert not can_share(one, other)


def test_embedders_over_two_loaded_bases_are_refused(base_folder):
    two = [Embedder.from_spec(make(base_folder["llama"], "mean"), device="cpu") for _ in range(2)]
    with pytest.raises(UsageError, match="cannot share a forward pass"):
        encode_together(two, TEXTS, "query")


def test_groups_are_the_paper_models_by_attention(base_folder):
    specs = [make(base_folder["llama"], v.pooling, v.attention) for v in list_variants()[:5]]
    groups = [len(list(group)) for _, group in groupby(specs, key=lambda s: s.attention)]
    assert groups == [3, 2]
    assert all(can_share(a, b) == (a.attention == b.attention) for a in specs for b in specs)


def test_nan_is_refused_and_names_the_model(base_folder):
    first = Embedder.from_spec(make(base_folder["llama"], "mean"), device="cpu")
    broken = Embedder(make(base_folder["llama"], "multi_layer"), first.backbone)
    next(broken.pooling.parameters()).data.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"multi_layer\+causal.* gave NaN or infinity for text 0"):
        encode_together([first, broken], TEXTS, "query")
