"""The table of published layouts: equal vectors are said to be equal, and others are not."""

import pytest

from benchmarks.lab import published
from benchmarks.lab.layouts import adapters, decoders, encoders


@pytest.mark.parametrize(
    ("write", "engine"),
    [
        (lambda root: decoders.write_layout(root / "m", **decoders.LAYOUTS["gritlm"]), "ours"),
        (lambda root: encoders.write_layout("bge-m3", root / "m"), "sentence-transformers"),
    ],
)
def test_a_layout_gives_the_vectors_of_sentence_transformers(tmp_path, write, engine):
    row = published.compare_layout("one", write(tmp_path))
    assert row.engine == engine
    assert max(row.difference) < 1e-5
    assert min(row.cosine) == pytest.approx(1, abs=1e-6)
    assert str(row).startswith(f"| one | {engine} | sentence-transformers | 1.000000 | ")


def test_what_sentence_transformers_lacks_gives_its_authors_vectors(tmp_path):
    rows = [published.compare_layout(*layout) for layout in adapters.list_adapters(tmp_path)]
    assert {row.layout: row.reference for row in rows} == {
        "peft folder": "peft",
        "repllama": "peft",
        "LLM2Vec": "peft",
        "NV-Embed": "its code, restated",
        "our own adapter MODEL_DIR": "sentence-transformers",
    }
    assert max(number for row in rows for number in row.difference) < 1e-5


def test_other_vectors_are_seen_on_their_side(tmp_path, monkeypatch):
    folder = decoders.write_layout(tmp_path / "m", **decoders.LAYOUTS["gte-qwen2"])
    real = published.load_encoder
    monkeypatch.setattr(
        published, "load_encoder", lambda name, **more: real(f"{name},query_prompt=", **more)
    )
    row = published.compare_layout("one", folder)
    assert row.difference[0] > 0.01 and row.cosine[0] < 0.999
    assert row.difference[1] < 1e-5


def test_texts_are_short_and_longer_than_a_model_reads():
    lengths = [len(text.split()) for text in published.make_texts(0)]
    assert (len(lengths), min(lengths), max(lengths)) == (20, 1, 200)
    assert published.make_texts(0) != published.make_texts(1)
