"""A whitening evens out the directions that texts took, and is saved with any model."""

import json

import numpy as np
import pytest
import torch

from embedder import Embedder
from embedder.models.manifest import read_manifest
from embedder.models.merge import merge_model
from embedder.models.saving import save_model
from embedder.models.whiten import fit_whitening, whiten_model
from embedder.pooling import PoolingOptions
from embedder.pooling.registry import Whitened
from retrieval.errors import UsageError
from tests.embedder.conftest import every_variant

WORDS = ("mill", "pond", "wheel", "stone", "river", "grain", "flour", "weir", "reed", "otter")
TEXTS = [f"{a} {b} {number}" for number, a in enumerate(WORDS) for b in WORDS]
VARIANTS = every_variant()


@pytest.fixture
def saved(trained, tmp_path):
    def save(name="model", *args, weights_dtype="float32", **settings):
        save_model(
            trained(*args, **settings),
            tmp_path / name,
            record={"steps": 7},
            weights_dtype=weights_dtype,
        )
        return tmp_path / name

    return save


def covariance(vectors):
    centred = vectors - vectors.mean(0)
    return centred.T @ centred / len(vectors)


def sample(rows=4000, width=8):
    """Vectors in a narrow cone: a common direction, and variances a thousandfold apart."""
    generator = torch.Generator().manual_seed(1)
    scale = torch.logspace(0, -1.5, width)
    return 3 + scale * torch.randn(rows, width, generator=generator)


def whiten_sample(power):
    vectors = torch.nn.functional.normalize(sample(), dim=1)
    mean, matrix = fit_whitening(vectors, power)
    return vectors.double(), ((vectors - mean) @ matrix).double()


def test_a_whole_whitening_makes_all_variances_equal_and_all_covariances_zero():
    before, after = whiten_sample(0.5)
    assert np.linalg.cond(covariance(before.numpy())) > 100
    np.testing.assert_allclose(covariance(after.numpy()), np.eye(8) / 8, atol=1e-5)
    np.testing.assert_allclose(after.mean(0), 0, atol=1e-5)


@pytest.mark.parametrize("power", [0.0, 0.1, 0.25])
def test_a_partial_whitening_takes_each_variance_to_the_power_that_is_left(power):
    before, after = whiten_sample(power)
    variances = np.linalg.eigvalsh(covariance(before.numpy()))
    expected = variances ** (1 - 2 * power)
    found = np.linalg.eigvalsh(covariance(after.numpy()))
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-3)
    np.testing.assert_allclose((after**2).sum(1).mean(), 1, rtol=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_share_of_the_mean_stays_and_whitened_vectors_have_length_1(share):
    units = torch.nn.functional.normalize(sample(), dim=1)
    whole, _ = fit_whitening(units, 0.1)
    mean, matrix = fit_whitening(units, 0.1, share)
    np.testing.assert_allclose(mean, share * whole, atol=1e-6)
    after = (units - mean) @ matrix
    np.testing.assert_allclose(after.square().sum(1).mean(), 1, rtol=1e-5)
    left = torch.linalg.vector_norm(after.mean(0))
    assert (left < 1e-3) == (share == 1)


def test_a_direction_without_variance_is_not_blown_up():
    vectors = sample()
    vectors[:, 3] = 0
    _, matrix = fit_whitening(vectors, 0.5)
    assert torch.isfinite(matrix).all()
    assert float(torch.linalg.cond(matrix)) < 1e3


@pytest.mark.parametrize(("pooling", "attention"), VARIANTS)
def test_before_it_is_fitted_it_changes_nothing(trained, pooling, attention):
    plain, whitened = (
        trained(pooling, attention, pooling_options=PoolingOptions(whiten=whiten))
        for whiten in (False, True)
    )
    whitened.pooling = Whitened(plain.pooling, plain.backbone.width)
    whitened.backbone = plain.backbone
    found, expected = (model.encode_documents(TEXTS[:20]) for model in (whitened, plain))
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("pooling", "attention"), VARIANTS)
def test_it_is_fitted_on_queries_and_documents_and_saved(saved, tmp_path, pooling, attention):
    folder = saved("model", pooling, attention, query_prompt="query: ")
    own = Embedder.load(str(folder), device="cpu")
    vectors = np.concatenate([own.encode_queries(TEXTS[:60]), own.encode_documents(TEXTS)])
    mean, matrix = fit_whitening(torch.from_numpy(vectors), 0.5)
    expected = ((torch.from_numpy(vectors) - mean) @ matrix).numpy()
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)

    whiten_model(str(folder), TEXTS[:60], TEXTS, tmp_path / "out", power=0.5, device="cpu")
    white = Embedder.load(str(tmp_path / "out"), device="cpu")
    assert white.spec.pooling_options.whiten
    assert white.fingerprint != own.fingerprint
    found = np.concatenate([white.encode_queries(TEXTS[:60]), white.encode_documents(TEXTS)])
    np.testing.assert_allclose(found, expected, atol=2e-4)
    spread = np.abs(np.corrcoef(white.encode_documents(TEXTS).T) - np.eye(32)).mean()
    assert spread < np.abs(np.corrcoef(own.encode_documents(TEXTS).T) - np.eye(32)).mean()


def test_an_untrained_model_can_be_whitened(base_folder, tmp_path):
    name = f"{base_folder['qwen3']}:mean+causal,max_tokens=32"
    whiten_model(name, [], TEXTS, tmp_path / "out", device="cpu")
    vectors = Embedder.load(str(tmp_path / "out"), device="cpu").encode_documents(TEXTS)
    plain = Embedder.load(name, device="cpu").encode_documents(TEXTS)
    assert np.linalg.norm(vectors.mean(0)) < 0.2 < np.linalg.norm(plain.mean(0))
    files = {path.name for path in (tmp_path / "out").rglob("*.safetensors")}
    assert files == {"pooling.safetensors"}


def test_the_record_says_how_and_keeps_what_was_known(saved, tmp_path):
    folder = saved()
    whiten_model(
        str(folder), TEXTS, TEXTS, tmp_path / "out", record={"sources": ["a"]}, device="cpu"
    )
    record = read_manifest(tmp_path / "out").record
    assert record["steps"] == 7
    assert record["whitening"] == {
        "from": str(folder),
        "power": 0.25,
        "mean_share": 1.0,
        "texts": 2 * len(TEXTS),
        "sources": ["a"],
    }
    assert "0.25" in (tmp_path / "out" / "README.md").read_text()


def test_fitting_again_starts_from_the_model_without_it(saved, tmp_path):
    folder = saved()
    whiten_model(str(folder), [], TEXTS, tmp_path / "once", device="cpu", power=0.5)
    whiten_model(str(tmp_path / "once"), [], TEXTS, tmp_path / "twice", device="cpu", power=0.5)
    once, twice = (
        Embedder.load(str(tmp_path / name), device="cpu").encode_documents(TEXTS)
        for name in ("once", "twice")
    )
    np.testing.assert_allclose(once, twice, atol=1e-5)


def test_shorter_vectors_are_cut_after_whitening(saved, tmp_path):
    folder = saved(dimension=8)
    whiten_model(str(folder), [], TEXTS, tmp_path / "out", device="cpu")
    whole = Embedder.load(f"{tmp_path / 'out'},dimension=32", device="cpu").encode_documents(TEXTS)
    short = Embedder.load(str(tmp_path / "out"), device="cpu").encode_documents(TEXTS)
    cut = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=1, keepdims=True)
    np.testing.assert_allclose(short, cut, atol=1e-5)


def test_weights_keep_the_dtype_they_were_saved_in(saved, tmp_path):
    folder = saved("half", weights_dtype="bfloat16")
    whiten_model(str(folder), [], TEXTS, tmp_path / "out", device="cpu")
    assert adapter_bytes(tmp_path / "out") == adapter_bytes(folder)


def adapter_bytes(folder):
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def test_a_whitened_model_folds_into_its_base(saved, tmp_path):
    whiten_model(str(saved()), [], TEXTS, tmp_path / "out", device="cpu")
    merge_model(tmp_path / "out", tmp_path / "merged")
    whole = Embedder.load_folder(tmp_path / "merged", device="cpu")
    parts = Embedder.load_folder(tmp_path / "out", device="cpu")
    np.testing.assert_allclose(
        whole.encode_documents(TEXTS), parts.encode_documents(TEXTS), atol=1e-5
    )
    whiten_model(str(tmp_path / "merged"), [], TEXTS, tmp_path / "again", device="cpu")
    again = Embedder.load_folder(tmp_path / "again", device="cpu")
    np.testing.assert_allclose(
        again.encode_documents(TEXTS), parts.encode_documents(TEXTS), atol=1e-4
    )


def test_its_weights_are_trained_with_the_pooling(trained):
    model = trained(pooling_options=PoolingOptions(whiten=True))
    assert isinstance(model.pooling, Whitened)
    ids = torch.tensor([[5, 6, 7, 2], [9, 8, 7, 2]])
    model(ids, torch.ones_like(ids))[0, 0].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.pooling.parameters())


@pytest.mark.parametrize(
    ("name", "beyond", "expected"),
    [
        ("power", 0.51, r"to 0.5 \(whole\)"),
        ("mean_share", 1.1, r"expected 0 \(none of the mean\) to 1"),
    ],
)
def test_a_number_out_of_range_is_refused_before_a_model_loads(tmp_path, name, beyond, expected):
    for number in (-0.1, beyond, float("nan")):
        with pytest.raises(UsageError, match=expected):
            whiten_model("no-such-model", [], TEXTS, tmp_path / "out", **{name: number})


def test_too_few_texts_are_refused_and_repeats_do_not_count(saved, tmp_path):
    folder = saved()
    with pytest.raises(UsageError, match="31 distinct texts; 32 or more are needed"):
        whiten_model(str(folder), [], TEXTS[:31] * 2, tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_and_a_wrong_dtype_are_refused_first(saved, tmp_path):
    folder = saved()
    with pytest.raises(UsageError, match="is not empty"):
        whiten_model("no-such-model", [], TEXTS, folder)
    with pytest.raises(UsageError, match="weights_dtype is 'int8'"):
        whiten_model("no-such-model", [], TEXTS, tmp_path / "out", weights_dtype="int8")


def test_a_model_name_cannot_ask_for_it(base_folder):
    with pytest.raises(UsageError, match="millpond whiten .* --corpus CORPUS --out DIR"):
        Embedder.load(f"{base_folder['llama']}:mean+causal,whiten=true")


def test_training_can_start_from_a_whitened_model(saved, tmp_path, base_folder):
    from embedder.training import load_config, train

    whiten_model(str(saved()), [], TEXTS, tmp_path / "white", device="cpu")
    pairs = [{"query": text, "positive": text[::-1]} for text in TEXTS[:40]]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    (tmp_path / "train.toml").write_text(
        f"""
batch_pairs = 8
steps = 2
[model]
base = "{base_folder["llama"]}"
pooling = "mean"
attention = "causal"
max_tokens = 96
[model.pooling_options]
whiten = true
[adapter]
rank = 2
alpha = 4
start = "./white"
[[data]]
path = "pairs.jsonl"
"""
    )
    train(load_config(tmp_path / "train.toml"), tmp_path / "out")
    before, after = (
        Embedder.load_folder(tmp_path / name, device="cpu").pooling.matrix
        for name in ("white", "out")
    )
    assert not torch.equal(before, after)
    torch.testing.assert_close(before, after, atol=1e-2, rtol=0)
