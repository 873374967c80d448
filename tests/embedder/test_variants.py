"""Specs, variant names and model names."""

import json

import pytest
from hypothesis import given, strategies

from embedder import VariantSpec, get_variant, list_variants
from embedder.pooling import POOLINGS, PoolingOptions
from embedder.variants import ATTENTIONS, format_model_name, parse_model_name, spec_to_json
from retrieval.errors import UnknownNameError, UsageError
from retrieval.typed import read_dataclass


def without_places(text):
    return text.replace("{text}", "")


def test_the_papers_models_are_the_pairs_of_its_table():
    pairs = {f"model{n}": get_variant(f"model{n}") for n in range(1, 6)}
    assert {name: (v.pooling, v.attention) for name, v in pairs.items()} == {
        "model1": ("eos", "causal"),
        "model2": ("last_layer", "causal"),
        "model3": ("multi_layer", "causal"),
        "model4": ("last_layer", "bidirectional"),
        "model5": ("multi_layer", "bidirectional"),
    }


def test_every_pooling_x_attention_pair_is_listed_once():
    pairs = [(variant.pooling, variant.attention) for variant in list_variants()]
    assert sorted(pairs) == sorted((p, a) for p in POOLINGS for a in ATTENTIONS)


@pytest.mark.parametrize("variant", list_variants(), ids=lambda variant: variant.name)
def test_a_variant_is_found_by_its_name_and_by_its_pair(variant):
    assert get_variant(variant.name) == variant
    assert get_variant(f"{variant.pooling}+{variant.attention}") == variant


@pytest.mark.parametrize(
    "name",
    [
        "smollm2-135m:mean+causal",
        "smollm2-135m:multi_layer+bidirectional,latents=16,layers=1/2/-1,layer_weights=false",
        "acme/base@v1.0:eos+causal,query_prompt=query: ,max_tokens=64",
        "smollm2-135m:weighted_mean+causal,base_layers=12,dimension=64,normalize=false",
    ],
)
def test_a_model_name_comes_back_as_it_was_written(name):
    spec = parse_model_name(name, "max+causal")
    assert sorted(format_model_name(spec).split(",")) == sorted(name.split(","))
    assert parse_model_name(format_model_name(spec), "max+causal") == spec


PROMPTS = [
    "Instruct: find it, please\nQuery: ",
    'say "yes", or "no": ',
    '"',
    "a\\b, c\\",
    "\u68c0\u7d22\uff0c text, \u2028 end",
    ",max_tokens=9",
    ": x:mean+causal",
]


@pytest.mark.parametrize("prompt", PROMPTS)
def test_any_prompt_can_be_named(prompt):
    spec = VariantSpec(
        base="acme/base", pooling="eos", attention="causal", query_prompt=prompt, max_tokens=64
    )
    assert parse_model_name(format_model_name(spec), "mean+causal") == spec


@given(strategies.text(strategies.characters(exclude_categories=["Cs"])).map(without_places))
def test_every_text_can_be_named_as_a_prompt(prompt):
    spec = VariantSpec(base="x", pooling="eos", attention="causal", document_prompt=prompt)
    assert parse_model_name(format_model_name(spec), "mean+causal") == spec


def test_quotes_are_read_as_they_are_typed():
    name = r'x:eos+causal,query_prompt="Instruct: a, b\nQuery: \"",max_tokens=64'
    spec = parse_model_name(name, "mean+causal")
    assert (spec.query_prompt, spec.max_tokens) == ('Instruct: a, b\nQuery: "', 64)


def test_a_base_alone_gets_the_default_variant():
    spec = parse_model_name("smollm2-135m", "mean+causal")
    assert (spec.base, spec.pooling, spec.attention) == ("smollm2-135m", "mean", "causal")


def test_a_base_alone_takes_options_too():
    spec = parse_model_name(
        "owner/base@main,max_tokens=64,query_prompt=Query:mean+causal", "eos+causal"
    )
    assert (spec.base, spec.revision, spec.pooling) == ("owner/base", "main", "eos")
    assert (spec.max_tokens, spec.query_prompt) == (64, "Query:mean+causal")


@pytest.mark.parametrize("name", ["run10:30", "a,b=c", "mean:mean+causal", 'x,query_prompt="y'])
def test_a_folder_is_named_by_its_path_whatever_that_holds(name, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    assert parse_model_name(str(folder), "mean+causal").base == str(folder)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("x:mean", UsageError, r"names no attention\. Type mean\+causal or mean\+bidirectional"),
        ("x:modle1", UnknownNameError, "Unknown variant 'modle1'. Did you mean 'model1'"),
        ("x:men+causal", UnknownNameError, "Unknown pooling 'men'. Did you mean 'mean'"),
        ("x:mean+both", UnknownNameError, "Unknown attention 'both'. Accepted: causal, bidir"),
        ("x:mean+causal,max_token=9", UnknownNameError, "Did you mean 'max_tokens'"),
        ("x:mean+causal,max_tokens=few", UsageError, "'few'; expected a whole number"),
        ("x:mean+causal,normalize=no", UsageError, "'no'; expected true or false"),
        ("x:multi_layer+causal,layers=a", UsageError, "whole numbers as 1/2/3"),
        ("x:mean+causal,max_tokens=1", UsageError, "max_tokens is 1; it must be 4 or more"),
        ("x:mean+causal,latents=4", UsageError, "Pooling 'mean' has no option latents"),
        ("", UsageError, "names no base"),
        ('x:mean+causal,query_prompt="a, b', UsageError, "begins with a quote and does not end"),
        ('x:mean+causal,query_prompt="a"b', UsageError, "begins with a quote and does not end"),
        (r'x:mean+causal,query_prompt="\q"', UsageError, "expected a JSON string"),
    ],
)
def test_a_wrong_model_name_says_what_is_expected(name, error, message):
    with pytest.raises(error, match=message):
        parse_model_name(name, "mean+causal")


def read_spec(data):
    return read_dataclass(VariantSpec, data, "spec")


def test_a_spec_survives_json():
    spec = VariantSpec(
        base="smollm2-135m",
        pooling="multi_layer",
        attention="bidirectional",
        query_prompt="query: {text}?",
        pooling_options=PoolingOptions(layers=(1, 2), latents=8),
    )
    assert read_spec(json.loads(json.dumps(spec_to_json(spec)))) == spec


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"base": "a", "poolin": "mean"},
            "key 'spec.poolin'. Did you mean 'spec.pooling'",
        ),
        ({"base": "a", "pooling": "mean"}, "has no spec.attention"),
        (
            {"base": "a", "pooling": "mean", "attention": "causal", "pooling_options": {"x": 1}},
            "Unknown config key 'spec.pooling_options.x'",
        ),
    ],
)
def test_a_wrong_spec_file_names_the_key(data, message):
    with pytest.raises(UsageError, match=message):
        read_spec(data)


def test_a_prompt_has_one_place_for_the_text():
    with pytest.raises(UsageError, match="more than once"):
        VariantSpec(base="a", pooling="mean", attention="causal", query_prompt="{text} {text}")
