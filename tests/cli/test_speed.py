"""``--speed`` of embed, index and search: what reaches the model, and what keeps two apart."""

import pyarrow.parquet
import pytest

from embedder import loading
from tests.embedder import stand_ins

COMMANDS = ("embed", "index", "search", "bench", "serve", "add", "update")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_speed_names_those_there_are(command, millpond, loaded):
    assert "--speed" in millpond(command, "--help").stdout
    needed = {
        "embed": ("f", "-o", "o"),
        "add": ("d", "c"),
        "update": ("d", "c"),
        "index": ("c", "-o", "o"),
        "search": ("d", "t"),
    }
    needed["bench"] = ("-m", "m", "-t", "t", "-o", "o")
    refused = millpond(command, *needed.get(command, ()), "--speed", "quick")
    assert refused.exit_code == 2
    assert refused.stderr.splitlines() == [
        "Error: Invalid value for '--speed': 'quick' is not one of 'exact', 'fast'. "
        f"Type 'millpond {command} --help' for its options."
    ]
    assert loaded == []


@pytest.fixture
def fast_index(millpond, corpus, tmp_path):
    """An index of int8 vectors."""
    made = millpond("index", corpus, "--out", tmp_path / "fast", "--speed", "fast")
    assert made.exit_code == 0
    return tmp_path / "fast"


def test_an_index_of_int8_vectors_is_searched_with_fast_and_not_with_exact(millpond, fast_index):
    refused = millpond("search", fast_index, "mills grind", "--speed", "exact")
    assert refused.exit_code == 2
    assert refused.stderr.splitlines() == [
        f"Error: {fast_index} was made with 'fake' and int8 layers (--speed fast), and here the "
        "same model computes with float layers: linear_layers 'int8' against None. Their vectors "
        "cannot be compared. Leave --speed exact out, or index the corpus again."
    ]
    for options in ((), ("--speed", "fast")):
        found = millpond("search", fast_index, "mills grind", *options, "-k", 1, "--mode", "dense")
        assert found.exit_code == 0
        assert found.stdout[:13] == " 1  0.8165  b"  # 2 words of 3: (2/3)^0.5


def test_an_exact_index_is_not_searched_with_int8(millpond, index_folder):
    refused = millpond("search", index_folder, "water", "--speed", "fast")
    assert refused.exit_code == 2
    assert "linear_layers None against 'int8'" in refused.stderr
    assert "Leave --speed fast out, or index the corpus again." in refused.stderr


def test_where_the_cpu_has_no_int8_another_machine_is_named(millpond, fast_index, monkeypatch):
    load = loading.load_encoder
    monkeypatch.setattr(
        loading, "load_encoder", lambda name, device, *rest, **more: load(name, device)
    )
    refused = millpond("search", fast_index, "water")
    assert refused.exit_code == 2
    assert (
        "Search where `millpond doctor` says that fast is int8, as where it was made"
        in refused.stderr
    )


def test_another_model_is_told_as_such_whatever_its_speed(millpond, fast_index):
    refused = millpond("search", fast_index, "water", "--model", "other")
    assert refused.exit_code == 2
    assert "Search with --model 'fake'" in refused.stderr


def test_embed_keeps_in_the_file_that_int8_made_it(millpond, corpus, tmp_path):
    for speed, kept in (("exact", False), ("fast", True)):
        out = tmp_path / f"{speed}.parquet"
        assert millpond("embed", corpus, "--out", out, "--speed", speed).exit_code == 0
        metadata = pyarrow.parquet.read_schema(out).metadata
        assert any(b"int8" in value for value in metadata.values()) == kept


@pytest.fixture
def tiny_base(tmp_path):
    """A folder with a random llama of two layers."""
    stand_ins.write_model_folder(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.mark.parametrize("there_is", [False, True])
def test_a_real_model_computes_in_int8_or_says_on_stderr_why_not(
    there_is, tmp_path, monkeypatch, capsys, tiny_base
):
    from cli.models import load_encoder

    stand_ins.set_int8(monkeypatch, there_is)
    encoder = load_encoder(f"{tiny_base}:mean+causal", "cpu", "fast")
    assert loading.is_int8(encoder.fingerprint) == there_is
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("speed fast: int8 needs AVX512-VNNI") == (not there_is)


@pytest.mark.parametrize("command", ["add", "update"])
def test_an_index_of_int8_vectors_grows_as_it_was_made(command, millpond, fast_index, write_jsonl):
    more = write_jsonl("more.jsonl", {"_id": "z", "text": "new"})
    refused = millpond(command, fast_index, more, "--speed", "exact")
    assert refused.exit_code == 2
    assert "Leave --speed exact out, or index the corpus again." in refused.stderr
    grown = millpond(command, fast_index, more)
    assert grown.exit_code == 0, grown.stderr
    assert "Added 1" in grown.stderr
