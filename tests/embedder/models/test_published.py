"""Published decoders by name: their vectors are those of sentence-transformers."""

import json

import numpy as np
import pytest

from benchmarks.lab.layouts import decoders
from benchmarks.lab.layouts.decoders import LAYOUTS, write_json, write_layout
from embedder import Embedder
from embedder.models.foreign.files import name_encoder
from embedder.models.published import read_published
from embedder.models.saving import save_model
from embedder.models.sentence_transformers import needs_sentence_transformers
from retrieval.errors import MillpondError, ModelError, UsageError

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
    spec = read_published(str(folders("qwen3-embedding")), None, print)
    assert (spec.pooling, spec.attention, spec.ending) == ("eos", "causal", "<|endoftext|>")
    assert spec.query_prompt.startswith("Instruct: ") and spec.document_prompt == ""
    assert spec.max_tokens == 64  # of the tokenizer; the model has 128 positions
    gemma = read_published(str(folders("embeddinggemma")), None, print)
    assert [(layer.reads, layer.width) for layer in gemma.head] == [(32, 64), (64, 32)]
    assert (gemma.attention, gemma.ending) == ("bidirectional", "</s>")
    assert read_published(str(folders("bidirectional-mean")), None, print).max_tokens == 128


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
    assert read_published(str(tmp_path), None, print) is None
    assert needs_sentence_transformers(str(tmp_path)) == "it is an encoder (bert)"


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


def test_a_prompt_that_ends_in_a_special_token_is_left_out_as_sentence_transformers_does(tmp_path):
    """It counts that token as an ending, so the mean reads it: one token, but another vector."""
    prompts = {"query": "Find it<|embed|>", "document": "<|embed|>"}
    folder = write_layout(tmp_path / "gritlm", **{**LAYOUTS["gritlm"], "prompts": prompts})
    embedder = Embedder.load(str(folder), device="cpu")
    for side, encode in (
        ("query", embedder.encode_queries),
        ("document", embedder.encode_documents),
    ):
        assert np.abs(encode(TEXTS) - reference(folder, side, TEXTS)).max() < 1e-5


@pytest.mark.parametrize("prompt", ["Find IT: ", "<|embed|>Find "])
def test_a_typed_prompt_is_read_as_sentence_transformers_reads_it(folders, prompt):
    library = pytest.importorskip("sentence_transformers")
    for name in ("cls-tanh-lower", "qwen3-embedding"):
        folder = folders(name)
        typed = Embedder.load(f"{folder},query_prompt={prompt}", device="cpu")
        model = library.SentenceTransformer(str(folder), device="cpu")
        expected = model.encode(TEXTS, prompt=prompt, normalize_embeddings=True)
        assert np.abs(typed.encode_queries(TEXTS) - expected).max() < 1e-5
        again = Embedder.load(typed.name, device="cpu")
        assert again.fingerprint == typed.fingerprint


def test_a_model_that_names_no_longest_input_is_cut_at_512_and_says_so(tmp_path):
    from transformers import BloomConfig

    config = BloomConfig(vocab_size=len(decoders.TOKENS), hidden_size=32, n_layer=2)
    layout = {**LAYOUTS["max"], "config": config, "max_seq_length": None, "length": 10**30}
    folder, lines = write_layout(tmp_path / "bloom", **layout), []
    assert read_published(str(folder), None, lines.append).max_tokens == 512
    assert any("names no longest input; texts are cut at 512 tokens" in line for line in lines)
    lines.clear()
    typed = read_published(str(folder), None, lines.append, ",max_tokens=700")
    assert typed.max_tokens == 700
    assert not any("longest input" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "kept", "dimension"), [("max", 8, 8), ("stella", 5, 5), ("max", 999, 32)]
)
def test_a_model_keeps_as_many_numbers_as_its_authors_do(tmp_path, name, kept, dimension):
    layout = LAYOUTS[name]
    library = {**layout.get("library", {}), "truncate_dim": kept}
    folder = write_layout(tmp_path / "model", **{**layout, "library": library})
    embedder = Embedder.load(str(folder), device="cpu")
    assert embedder.dimension == dimension
    expected = reference(folder, "document", TEXTS[3:])
    assert np.abs(embedder.encode_documents(TEXTS[3:]) - expected).max() < 1e-5
    assert Embedder.load(f"{folder},dimension=7", device="cpu").dimension == 7


ODD = {
    "a number of kept dimensions that is a text": (
        "config_sentence_transformers.json",
        {"truncate_dim": "8"},
        "says truncate_dim '8'",
    ),
    "no kept dimensions": (
        "config_sentence_transformers.json",
        {"truncate_dim": 0},
        "says truncate_dim 0",
    ),
    "a pooling mode that is a number": ("1_Pooling/config.json", {"pooling_mode": 3}, "pooling 3"),
    "a pooling mode of lists": (
        "1_Pooling/config.json",
        {"pooling_mode": [["mean"]]},
        "asks for the pooling",
    ),
    "a default prompt that is a list": (
        "config_sentence_transformers.json",
        {"default_prompt_name": ["query"]},
        "names the default prompt",
    ),
    "prompts that are a list": (
        "config_sentence_transformers.json",
        {"prompts": ["query"]},
        "are no texts",
    ),
    "a longest input that is a text": (
        "sentence_bert_config.json",
        {"max_seq_length": "32"},
        "says max_seq_length '32'",
    ),
    "a longest input of the tokenizer that is a text": (
        "tokenizer_config.json",
        {"model_max_length": "long"},
        "cannot be loaded|of another type",
    ),
    "a longest input below any": ("sentence_bert_config.json", {"max_seq_length": -1}, "is -1"),
    "a hidden size that is a text": ("config.json", {"hidden_size": "wide"}, "cannot be loaded: "),
}


@pytest.mark.parametrize("case", ODD)
def test_a_value_of_an_odd_type_is_one_clear_line(tmp_path, case):
    file, change, message = ODD[case]
    layout = LAYOUTS["max"] | ({"max_seq_length": None} if file[:3] == "tok" else {})
    folder = write_layout(tmp_path / "model", **layout)
    _change(folder / file, **change)
    with pytest.raises(MillpondError, match=message) as found:
        Embedder.load(str(folder), device="cpu")
    assert "\n" not in str(found.value)


POSITIONS = {
    "n_positions": (
        "GPT2Config",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    ),
    "max_position_embeddings": (
        "OPTConfig",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 32,
            "word_embed_proj_dim": 32,
            "max_position_embeddings": 64,
        },
    ),
    "max_seq_len": ("MptConfig", {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}),
    "n_positions of rotary tables": (
        "GPTJConfig",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 8},
    ),
}


@pytest.mark.parametrize("case", POSITIONS)
def test_a_base_is_never_read_beyond_the_positions_it_has(tmp_path, case):
    import transformers

    name, sizes = POSITIONS[case]
    config = getattr(transformers, name)(vocab_size=len(decoders.TOKENS), **sizes)
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
    decoders.make_tokenizer(single="$A", eos="</s>").save_pretrained(tmp_path)
    lines = []
    embedder = Embedder.load(f"{tmp_path}:mean+causal", device="cpu", notify=lines.append)
    assert embedder.spec.max_tokens == embedder.fingerprint.settings["max_tokens"] == 64
    assert any("has 64 positions, so texts are cut at 64 tokens, not at 512" in li for li in lines)
    assert np.isfinite(embedder.encode_documents(["the corn " * 300])).all()
    short = Embedder.load(f"{tmp_path}:mean+causal,max_tokens=32", device="cpu")
    assert short.spec.max_tokens == 32


ROPES = {
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "longrope": {
        "rope_type": "longrope",
        "short_factor": [1.0] * 4,
        "long_factor": [2.0] * 4,
        "original_max_position_embeddings": 24,
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 24,
    },
}


@pytest.mark.parametrize(("kind", "cut"), [("dynamic", 32), ("longrope", 24), ("llama3", None)])
@pytest.mark.parametrize("packs", [True, False])
def test_positions_never_follow_the_longest_text_of_a_batch(tmp_path, kind, cut, packs):
    from transformers import AutoModel, LlamaConfig

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = LlamaConfig(
        **sizes,
        vocab_size=len(decoders.TOKENS),
        num_attention_heads=4,
        max_position_embeddings=32,
        initializer_range=0.2,
        rope_parameters={"rope_theta": 10000.0, **ROPES[kind]},
    )
    AutoModel.from_config(config).save_pretrained(tmp_path)
    decoders.make_tokenizer(single="$A", eos="</s>").save_pretrained(tmp_path)
    lines = []
    embedder = Embedder.load(f"{tmp_path}:mean+causal", device="cpu", notify=lines.append)
    embedder.packs = packs
    alone = embedder.encode_documents(["who grinds corn"])
    together = embedder.encode_documents(["who grinds corn", "the corn " * 50])
    np.testing.assert_allclose(together[:1], alone, atol=1e-5)
    np.testing.assert_allclose(embedder.encode_documents(["who grinds corn"]), alone, atol=1e-5)
    assert embedder.spec.max_tokens == (cut or 512)
    assert any("in other batches, so texts are cut at" in line for line in lines) == bool(cut)


def test_a_rotary_base_that_names_no_positions_is_read_at_any_length(tmp_path):
    from transformers import AutoModel, RecurrentGemmaConfig

    config = RecurrentGemmaConfig(
        vocab_size=len(decoders.TOKENS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
    )
    AutoModel.from_config(config).save_pretrained(tmp_path)
    decoders.make_tokenizer(single="$A", eos="</s>").save_pretrained(tmp_path)
    assert Embedder.load(f"{tmp_path}:mean+causal", device="cpu").spec.max_tokens == 512


def test_an_architecture_that_computes_nothing_without_a_causal_mask_is_refused(tmp_path):
    from transformers import AutoModel, MptConfig

    config = MptConfig(vocab_size=len(decoders.TOKENS), d_model=32, n_layers=2, n_heads=4)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    decoders.make_tokenizer(single="$A", eos="</s>").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="cannot compute with bidirectional attention"):
        Embedder.load(f"{tmp_path}:mean+bidirectional", device="cpu")


@pytest.mark.parametrize("kind", ["canine", "dpr", "splinter", "lilt", "bros", "bert", "xlm"])
def test_encoders_are_known_by_the_lists_of_transformers(kind):
    assert name_encoder(kind) == f"it is an encoder ({kind})"


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2_vl_text", "mpt", "gemma3_text", "own"])
def test_decoders_are_not_taken_for_encoders(kind):
    assert name_encoder(kind) == ""
