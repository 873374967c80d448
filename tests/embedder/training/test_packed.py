"""Training on packed texts: the padded step's gradients, also where layers are computed again."""

from functools import partial

import pytest
import torch
from peft.tuners.lora import LoraLayer

from embedder.engine.packing import PackedBatch
from embedder.pooling import POOLINGS
from embedder.training import check_data
from embedder.training.batch import SourceTokenizer, StepPairs, draw_pairs
from embedder.training.config import read_config
from embedder.training.data import Pair
from embedder.training.distillation.projection import with_projection
from embedder.training.processes import Processes
from embedder.training.setup import build_model, unwrap_model
from retrieval.errors import UsageError
from tests.embedder.training.stepping import step_gradients

ALONE = Processes(torch.device("cpu"))
VARIANTS = [
    (pooling, attention)
    for pooling in ("mean", "eos", *(name for name in POOLINGS if POOLINGS[name].trainable))
    for attention in ("causal", "bidirectional")
]


@pytest.mark.parametrize("kind", ["lora", "full"])
@pytest.mark.parametrize(("pooling", "attention"), VARIANTS)
def test_gradients_are_those_of_padded_texts(variant_config, assert_same, pooling, attention, kind):
    """Without dropout, whose masks fall on other places in another layout."""
    variant = variant_config(pooling, attention, adapter__dropout=0.0, adapter__kind=kind)
    padded, _ = step_gradients(variant, ALONE, cached=False, packs=False)
    packed, _ = step_gradients(variant, ALONE, cached=False)
    assert_same(padded, packed, 1e-5)
    assert any(gradient.any() for name, gradient in packed.items() if name != "loss")


def test_a_source_never_asks_for_more_positions_than_the_base_has(plan, base_folder, pairs_file):
    data = [{"path": str(pairs_file), "max_document_tokens": 200}]
    model = {"base": str(base_folder["gpt_neo"]), "pooling": "mean", "attention": "causal"}
    config = read_config(plan(data=data, model={**model, "max_tokens": 256}), pairs_file.parent)
    tokenizer = SourceTokenizer(build_model(config, ALONE.device, lambda _: None), config.data)
    positions = 64
    lesson = StepPairs((0,), (Pair("", "x" * 300, ()),))
    assert tokenizer.count_tokens(lesson) == positions


def test_matryoshka_dimensions_are_those_of_the_teachers_width_where_vectors_have_it(config):
    project = partial(with_projection, width=8, space="x")
    for dimension in (8, 16):  # the base has 32
        cut = config(loss__matryoshka_dimensions=[dimension])
        if dimension == 8:
            assert build_model(cut, ALONE.device, lambda _: None, project).dimension == 8
        else:
            with pytest.raises(UsageError, match="names 16, but the vectors have 8"):
                build_model(cut, ALONE.device, lambda _: None, project)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_bfloat16_gradients_are_near_those_of_float32_and_cast_by_autocast_alone(
    variant_config, attention
):
    exact = variant_config("mean", attention, adapter__dropout=0.0)
    rough = variant_config("mean", attention, adapter__dropout=0.0, dtype="bfloat16")
    expected, found = (step_gradients(each, ALONE, cached=False)[0] for each in (exact, rough))
    for name in expected.keys() - {"loss"}:
        apart = (found[name] - expected[name]).norm()
        assert apart <= 0.05 * expected[name].norm() + 1e-6, name

    built = build_model(rough, ALONE.device, lambda _: None)
    layers = [each for each in built.modules() if isinstance(each, LoraLayer)]
    assert layers
    assert not any(layer.cast_input_dtype_enabled for layer in layers)
    unwrap_model(built)
    assert all(layer.cast_input_dtype_enabled for layer in layers)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize(("pooling", "attention"), [("mean", "causal"), ("multi_layer", "causal")])
def test_layers_that_are_computed_again_attend_within_each_text(
    variant_config, assert_same, pooling, attention, cached
):
    """The gradient asks for them when the pass is over; dropout is on, and repeated."""
    settings = {"adapter__dropout": 0.3}
    held = variant_config(pooling, attention, **settings)
    again = variant_config(pooling, attention, gradient_checkpointing=True, **settings)
    assert_same(
        step_gradients(held, ALONE, cached=cached)[0],
        step_gradients(again, ALONE, cached=cached)[0],
        1e-5,
    )


@pytest.mark.parametrize(("architecture", "packed", "padded"), [("llama", 9, 0), ("mistral", 3, 6)])
def test_texts_are_packed_as_far_as_the_base_may_be(
    config, base_folder, tmp_path, architecture, packed, padded
):
    """A byte is a token and EOS ends a text; mistral packs up to 8, the longer ones are padded."""
    path = tmp_path / "pairs.jsonl"
    lines = ['{"query": "%s", "positive": "%s", "negatives": ["%s"]}'] * 3
    texts = [("a", "b" * 12, "c" * 20), ("dd", "e" * 13, "f" * 21), ("ggg", "h" * 14, "i" * 22)]
    path.write_text("\n".join(line % text for line, text in zip(lines, texts, strict=True)))
    variant = config(
        model__base=str(base_folder[architecture]),
        data=[{"path": str(path)}],
        batch_pairs=3,
        loss__hard_negatives=1,
    )
    embedder = build_model(variant, ALONE.device, lambda _: None)
    data = check_data(variant)
    step = draw_pairs(data, [(0, index) for index in range(3)], 1, (0,))
    local = SourceTokenizer(embedder, variant.data).local_batch(step, ALONE, forward_tokens=64)
    counts = {True: 0, False: 0}
    for chunk in local.chunks:
        rows = len(chunk.offsets) - 1 if isinstance(chunk, PackedBatch) else len(chunk.ids)
        counts[isinstance(chunk, PackedBatch)] += rows
    assert counts == {True: packed, False: padded}
    assert sorted(local.order.tolist()) == list(range(9))
    assert local.tokens == sum(len(text) + 1 for pair in texts for text in pair)
