"""``--engine``: who runs the model, and which options go with it."""

import importlib

import pytest

from indexes import Index


@pytest.fixture
def ray(monkeypatch):
    """Ray's engine replaced by one in this process; the calls that made it."""
    made = []

    def ray_engine(factory, config):
        made.append((factory.args, config.address, config.workers))

        def run(encoder, chunks):
            for chunk in chunks:
                yield chunk, encoder.encode_documents([document.content for document in chunk])

        return run

    monkeypatch.setattr(importlib.import_module("indexes.engines.ray"), "ray_engine", ray_engine)
    return made


def test_ray_gets_the_model_by_name_and_the_index_is_the_same(millpond, corpus, tmp_path, ray):
    args = ("--model", "tiny:mean+causal", "--engine", "ray", "--workers", 2)
    result = millpond("index", corpus, "--out", tmp_path / "ray", *args, "--address", "auto")
    assert result.exit_code == 0, result.stderr
    assert ray == [(("tiny:mean+causal",), "auto", 2)]
    assert millpond("index", corpus, "--out", tmp_path / "here", *args[:2]).exit_code == 0
    first, second = (tmp_path / name / "vectors" / "00000.npy" for name in ("ray", "here"))
    assert first.read_bytes() == second.read_bytes()
    assert len(Index.open(tmp_path / "ray")) == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--engine", "spark"), "Unknown engine 'spark'. Accepted: local, ray"),
        (("--workers", "2"), "--workers goes with --engine ray"),
        (("--address", "auto"), "--address goes with --engine ray"),
    ],
)
def test_an_engine_that_is_not_there_or_not_asked_for_is_refused(
    millpond, corpus, tmp_path, loaded, args, message
):
    result = millpond("index", corpus, "--out", tmp_path / "i", *args)
    assert (result.exit_code, loaded) == (2, [])
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "i").exists()
