"""A model as an ONNX graph gives its vectors without millpond and torch."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from embedder import Embedder, VariantSpec
from embedder.export import export_model
from embedder.export import onnx as exporting
from embedder.pooling import POOLINGS, PoolingOptions
from retrieval.errors import ModelError, StorageError, UnknownNameError, UsageError

for name in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(name, reason=f"{name} is optional")

PAGE = Path(__file__).resolve().parents[3] / "docs" / "export.md"
CODE = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1]
TEXTS = ["who grinds corn?", "A mill grinds grain."]


@pytest.fixture
def model(base_folder):
    def load(pooling="mean", attention="causal", *, base="llama", **settings):
        settings = {"max_tokens": 48, **settings}
        spec = VariantSpec(
            base=str(base_folder[base]), pooling=pooling, attention=attention, **settings
        )
        return Embedder.from_spec(spec, device="cpu")

    return load


def embed_without_us(folder):
    """Run the page's code where neither millpond nor torch can be imported; return its vectors."""
    hidden = "".join(f"sys.modules[{name!r}] = None\n" for name in ("embedder", "torch"))
    shown = CODE.replace("my-onnx", str(folder)) + "print(vectors.tolist())\n"
    code = f"import sys\n{hidden}{shown}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout), dtype=np.float32)


@pytest.mark.slow
def test_the_code_of_the_page_gives_the_models_vectors(model, tmp_path):
    embedder = model(
        "multi_layer",
        "bidirectional",
        base="gemma3",
        dimension=24,
        pooling_options=PoolingOptions(whiten=True, latents=4),
    )
    with torch.no_grad():
        embedder.pooling.mean += 0.05
    said = []
    export_model(embedder, "onnx", tmp_path / "out", said.append)
    found = embed_without_us(tmp_path / "out")
    np.testing.assert_allclose(found, embedder.encode_documents(TEXTS), atol=1e-5)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "embedding.json",
        "model.onnx",
        "tokenizer.json",
    }
    assert "ONNX Runtime gives its vectors" in said[-1]


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_variant_can_be_exported(model, tmp_path, pooling, attention):
    """The exporter itself compares all kinds of texts, to 1e-4."""
    export_model(model(pooling, attention), "onnx", tmp_path / "out")
    described = json.loads((tmp_path / "out" / "embedding.json").read_text())
    prompt = 'This sentence: "' if pooling == "prompt_eos" else ""
    assert described["query_prompt"] == described["document_prompt"] == prompt
    assert (described["dimension"], described["max_tokens"]) == (32, 48)


@pytest.mark.slow
@pytest.mark.parametrize("base", ["qwen3", "mistral", "gemma3", "gpt2"])
def test_windows_and_positions_of_the_base_are_kept(model, tmp_path, base):
    settings = {"lowercase": True, "query_prompt": "find: {text} !", "document_prompt": "{text} !"}
    export_model(model("weighted_mean", base=base, **settings), "onnx", tmp_path / "out")
    described = json.loads((tmp_path / "out" / "embedding.json").read_text())
    assert (described["query_prompt"], described["document_prompt"]) == ("find: ", "")


@pytest.mark.slow
def test_the_built_in_model_is_exported(tmp_path):
    embedder = Embedder.load("millpond-135m", device="cpu")
    export_model(embedder, "onnx", tmp_path / "out")
    found = embed_without_us(tmp_path / "out")
    np.testing.assert_allclose(found, embedder.encode_documents(TEXTS), atol=1e-4)


def test_other_vectors_are_refused_and_nothing_is_left(model, tmp_path, monkeypatch):
    embedder = model()
    monkeypatch.setattr(
        exporting, "_write_graph", lambda one, path: write_constant(path, one.dimension)
    )
    with pytest.raises(ModelError, match="ONNX Runtime gives vectors that differ from its own by"):
        export_model(embedder, "onnx", tmp_path / "out")
    assert list(tmp_path.glob("*out*")) == []


def write_constant(path, width):
    """Write a graph that gives zeros (B, width), whatever it is asked."""
    from onnx import TensorProto, checker, helper, save

    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"])
        for name in exporting.INPUTS
    ]
    output = helper.make_tensor_value_info(exporting.OUTPUT, TensorProto.FLOAT, ["b", width])
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["numbers", "axis"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["sum", "zeros"], [exporting.OUTPUT]),
    ]
    constants = [
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("zeros", TensorProto.FLOAT, [width], [0.0] * width),
    ]
    graph = helper.make_graph(nodes, "zeros", inputs, [output], constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    checker.check_model(made)
    save(made, path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool_prompt": False, "query_prompt": "q"}, "its pooling leaves the prompt out"),
        ({"prompt_specials": True}, "its prompts hold special tokens"),
        ({"query_prompt": "{text} ?"}, r"its prompts end differently after the text \(' \?', ''\)"),
        ({"lowercase": True, "query_prompt": "Find: "}, "read in lower case and its prompts are"),
    ],
)
def test_what_files_cannot_say_is_refused_by_name(model, tmp_path, settings, message):
    with pytest.raises(UsageError, match=f"cannot be exported so: .*{message}"):
        export_model(model(**settings), "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_format_and_a_full_folder_are_refused(model, tmp_path):
    embedder = model()
    with pytest.raises(UnknownNameError, match="onnx"):
        export_model(embedder, "onyx", tmp_path / "out")
    (tmp_path / "kept").write_text("")
    with pytest.raises(UsageError, match="is not empty"):
        export_model(embedder, "onnx", tmp_path)


def test_a_full_disk_is_no_fault_of_the_model(model, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(StorageError, match="cannot be written .No space left .*Free some space"):
        export_model(model(), "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()
