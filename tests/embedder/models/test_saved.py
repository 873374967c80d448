"""MODEL_DIR: what is written is what is read, or one clear line says why not."""

import json
import resource
import shutil

import numpy as np
import pytest
import safetensors.torch
import torch

from embedder import Embedder
from embedder.models.bases import file_sha256
from embedder.models.lora import LoraOptions, adapter_tensors, has_adapter
from embedder.models.manifest import read_manifest
from embedder.models.merge import merge_model, soup_models
from embedder.models.saving import save_model
from embedder.pooling import PoolingOptions
from retrieval.errors import ModelError, SourceNotFoundError, StorageError, UsageError
from tests.embedder.conftest import every_variant

TEXTS = ["a", "the quick brown fox", "", "mills grind slowly, ponds fill slower"]
VARIANTS = every_variant()
RECORD = {"seed": 3, "steps": 7, "data": [{"path": "pairs.jsonl", "sha256": {"pairs.jsonl": "ab"}}]}


@pytest.fixture
def llama(base_folder):
    return base_folder["llama"]


@pytest.fixture
def saved(trained, tmp_path):
    """Save a trained model; return its folder."""

    def save(name="model", *args, weights_dtype="float32", **settings):
        embedder = trained(*args, **settings)
        save_model(embedder, tmp_path / name, record=RECORD, weights_dtype=weights_dtype)
        return tmp_path / name

    return save


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def edit(path, **changes):
    """Change a JSON file's keys; None removes one."""
    data = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))


def replace_tensors(folder, name, tensors):
    """Write other tensors, and list them in millpond.json as if they belonged."""
    safetensors.torch.save_file(tensors, folder / name)
    files = json.loads((folder / "millpond.json").read_text())["files"]
    edit(folder / "millpond.json", files={**files, name: file_sha256(folder / name)})


@pytest.mark.parametrize(("pooling", "attention"), VARIANTS)
def test_a_model_gives_the_same_vectors_saved_loaded_and_folded_in(
    trained, tmp_path, pooling, attention
):
    embedder = trained(pooling, attention, query_prompt="query: ", dimension=24)
    expected = embedder.encode_queries(TEXTS), embedder.encode_documents(TEXTS)
    save_model(embedder, tmp_path / "model", record=RECORD)
    for merge, tolerance in ((False, 1e-6), (True, 1e-5)):
        loaded = Embedder.load_folder(tmp_path / "model", device="cpu", merge=merge)
        assert has_adapter(loaded.backbone) is not merge
        assert loaded.spec == embedder.spec
        found = loaded.encode_queries(TEXTS), loaded.encode_documents(TEXTS)
        np.testing.assert_allclose(found, expected, atol=tolerance)


def test_a_folder_holds_what_the_layout_says_and_no_pickle(saved):
    ours = {
        "README.md",
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "config_sentence_transformers.json",
        "millpond.json",
        "modules.json",
    }
    theirs = {
        "1_Pooling/config.json",
        "2_Normalize/config.json",
        "adapter/decoder_config.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert names(saved("plain")) == ours | theirs
    assert names(saved("pooled", "multi_layer")) == ours | {"pooling.safetensors"}


def test_the_manifest_holds_spec_base_record_and_hashes(saved, llama):
    folder = saved(pooling="multi_layer")
    manifest = read_manifest(folder)
    assert manifest.record == RECORD
    assert manifest.base.name == str(llama)
    assert manifest.base.width == 32
    assert manifest.base.identity == Embedder.load_folder(folder).backbone.identity
    for name, sha256 in manifest.files.items():
        assert file_sha256(folder / name) == sha256


def test_a_loaded_model_is_trained_and_named_by_its_folder(saved):
    folder = saved()
    embedder = Embedder.load(folder, device="cpu")
    assert embedder.trained
    assert embedder.name == str(folder.resolve())


def test_the_fingerprint_follows_the_weights_and_not_the_folder(saved, trained, tmp_path):
    folder = saved()
    copy = shutil.copytree(folder, tmp_path / "copy")
    one, same, other = (
        Embedder.load(str(f), device="cpu").fingerprint for f in (folder, copy, saved("b", seed=1))
    )
    assert one.digest == same.digest
    assert [line.split()[0] for line in one.differences(other)] == ["trained_weights"]
    untrained = trained(lora=None).fingerprint
    assert [line.split()[0] for line in one.differences(untrained)] == ["trained_weights"]


def test_bfloat16_halves_the_weights_and_rounds_the_vectors(saved):
    whole, half = saved("whole"), saved("half", weights_dtype="bfloat16")
    weights = "adapter/adapter_model.safetensors"
    tensors = safetensors.torch.load_file(half / weights)
    assert {t.dtype for t in tensors.values()} == {torch.bfloat16}
    full = safetensors.torch.load_file(whole / weights)
    assert all(torch.equal(full[name].bfloat16(), tensors[name]) for name in full)
    found, expected = (
        Embedder.load_folder(f, device="cpu").encode_documents(TEXTS) for f in (half, whole)
    )
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_a_pooling_trained_on_a_frozen_base_is_saved_alone(saved):
    folder = saved(pooling="last_layer", lora=None)
    assert set(read_manifest(folder).files) == {"pooling.safetensors"}
    assert not any(p.requires_grad for p in Embedder.load_folder(folder).backbone.parameters())


def test_a_full_fine_tune_is_saved_whole(trained, tmp_path):
    embedder = trained(pooling="last_layer", lora=None)
    embedder.backbone.requires_grad_(True)
    with torch.no_grad():
        for parameter in embedder.backbone.parameters():
            parameter.mul_(1.01)
    expected = embedder.encode_documents(TEXTS)
    save_model(embedder, tmp_path / "model", record=RECORD)
    assert read_manifest(tmp_path / "model").spec.base == "."
    found = Embedder.load_folder(tmp_path / "model", device="cpu").encode_documents(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_model_card_says_what_it_is_and_how_to_load_it(saved):
    card = (saved(pooling="multi_layer", query_prompt="a | b") / "README.md").read_text()
    assert "multi_layer+causal (model3 of arXiv 2409.02727)" in card
    assert "| query prompt | 'a \\| b' |" in card
    assert 'Embedder.load("MODEL_DIR")' in card
    assert 'SentenceTransformer("MODEL_DIR", trust_remote_code=True)' in card
    assert "| pairs.jsonl |  |  |  | ab |" in card
    assert "| steps | 7 |" in card


def card_metadata(folder):
    from huggingface_hub import ModelCard

    return ModelCard((folder / "README.md").read_text(encoding="utf-8")).data


def test_the_card_holds_scores_on_held_out_data_as_mteb_does(trained, tmp_path):
    """Spearman .8125 of one file and nDCG@10 .5 of another, in hundredths."""
    evaluate = {"sts": "my: dev.jsonl", "beir": "scifact"}
    record = {"scores": {"sts": 0.8125, "ndcg": 0.5}, "config": {"evaluate": evaluate}}
    save_model(trained(), tmp_path / "model", record=record)
    found = card_metadata(tmp_path / "model").eval_results
    assert [(r.task_type, r.dataset_name, r.metric_type, r.metric_value) for r in found] == [
        ("STS", "my: dev.jsonl", "cosine_spearman", 81.25),
        ("Retrieval", "scifact", "ndcg_at_10", 50.0),
    ]
    white = {**record, "whitening": {"from": "model", "power": 0.1}}
    save_model(trained(), tmp_path / "white", record=white)  # measured before it was whitened
    save_model(trained(), tmp_path / "plain", record={"steps": 3})
    for name in ("white", "plain"):
        assert card_metadata(tmp_path / name).eval_results is None


@pytest.mark.parametrize(("pooling", "attention"), VARIANTS)
def test_a_merged_model_needs_no_base_and_gives_the_same_vectors(
    trained, tmp_path, llama, pooling, attention
):
    base = shutil.copytree(llama, tmp_path / "base")
    embedder = trained(pooling, attention, base=base, base_layers=3)
    expected = embedder.encode_documents(TEXTS)
    save_model(embedder, tmp_path / "model", record=RECORD)
    merge_model(tmp_path / "model", tmp_path / "merged")
    shutil.rmtree(base)
    (tmp_path / "merged").rename(tmp_path / "moved")
    merged = Embedder.load(str(tmp_path / "moved"), device="cpu")
    np.testing.assert_allclose(merged.encode_documents(TEXTS), expected, atol=1e-5)
    assert merged.trained
    assert read_manifest(tmp_path / "moved").record == RECORD


def test_every_file_can_be_read_by_whom_the_umask_lets(saved, tmp_path):
    merge_model(saved(), tmp_path / "merged")
    found = [path for path in (tmp_path / "merged").rglob("*") if path.is_file()]
    assert len({path.stat().st_mode for path in found}) == 1


def test_what_is_merged_already_is_not_merged_again(saved, tmp_path):
    merge_model(saved(), tmp_path / "merged")
    with pytest.raises(UsageError, match="holds its whole base already"):
        merge_model(tmp_path / "merged", tmp_path / "again")


def test_a_soup_averages_adapters_and_poolings(saved, tmp_path):
    """Weights 3 and 1 are shares 0.75 and 0.25."""
    one, two = saved("one", "last_layer"), saved("two", "last_layer", seed=1)
    soup_models([one, two], tmp_path / "soup", [3, 1])
    for name in ("adapter/adapter_model.safetensors", "pooling.safetensors"):
        a, b, mixed = (safetensors.torch.load_file(f / name) for f in (one, two, tmp_path / "soup"))
        for key in mixed:
            torch.testing.assert_close(mixed[key], 0.75 * a[key] + 0.25 * b[key])
    assert Embedder.load_folder(tmp_path / "soup", device="cpu").encode_documents(TEXTS).shape == (
        4,
        32,
    )


def test_a_model_mixed_with_itself_is_itself(saved, tmp_path):
    folder = saved(pooling="last_layer")
    soup_models([folder, folder], tmp_path / "soup")
    soup_models([folder, folder], tmp_path / "exact", exact=True)
    expected = Embedder.load_folder(folder, device="cpu").encode_documents(TEXTS)
    for name in ("soup", "exact"):
        found = Embedder.load_folder(tmp_path / name, device="cpu").encode_documents(TEXTS)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_exact_soup_is_the_average_of_the_merged_weights(saved, tmp_path):
    one, two = saved("one"), saved("two", seed=1)
    soup_models([one, two], tmp_path / "soup", [3, 1], exact=True)
    weights = [
        Embedder.load_folder(f, device="cpu").backbone.blocks()[1].mlp.up_proj.weight
        for f in (one, two, tmp_path / "soup")
    ]
    torch.testing.assert_close(weights[2], 0.75 * weights[0] + 0.25 * weights[1])


@pytest.mark.parametrize(
    ("other", "field"),
    [
        ({"pooling": "max"}, "pooling is 'mean' in .* but 'max' in"),
        ({"max_tokens": 64}, "max_tokens is 96"),
        ({"lora": LoraOptions(rank=3, alpha=4)}, "LoRA.r is 2"),
        ({"lora": LoraOptions(rank=2, alpha=5)}, "LoRA.lora_alpha is 4"),
        ({"base_layers": 2}, "base_layers is None"),
    ],
)
def test_a_soup_of_different_specs_names_the_field(saved, tmp_path, other, field):
    with pytest.raises(UsageError, match=field):
        soup_models([saved("one"), saved("two", **other)], tmp_path / "soup")
    assert not (tmp_path / "soup").exists()


def test_a_soup_of_different_pooling_options_or_bases_names_the_field(saved, tmp_path, base_folder):
    one = saved("one", "last_layer", lora=None)
    seeded = saved("two", "last_layer", lora=None, pooling_options=PoolingOptions(seed=1))
    with pytest.raises(UsageError, match=r"pooling_options\.seed is None in .* but 1 in"):
        soup_models([one, seeded], tmp_path / "soup")
    mistral = saved("three", "last_layer", lora=None, base=base_folder["mistral"])
    with pytest.raises(UsageError, match="base is '"):
        soup_models([one, mistral], tmp_path / "soup")


@pytest.mark.parametrize(
    ("count", "weights", "message"),
    [
        (1, None, "needs two models or more"),
        (2, [1.0], "1 weight for 2 models"),
        (2, [1.0, 0.0], "numbers above 0"),
        (2, [1.0, float("nan")], "numbers above 0"),
    ],
)
def test_a_soup_of_wrong_weights_is_refused(saved, tmp_path, count, weights, message):
    with pytest.raises(UsageError, match=message):
        soup_models([saved()] * count, tmp_path / "soup", weights)


def test_another_base_under_the_same_name_is_named(saved, tmp_path, llama, base_folder):
    base = shutil.copytree(llama, tmp_path / "base")
    folder = saved(base=base)
    identity = read_manifest(folder).base.identity
    shutil.rmtree(base)
    shutil.copytree(base_folder["qwen3"], base)
    with pytest.raises(ModelError, match=f"identity {identity}, but what has this name here is"):
        Embedder.load_folder(folder)
    shutil.rmtree(base)
    with pytest.raises(ModelError, match="its base .* is not here any more"):
        Embedder.load_folder(folder)


@pytest.mark.parametrize("name", ["adapter/adapter_model.safetensors", "pooling.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "garbage"])
def test_missing_and_damaged_weights_are_named(saved, name, damage):
    folder = saved(pooling="last_layer")
    path = folder / name
    data = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[-1] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(b"garbage")
        files = read_manifest(folder).files
        edit(folder / "millpond.json", files={**files, name: file_sha256(path)})
    with pytest.raises(ModelError, match=rf"{name}: ") as caught:
        Embedder.load_folder(folder)
    assert "\n" not in str(caught.value)


def test_a_pickled_adapter_is_not_read(saved):
    folder = saved()
    (folder / "adapter/adapter_model.safetensors").rename(folder / "adapter/adapter_model.bin")
    with pytest.raises(ModelError, match=r"adapter_model.bin is not read, since pickle"):
        Embedder.load_folder(folder)


def test_damage_to_a_merged_model_is_noticed(saved, tmp_path):
    merge_model(saved(), tmp_path / "merged")
    weights = tmp_path / "merged" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="merged: the weights are not those"):
        Embedder.load_folder(tmp_path / "merged")


def test_weights_for_another_size_are_refused(saved):
    folder = saved(pooling="last_layer")
    tensors = safetensors.torch.load_file(folder / "pooling.safetensors")
    wider = {**tensors, "latents": torch.zeros(64, 48)}
    replace_tensors(folder, "pooling.safetensors", wider)
    with pytest.raises(ModelError, match=r"'latents' has shape \(64, 48\), but \(64, 32\)"):
        Embedder.load_folder(folder)


def test_an_adapter_of_another_shape_is_refused(saved, trained):
    folder = saved()
    weights = "adapter/adapter_model.safetensors"
    tensors = adapter_tensors(trained(lora=LoraOptions(rank=3)).backbone)
    replace_tensors(folder, weights, tensors)
    with pytest.raises(ModelError, match=r"has shape \(3, 48\), but \(2, 48\) is needed here"):
        Embedder.load_folder(folder)
    tensors = safetensors.torch.load_file(saved("other") / weights)
    replace_tensors(folder, weights, dict(list(tensors.items())[1:]))
    with pytest.raises(ModelError, match=r"it lacks 'base_model\.model\.layers\.0"):
        Embedder.load_folder(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": 2}, "a newer millpond wrote this .format 2; 1 is read"),
        ({"format_version": None}, "no format_version"),
        ({"sped": 1}, "Unknown key 'sped'. Did you mean 'spec'"),
        ({"record": None}, "It has no record, which must be a table"),
        ({"files": []}, "files is a list; expected a table"),
        ({"base": "llama"}, "base is a string .'llama'.; expected a table"),
        ({"base": {"name": "x", "revision": None, "identity": "y"}}, "It has no base.width"),
        ({"spec": {"base": "x"}}, "no spec.pooling"),
        ({"spec": {"base": "x", "pooling": "men", "attention": "causal"}}, "Did you mean 'mean'"),
    ],
)
def test_a_malformed_manifest_is_one_clear_line(saved, changes, message):
    folder = saved()
    edit(folder / "millpond.json", **changes)
    with pytest.raises(ModelError, match=rf"millpond.json: .*{message}") as caught:
        Embedder.load_folder(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_a_manifest_that_is_no_json_object_is_refused(saved, text):
    folder = saved()
    (folder / "millpond.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ModelError, match=r"millpond\.json: "):
        Embedder.load(str(folder))


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(SourceNotFoundError, match=r"there is no millpond\.json"):
        Embedder.load_folder(tmp_path)


def test_a_folder_that_holds_something_is_left_alone(trained, saved, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    folder = saved()
    for target, message in (("own", "thesis.txt"), ("file", "is a file"), ("model", "not empty")):
        with pytest.raises(UsageError, match=message):
            save_model(trained(), tmp_path / target, record={})
        with pytest.raises(UsageError, match=message):
            merge_model(folder, tmp_path / target)
    assert (tmp_path / "own" / "thesis.txt").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    save_model(trained(), tmp_path / "empty", record={})


@pytest.mark.parametrize("limit", [3_000, 40_000])
def test_a_disk_that_takes_no_more_leaves_nothing(trained, tmp_path, limit):
    """A file-size limit makes the kernel refuse a write: the adapter's, or the whole base's."""
    embedder = trained()
    if limit > 20_000:
        embedder = trained(lora=None)
        embedder.backbone.requires_grad_(True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(StorageError, match=r"model: the model cannot be written"):
            save_model(embedder, tmp_path / "model", record=RECORD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [p.name for p in tmp_path.iterdir() if p.name != "cache"] == []


def test_other_weight_dtypes_are_refused(trained, tmp_path):
    with pytest.raises(UsageError, match="'float16'; expected float32 or bfloat16"):
        save_model(trained(), tmp_path / "model", record={}, weights_dtype="float16")
