"""Trained models by name: built-in ones, folders, and options after them."""

import shutil

import numpy as np
import pytest

from embedder import Embedder
from embedder.models import names as builtin
from embedder.models.manifest import read_manifest
from embedder.models.names import find_saved_model
from embedder.models.saving import save_model
from indexes import Index
from retrieval import Document
from retrieval.errors import UnknownNameError, UsageError
from tests.indexes.fakes import HashingEncoder


@pytest.fixture
def model(trained, tmp_path, monkeypatch):
    """A trained model of which a copy is built in under the name "tiny"."""
    embedder = trained("mean", "causal", max_tokens=64)
    save_model(embedder, tmp_path / "model", record={})
    monkeypatch.setattr(builtin, "_HOME", tmp_path / "home")
    shutil.copytree(tmp_path / "model", tmp_path / "home" / "tiny")
    return tmp_path / "model"


def test_a_built_in_model_is_found_by_its_name_and_keeps_it(model):
    assert find_saved_model("tiny").folder == builtin.builtin_folder("tiny")
    loaded = Embedder.load("tiny", device="cpu")
    assert (loaded.name, loaded.trained) == ("tiny", True)
    assert loaded.fingerprint.digest == Embedder.load(str(model), device="cpu").fingerprint.digest


def test_a_built_in_name_goes_before_a_folder_of_that_name(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, tmp_path / "tiny")
    assert find_saved_model("tiny").name == "tiny"
    assert find_saved_model("./tiny").name == str(tmp_path / "tiny")


def test_options_replace_what_was_saved_and_stay_in_the_name(model):
    short = Embedder.load("tiny,max_tokens=8,dimension=16", device="cpu")
    assert (short.spec.max_tokens, short.dimension) == (8, 16)
    assert short.name == "tiny,max_tokens=8,dimension=16"
    again = Embedder.load(short.name, device="cpu")
    np.testing.assert_array_equal(again.encode_documents(["a"]), short.encode_documents(["a"]))
    assert find_saved_model(f"{model},max_tokens=8").name == f"{model},max_tokens=8"


def test_a_prompt_with_a_comma_and_a_line_break_is_an_option(model):
    name = r'tiny,query_prompt="find it, please\nquery: ",max_tokens=16'
    loaded = Embedder.load(name, device="cpu")
    assert (loaded.spec.query_prompt, loaded.spec.max_tokens) == ("find it, please\nquery: ", 16)
    assert Embedder.load(loaded.name, device="cpu").fingerprint == loaded.fingerprint
    with pytest.raises(UsageError, match="query_prompt .* begins with a quote"):
        find_saved_model('tiny,query_prompt="find it')


def test_an_option_that_would_change_the_weights_is_refused(model):
    with pytest.raises(UnknownNameError, match="option of a trained model 'base_layers'"):
        find_saved_model("tiny,base_layers=1")
    with pytest.raises(UsageError, match="max_tokens is 'many'; expected a whole number"):
        find_saved_model("tiny,max_tokens=many")


@pytest.mark.parametrize("name", ["smollm2-135m", "smollm2-135m:mean+causal,max_tokens=8", "a,b=c"])
def test_other_names_are_no_saved_models(model, name):
    assert find_saved_model(name) is None


def test_built_in_models_are_listed_with_what_they_are(model):
    (found,) = builtin.list_builtin_models()
    assert (found.name, found.variant, found.base_layers) == ("tiny", "mean+causal", None)
    assert found.weights_bytes == (model / "adapter/adapter_model.safetensors").stat().st_size


@pytest.mark.parametrize("text", ["{}", "{}:eos+causal", "{},max_tokens=8"])
def test_an_index_is_no_model_and_the_message_names_the_model_that_made_it(tmp_path, text):
    Index.create(tmp_path / "docs", HashingEncoder(), [Document("a", "grind corn")]).close()
    name = text.format(tmp_path / "docs")
    message = r"docs is an index; expected a model\. Type the one that made it: hash"
    with pytest.raises(UsageError, match=message):
        Embedder.load(name)
    with pytest.raises(UsageError, match="docs is an index"):
        read_manifest(tmp_path / "docs")
