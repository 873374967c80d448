"""Published decoders by name: their vectors are those of sentence-transformers."""

import json

import numpy as np
import pytest

from embedder import Embedder
from embedder.models.published import read_published
from embedder.models.saving import save_model
from retrieval.errors import ModelError, UsageError
from tests.embedder.models.published_layouts import LAYOUTS, write_json, write_layout

TEXTS = [
    "who grinds the corn",
    "",
    "The MILL grinds the corn of the other village, and the miller takes his share of it.",
    "corn",
    "Un été: naïve 水车 🙂",
    "the corn " * 60,  # longer than any model here reads
    " leading and trailing spaces \n",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(name):
        if name not in made:
            made[name] = write_layout(tmp_path_factory.mktemp(name), **LAYOUTS[name])
        return made[name]

    return folder


def reference(folder, side, texts):
    """Return what sentence-transformers gives, at length 1."""
    library = pytest.importorskip("sentence_transformers")
    model = library.SentenceTransformer(str(folder), device="cpu")
    encode = model.encode_query if side == "query" else model.encode_document
    vectors = encode(texts)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-12)


@pytest.mark.parametrize("side", ["query", "document"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_published_decoder_gives_the_vectors_of_sentence_transformers(folders, name, side):
    folder = folders(name)
    embedder = Embedder.load(str(folder), device="cpu")
    prompt = getattr(embedder.spec, f"{side}_prompt")
    texts = [text for text in TEXTS if text or prompt or embedder.spec.ending != "none"]
    encode = embedder.encode_queries if side == "query" else embedder.encode_documents
    expected = reference(folder, side, texts)
    assert np.abs(encode(texts) - expected).max() < 1e-5
    embedder.packs = False
    assert np.abs(encode(texts) - expected).max() < 1e-5


def test_the_files_become_a_spec(folders):
    spec = read_published(str(folders("qwen3-embedding")), None, print).spec
    assert (spec.pooling, spec.attention, spec.ending) == ("eos", "causal", "<|endoftext|>")
    assert spec.query_prompt.startswith("Instruct: ") and spec.document_prompt == ""
    assert spec.max_tokens == 64  # of the tokenizer; the model has 128 positions
    gemma = read_published(str(folders("embeddinggemma")), None, print).spec
    assert [(layer.reads, layer.width) for layer in gemma.head] == [(32, 64), (64, 32)]
    assert (gemma.attention, gemma.ending) == ("bidirectional", "</s>")
    assert read_published(str(folders("bidirectional-mean")), None, print).spec.max_tokens == 128


def test_a_language_model_says_nothing_of_embedding(base_folder):
    assert read_published(str(base_folder["llama"]), None, print) is None
    assert read_published("smollm2-135m", None, print) is None
    assert Embedder.load(str(base_folder["llama"]), device="cpu").spec.pooling == "mean"


def test_options_change_a_published_model_and_stay_in_its_name(folders):
    folder = folders("stella")
    assert Embedder.load(str(folder), device="cpu").trained
    changed = Embedder.load(f"{folder},dimension=16,max_tokens=20", device="cpu")
    again = Embedder.load(changed.name, device="cpu")
    assert changed.fingerprint == again.fingerprint
    whole = Embedder.load(str(folder), device="cpu").encode_documents(["the corn"])[0]
    cut = changed.encode_documents(["the corn"])[0]
    np.testing.assert_allclose(cut, whole[:16] / np.linalg.norm(whole[:16]), atol=1e-6)


def test_an_explicit_variant_overrides_and_says_so(folders):
    lines = []
    folder = folders("qwen3-embedding")
    embedder = Embedder.load(f"{folder}:mean+causal", device="cpu", notify=lines.append)
    assert (embedder.spec.pooling, embedder.spec.query_prompt) == ("mean", "")
    (line,) = [line for line in lines if line.startswith("Overriding")]
    assert "pooling 'eos'" in line and "query_prompt 'Instruct:" in line and "mean+causal" in line


def test_the_fingerprint_covers_the_weights_after_the_pooling(tmp_path):
    from safetensors.torch import load_file, save_file

    folder = write_layout(tmp_path / "stella", **LAYOUTS["stella"])
    before = Embedder.load(str(folder), device="cpu").fingerprint
    assert before == Embedder.load(str(folder), device="cpu").fingerprint
    path = folder / "2_Dense" / "model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(path).items()}, path)
    after = Embedder.load(str(folder), device="cpu").fingerprint
    assert [line for line in before.differences(after) if "weights" in line]


def test_text_that_spells_a_special_token_stays_text_but_a_prompt_does_not(folders):
    folder = folders("gritlm")
    embedder = Embedder.load(str(folder), device="cpu")
    specials = embedder.backbone.tokenizer.convert_tokens_to_ids(["<|embed|>", "</s>"])
    prompted, plain = (
        embedder.tokenize(["corn </s>"], prompt)[0] for prompt in (embedder.spec.query_prompt, "")
    )
    assert [specials[0] in prompted, specials[1] in prompted] == [True, False]
    assert specials[1] not in plain
    text = ["corn </s>"]  # the one thing in which sentence-transformers gives another vector
    assert (
        np.abs(embedder.encode_documents(text) - reference(folder, "document", text)).max() > 0.01
    )


def test_token_ids_alone_do_not_say_where_a_prompt_ends(folders):
    embedder = Embedder.load(str(folders("gritlm")), device="cpu")
    with pytest.raises(UsageError, match="leaves its prompt out of the pooling"):
        embedder.encode_tokens(embedder.tokenize(["corn"]))


def test_an_ending_of_the_authors_that_transformers_5_forgets_is_kept(folders, tmp_path):
    """Beside tokenizer.json it ignores add_eos_token, by which e5-mistral's authors add EOS."""
    lines, authors = [], folders("e5-mistral")
    folder = write_layout(tmp_path / "e5", **{**LAYOUTS["e5-mistral"], "single": "<s> $A"})
    _change(folder / "tokenizer_config.json", add_eos_token=True)
    embedder = Embedder.load(str(folder), device="cpu", notify=lines.append)
    assert any("add_eos_token" in line and "leaves it out" in line for line in lines)
    expected = reference(authors, "document", TEXTS)
    assert np.abs(embedder.encode_documents(TEXTS) - expected).max() < 1e-5
    assert np.abs(reference(folder, "document", TEXTS) - expected).max() > 0.01


def test_a_saved_model_keeps_the_layers_after_the_pooling(folders, tmp_path):
    embedder = Embedder.load(str(folders("embeddinggemma")), device="cpu")
    texts = ["who grinds the corn", "the corn " * 60]
    for frozen in (True, False):  # the base named, and the base in the folder
        embedder.backbone.requires_grad_(not frozen)
        saved = tmp_path / f"saved-{frozen}"
        save_model(embedder, saved, record={})
        again = Embedder.load(str(saved), device="cpu")
        assert again.spec.head == embedder.spec.head
        for side in ("encode_queries", "encode_documents"):
            expected = getattr(embedder, side)(texts)
            np.testing.assert_allclose(getattr(again, side)(texts), expected, atol=1e-6)


BROKEN = {
    "two poolings at once": (
        lambda folder: None,
        {"pooling": ["mean_tokens", "cls_token"]},
        r"1_Pooling/config.json asks for the pooling cls and mean.*--model st:",
    ),
    "mean_sqrt_len": (
        lambda folder: None,
        {"pooling": ["mean_sqrt_len_tokens"]},
        r"asks for the pooling mean_sqrt_len_tokens.*--model st:",
    ),
    "an unknown module": (
        lambda folder: _append(folder, {"type": "sentence_transformers.models.WordWeights"}),
        {},
        r"modules.json names the module WordWeights.*--model st:",
    ),
    "two Pooling modules": (
        lambda folder: _append(folder, {"type": "sentence_transformers.models.Pooling"}),
        {},
        r"modules.json lists .*expected one Transformer, then one Pooling.*--model st:",
    ),
    "a Dense of another width": (
        lambda folder: _change(folder / "2_Dense" / "config.json", in_features=31),
        {"dense": [(24, True, "activation.Tanh")]},
        r"2_Dense/config.json reads vectors of 31 numbers, but 32 arrive there",
    ),
    "weights of another width": (
        lambda folder: _change(folder / "2_Dense" / "config.json", out_features=25),
        {"dense": [(24, True, "activation.Tanh")]},
        r"the weights of the layers after its pooling are .*\(24, 32\)",
    ),
    "a foreign activation": (
        lambda folder: _change(folder / "2_Dense" / "config.json", activation_function="my.Act"),
        {"dense": [(24, True, "activation.Tanh")]},
        r"2_Dense/config.json asks for the activation my.Act",
    ),
    "a Dense without safetensors": (
        lambda folder: (folder / "2_Dense" / "model.safetensors").unlink(),
        {"dense": [(24, True, "activation.Tanh")]},
        r"has no 2_Dense/model.safetensors",
    ),
    "a default prompt that does not exist": (
        lambda folder: None,
        {"library": {"default_prompt_name": "web"}, "prompts": {"query": "q: "}},
        r"config_sentence_transformers.json names the default prompt 'web', but has 'query'",
    ),
    "no configuration of the pooling": (
        lambda folder: (folder / "1_Pooling" / "config.json").unlink(),
        {},
        r"its 1_Pooling/config.json is missing",
    ),
}


def _append(folder, module):
    modules = json.loads((folder / "modules.json").read_text())
    write_json(folder / "modules.json", [*modules, {"path": "9", **module}])


def _change(path, **values):
    write_json(path, {**json.loads(path.read_text()), **values})


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_represented_is_refused_by_its_name(tmp_path, case):
    damage, changes, message = BROKEN[case]
    layout = {**LAYOUTS["max"], "pooling": ["mean_tokens"], **changes}
    folder = write_layout(tmp_path / "model", **layout)
    damage(folder)
    with pytest.raises(ModelError, match=message):
        Embedder.load(str(folder), device="cpu")


def test_an_encoder_is_for_sentence_transformers(tmp_path):
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(**sizes, intermediate_size=16, vocab_size=30)).save_pretrained(tmp_path)
    found = read_published(str(tmp_path), None, print)
    assert found.spec is None
    assert found.needs_sentence_transformers == "it is an encoder (bert)"


def test_a_name_asks_for_an_ending(base_folder):
    folder = base_folder["llama"]
    none, token = (
        Embedder.load(f"{folder}:mean+causal,ending={ending}", device="cpu")
        for ending in ("none", "<pad>")
    )
    assert token.tokenize(["a"])[0][:-1] == none.tokenize(["a"])[0]
    assert token.fingerprint.settings["ending"] == "<pad>"
    with pytest.raises(ModelError, match="ending is '<x>', but the base's tokenizer has no such"):
        Embedder.load(f"{folder}:mean+causal,ending=<x>", device="cpu")
