"""A model as a GGUF file: its weights are read back, and what llama.cpp lacks is refused."""

import numpy as np
import pytest
from gguf import GGUFReader, PoolingType

from embedder import Embedder, VariantSpec
from embedder.export import export_model
from embedder.pooling import PoolingOptions
from retrieval.errors import UsageError
from tests.embedder import stand_ins

TEXTS = ["who grinds the corn?", "A mill grinds grain.", "Un été 水车 <|pad|>", "the " * 30]


@pytest.fixture
def model(tmp_path):
    def load(pooling="mean", attention="causal", **settings):
        base = tmp_path / "base"
        if not base.exists():
            stand_ins.write_model_folder(base)
        settings = {"max_tokens": 64, **settings}
        spec = VariantSpec(base=str(base), pooling=pooling, attention=attention, **settings)
        return Embedder.from_spec(spec, device="cpu")

    return load


def read(folder):
    fields = GGUFReader(folder / "model.gguf").fields
    return {name: field.contents() for name, field in fields.items()}


@pytest.mark.parametrize("pooling", ["mean", "eos"])
def test_the_file_read_as_a_base_gives_the_same_vectors(model, tmp_path, pooling):
    embedder = model(pooling)
    export_model(embedder, "gguf", tmp_path / "out")
    name = f"{tmp_path / 'out' / 'model.gguf'}:{pooling}+causal,max_tokens=64"
    again = Embedder.load(name, device="cpu")
    np.testing.assert_allclose(
        again.encode_documents(TEXTS), embedder.encode_documents(TEXTS), atol=1e-5
    )


@pytest.mark.parametrize(
    ("pooling", "attention", "architecture", "kind"),
    [
        ("mean", "causal", "llama", PoolingType.MEAN),
        ("eos", "bidirectional", "llama-embed", PoolingType.LAST),
        ("cls", "bidirectional", "llama-embed", PoolingType.CLS),
    ],
)
def test_pooling_attention_and_ending_are_in_the_file(
    model, tmp_path, pooling, attention, architecture, kind
):
    export_model(model(pooling, attention), "gguf", tmp_path / "out")
    fields = read(tmp_path / "out")
    assert fields["general.architecture"] == architecture
    assert fields[f"{architecture}.pooling_type"] == kind
    assert fields[f"{architecture}.attention.causal"] == (attention == "causal")
    assert (fields["tokenizer.ggml.add_bos_token"], fields["tokenizer.ggml.add_eos_token"]) == (
        False,
        True,
    )
    assert fields["tokenizer.ggml.eos_token_id"] == 0


def test_prompts_that_llama_cpp_does_not_add_are_said(model, tmp_path):
    said = []
    export_model(model(query_prompt="query: "), "gguf", tmp_path / "out", said.append)
    assert said == [
        "Warning: llama.cpp puts no prompt before a text: clients have to add query_prompt "
        "'query: ' (embedding.json holds it)"
    ]


@pytest.mark.parametrize(
    ("pooling", "settings", "message"),
    [
        ("max", {}, "llama.cpp has no pooling max"),
        ("mean", {"lowercase": True}, "llama.cpp puts no text in lower case"),
        ("mean", {"pooling_options": PoolingOptions(whiten=True)}, "llama.cpp has no whitening"),
        ("mean", {"dimension": 8}, "llama.cpp does not cut vectors"),
        ("mean", {"query_prompt": "{text} of", "document_prompt": "{text} of"}, "than one token"),
    ],
)
def test_what_llama_cpp_lacks_is_refused_by_name(model, tmp_path, pooling, settings, message):
    with pytest.raises(UsageError, match=f"{message}.*Type --format onnx"):
        export_model(model(pooling, **settings), "gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_llama_cpp_itself_gives_the_vectors(model, tmp_path):
    llama_cpp = pytest.importorskip(
        "llama_cpp", reason="llama.cpp's package would have to be compiled"
    )
    embedder = model("eos", "bidirectional")
    export_model(embedder, "gguf", tmp_path / "out")
    path = str(tmp_path / "out" / "model.gguf")
    engine = llama_cpp.Llama(path, embedding=True, n_ctx=64, n_ubatch=64, verbose=False)
    found = np.array([engine.embed(text, normalize=True) for text in TEXTS], dtype=np.float32)
    engine.close()
    np.testing.assert_allclose(found, embedder.encode_documents(TEXTS), atol=1e-4)
