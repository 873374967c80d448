"""What is told of a model that was loaded."""

from types import SimpleNamespace

import pytest

from cli.models import USUAL_TOKENS, note_untrained
from embedder import Embedder, VariantSpec
from retrieval import Fingerprint
from tests.embedder.tiny_decoders import write_base

NOTE = "It reads 512 tokens of a text, of the 2,048 that its base can; another limit is max_tokens"


def test_the_usual_limit_is_that_of_a_spec():
    assert VariantSpec(base="b", pooling="mean", attention="causal").max_tokens == USUAL_TOKENS


@pytest.mark.parametrize(
    ("max_tokens", "positions", "told"),
    [(512, 2048, True), (512, 512, False), (512, None, False), (1024, 2048, False)],
)
def test_an_untrained_base_says_that_it_reads_less_than_it_could(
    capsys, max_tokens, positions, told
):
    made = Fingerprint("base", {"max_tokens": max_tokens})
    note_untrained(SimpleNamespace(trained=False, fingerprint=made, positions=positions))
    said = " ".join(capsys.readouterr().err.split())
    assert "base is untrained: expect rough results." in said
    assert (NOTE in said) == told


def test_a_trained_model_says_nothing(capsys):
    made = Fingerprint("model", {"max_tokens": 512})
    note_untrained(SimpleNamespace(trained=True, fingerprint=made, positions=2048))
    assert capsys.readouterr().err == ""


def test_an_embedder_knows_what_its_base_names(tmp_path):
    folder = write_base(tmp_path / "base", "llama")
    embedder = Embedder.load(f"{folder}:mean+causal", device="cpu")
    assert embedder.positions == embedder.backbone.model.config.max_position_embeddings
