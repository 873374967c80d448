"""The hard rules, over every variant in the registry and four architectures."""

import numpy as np
import pytest
import torch

from embedder import Embedder, VariantSpec, list_variants
from embedder.engine.batches import PaddedBatch, pad_batch
from embedder.pooling import PoolingOptions
from retrieval import Encoder
from retrieval.errors import ModelError, UsageError
from tests.embedder.conftest import FOLLOWING, every_variant

TEXTS = [
    "a",
    "the quick brown fox jumps over the lazy dog",
    "",
    "pond",
    "mills grind slowly, ponds fill slower, and this one is long enough to be cut " * 2,
    "the quick brown fox jumps over the lazy cat",
]
VARIANTS = [(variant.pooling, variant.attention) for variant in list_variants()]


def load(folder, pooling, attention, **settings):
    settings = {"max_tokens": 96, **settings}
    batch_tokens = settings.pop("batch_tokens", None)
    spec = VariantSpec(base=str(folder), pooling=pooling, attention=attention, **settings)
    return Embedder.from_spec(spec, device="cpu", batch_tokens=batch_tokens)


@pytest.fixture(params=FOLLOWING)
def folder(request, base_folder):
    return base_folder[request.param]


@pytest.fixture
def llama(base_folder):
    return base_folder["llama"]


@pytest.mark.parametrize(("pooling", "attention", "architecture"), every_variant(*FOLLOWING))
def test_a_text_has_one_embedding_alone_or_in_any_batch_padded_on_either_side(
    base_folder, pooling, attention, architecture
):
    embedder = load(base_folder[architecture], pooling, attention)
    alone = np.concatenate([embedder.encode_documents([text]) for text in TEXTS])
    assert np.isfinite(alone).all()
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1.0, atol=1e-6)
    for side in ("right", "left"):
        embedder.padding_side = side
        np.testing.assert_allclose(embedder.encode_documents(TEXTS), alone, atol=1e-5)
        np.testing.assert_allclose(embedder.encode_documents(TEXTS[::-1])[::-1], alone, atol=1e-5)


BLIND = ("cls", "causal")
"""The first token of a text sees no other under causal attention."""


def test_under_causal_attention_cls_sees_the_first_token_alone(llama):
    first, same, other = load(llama, *BLIND).encode_documents(["mill", "moon and sea", "pond"])
    np.testing.assert_allclose(first, same, atol=1e-5)
    assert np.abs(first - other).max() > 1e-4


@pytest.mark.parametrize(("pooling", "attention"), [pair for pair in VARIANTS if pair != BLIND])
def test_different_texts_have_different_embeddings(llama, pooling, attention):
    vectors = load(llama, pooling, attention).encode_documents(TEXTS)
    distance = np.abs(vectors[:, None] - vectors[None]).max(axis=-1)
    assert (distance[~np.eye(len(TEXTS), dtype=bool)] > 1e-4).all()


@pytest.mark.parametrize(("pooling", "attention", "architecture"), every_variant(*FOLLOWING))
def test_the_end_of_every_sequence_survives_truncation(
    base_folder, pooling, attention, architecture
):
    embedder = load(base_folder[architecture], pooling, attention, max_tokens=64)
    short, long = embedder.tokenize(["x", "x" * 500])
    assert len(long) == 64
    assert len(short) < 64
    ending = 1 if pooling != "prompt_eos" else len('" means in one word: "')
    assert long[-ending:] == short[-ending:]
    eos = embedder.backbone.tokenizer.eos_token_id
    assert (long[-1] == eos) == (pooling != "prompt_eos")


def test_padding_is_found_by_the_mask_where_pad_is_eos(llama):
    embedder = load(llama, "mean", "bidirectional")
    assert embedder.backbone.tokenizer.pad_token_id == embedder.backbone.tokenizer.eos_token_id
    ids, mask = pad_batch(embedder.tokenize(["ab", "abcdef"]), pad_id=2)
    other = ids.masked_fill(mask == 0, 77)
    with torch.inference_mode():
        torch.testing.assert_close(embedder(ids, mask), embedder(other, mask))


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_layer_states_are_the_models_own_hidden_states(folder, attention):
    embedder = load(folder, "multi_layer", attention)
    backbone = embedder.backbone
    ids, mask = pad_batch(embedder.tokenize(["pond", "millpond water"]), pad_id=0)
    with torch.inference_mode():
        found = backbone.read(PaddedBatch(ids, mask), [1, 2, 3, 4]).stack([1, 2, 3, 4])
        hidden = backbone.model(
            input_ids=ids, attention_mask=mask, output_hidden_states=True
        ).hidden_states
    lengths = mask.sum(dim=1)
    for layer in (1, 2, 3, 4):
        for row in range(2):
            real = hidden[layer][row, : lengths[row]]
            expected = real[-1] if attention == "causal" else real.mean(dim=0)
            torch.testing.assert_close(found[row, layer - 1], expected, atol=1e-5, rtol=1e-5)


def test_results_come_in_input_order_whatever_the_batch_size(llama):
    wide = load(llama, "mean", "causal")
    narrow = load(llama, "mean", "causal", batch_tokens=1)
    done = []
    found = narrow.encode_documents(TEXTS, progress=done.append)
    np.testing.assert_allclose(found, wide.encode_documents(TEXTS), atol=1e-5)
    assert done == [1] * len(TEXTS)


def test_query_and_document_prompts_change_only_their_own_side(llama):
    plain = load(llama, "mean", "causal")
    asking = load(llama, "mean", "causal", query_prompt="query: ")
    assert np.array_equal(plain.encode_documents(["a"]), asking.encode_documents(["a"]))
    np.testing.assert_allclose(
        asking.encode_queries(["a"]), plain.encode_documents(["query: a"]), atol=1e-6
    )


def test_the_dimension_cuts_the_vector_and_then_normalises(llama):
    whole = load(llama, "mean", "causal").encode_documents(["pond"])
    cut = load(llama, "mean", "causal", dimension=8).encode_documents(["pond"])
    expected = whole[:, :8] / np.linalg.norm(whole[:, :8])
    np.testing.assert_allclose(cut, expected, atol=1e-6)


def test_vectors_keep_their_length_where_the_spec_says_so(llama):
    raw = load(llama, "mean", "causal", normalize=False).encode_documents(["pond"])
    unit = load(llama, "mean", "causal").encode_documents(["pond"])
    assert abs(np.linalg.norm(raw) - 1) > 0.01
    np.testing.assert_allclose(raw / np.linalg.norm(raw), unit, atol=1e-6)


def test_a_base_can_be_cut_to_its_first_layers(llama):
    embedder = load(llama, "multi_layer", "causal", base_layers=2)
    assert embedder.backbone.layer_count == 2
    assert embedder.pooling.layer_weights.shape[0] == 2
    with pytest.raises(UsageError, match="base_layers is 9, but .* has 4"):
        load(llama, "mean", "causal", base_layers=9)


def test_last_layer_reads_eos_under_causal_and_tokens_under_bidirectional(llama):
    """Under causal attention one key is read, so which latent asks makes no difference."""

    def spread(attention, reads):
        options = PoolingOptions(init="random", reads=reads, latents=4)
        embedder = load(llama, "last_layer", attention, pooling_options=options)
        seen = []
        embedder.pooling.attend.register_forward_hook(lambda m, i, o: seen.append(o))
        embedder.encode_documents(["the millpond lies still"])
        return float(seen[0].std(dim=1).max())

    assert spread("causal", "auto") < 1e-6 < spread("causal", "tokens")
    assert spread("bidirectional", "eos") < 1e-6 < spread("bidirectional", "auto")


def test_layers_are_chosen_from_either_end_and_checked(llama):
    options = PoolingOptions(layers=(1, -1))
    assert load(llama, "multi_layer", "causal", pooling_options=options).pooling.layer_weights.shape
    for layers in ((0,), (5,), (1, -4)):
        with pytest.raises(UsageError, match=r"expected distinct layers from 1 to 4"):
            load(llama, "multi_layer", "causal", pooling_options=PoolingOptions(layers=layers))


def test_pooling_is_float32_where_the_backbone_is_bfloat16(llama):
    spec = VariantSpec(base=str(llama), pooling="multi_layer", attention="causal")
    embedder = Embedder.from_spec(spec, device="cpu", dtype=torch.bfloat16)
    assert {p.dtype for p in embedder.pooling.parameters()} == {torch.float32}
    assert {p.dtype for p in embedder.backbone.parameters()} == {torch.bfloat16}
    vectors = embedder.encode_documents(TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_an_embedder_is_an_encoder_and_no_text_gives_no_vector(llama):
    embedder = load(llama, "mean", "causal")
    assert isinstance(embedder, Encoder)
    assert embedder.encode_queries([]).shape == (0, 32)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one string", "expected a list of strings"),
        (["fine", 3], "text 1 is int"),
        (["half \ud800"], "half a surrogate pair"),
    ],
)
def test_what_is_not_a_list_of_texts_is_refused(llama, texts, message):
    with pytest.raises(UsageError, match=message):
        load(llama, "mean", "causal").encode_documents(texts)


def test_nan_weights_are_an_error_not_a_vector(llama):
    embedder = load(llama, "mean", "causal")
    with torch.no_grad():
        embedder.backbone.model.norm.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="gave NaN or infinity for text 0: 'pond'"):
        embedder.encode_documents(["pond"])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"pooling": "mean"}, {"pooling": "max"}),
        ({"attention": "causal"}, {"attention": "bidirectional"}),
        ({}, {"query_prompt": "query: "}),
        ({}, {"document_prompt": "passage: "}),
        ({}, {"max_tokens": 32}),
        ({}, {"dimension": 8}),
        ({}, {"base_layers": 2}),
        ({}, {"normalize": False}),
        ({}, {"lowercase": True}),
        (
            {"pooling": "multi_layer"},
            {"pooling": "multi_layer", "pooling_options": PoolingOptions(seed=1)},
        ),
    ],
)
def test_whatever_changes_vectors_changes_the_fingerprint(llama, first, second):
    default = {"pooling": "mean", "attention": "causal"}
    one = load(llama, **{**default, **first}).fingerprint
    same = load(llama, **{**default, **first}).fingerprint
    other = load(llama, **{**default, **second}).fingerprint
    assert one.digest == same.digest
    assert one.digest != other.digest


def test_an_option_that_is_off_leaves_the_fingerprint_of_before_it_existed(llama):
    assert "lowercase" not in load(llama, "mean", "causal").fingerprint.settings


def test_a_model_that_lower_cases_tells_no_case_apart(llama):
    embedder = load(llama, "mean", "causal", lowercase=True)
    shouted, said = embedder.encode_documents(["MILL POND", "mill pond"])
    np.testing.assert_array_equal(shouted, said)
    assert not np.allclose(load(llama, "mean", "causal").encode_documents(["MILL POND"]), said)


def test_another_bases_weights_have_another_fingerprint(base_folder):
    one, other = (
        load(base_folder[name], "mean", "causal").fingerprint for name in ("llama", "mistral")
    )
    assert any(line.startswith("weights") for line in one.differences(other))
