import json

import pytest

from cli._doctor import find_problems
from cli._text import format_size, format_table
from embedder import list_variants

GOOD_MODULES = {"cli": "/here/cli", "indexes": "/here/indexes"}


@pytest.fixture
def packages():
    from cli._doctor import REQUIRED

    return dict.fromkeys(REQUIRED, "1.0")


def test_variants_lists_every_pooling_attention_and_paper_model_within_80_columns(millpond):
    lines = millpond("variants").stdout.splitlines()
    first = {line.split()[0] for line in lines if line}
    assert {v.pooling for v in list_variants()} | {v.attention for v in list_variants()} <= first
    assert lines[-5].split() == ["model1", "eos+causal"]
    assert max(map(len, lines)) <= 80


def test_variants_json_lists_every_variant(millpond):
    names = [variant.name for variant in list_variants()]
    objects = [json.loads(line) for line in millpond("variants", "--json").stdout.splitlines()]
    assert [item["name"] for item in objects] == names


def test_models_lists_the_bases(millpond):
    assert "smollm2-135m" in millpond("models").stdout
    objects = [json.loads(line) for line in millpond("models", "--json").stdout.splitlines()]
    bases = [item for item in objects if item["kind"] == "base"]
    assert {"name", "licence", "download_bytes", "cached"} <= set(bases[0])


def test_info_names_corpus_counts_and_model(millpond, index_folder, corpus):
    shown = millpond("info", index_folder).stdout
    facts = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert facts["corpus"] == str(corpus)
    assert facts["documents"] == "3"
    assert facts["backend"] == "faiss, Flat"
    data = json.loads(millpond("info", index_folder, "--json").stdout)
    assert data["fingerprint"]["model"] == "fake"


def test_info_verify_finds_a_changed_byte(millpond, index_folder):
    assert millpond("info", index_folder, "--verify").exit_code == 0
    file = index_folder / "index.faiss"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    result = millpond("info", index_folder, "--verify")
    assert result.exit_code == 1
    assert "checksum" in result.stderr


def test_doctor_prints_versions_device_cache_and_import_places(millpond):
    result = millpond("doctor")
    for word in ("torch", "faiss", "device", "cache", "disk", "import retrieval", "import cli"):
        assert word in result.stdout
    found = json.loads(millpond("doctor", "--json").stdout)
    assert result.exit_code == (1 if found["problems"] else 0)
    assert found["packages"]["numpy"]


def test_doctor_is_content_with_a_good_installation(packages):
    assert find_problems(packages, {"faiss-cpu": "1"}, GOOD_MODULES, {}) == []


@pytest.mark.parametrize(
    ("wheels", "words"),
    [
        ({}, "pip install faiss-cpu"),
        ({"faiss-cpu": "1", "faiss-gpu": "1"}, "pip uninstall faiss-cpu faiss-gpu"),
    ],
)
def test_doctor_wants_exactly_one_faiss_wheel(wheels, words, packages):
    (problem,) = find_problems(packages, wheels, GOOD_MODULES, {})
    assert words in problem


def test_doctor_warns_of_a_package_of_our_name(packages):
    intruders = {"cli": ["other-tool"]}
    (problem,) = find_problems(packages, {"faiss-cpu": "1"}, GOOD_MODULES, intruders)
    assert "'cli' is shipped by other-tool" in problem


def test_doctor_warns_of_packages_from_two_places(packages):
    modules = {"cli": "/there/cli", "indexes": "/here/indexes"}
    (problem,) = find_problems(packages, {"faiss-cpu": "1"}, modules, {})
    assert "2 places (/here, /there)" in problem


def test_a_table_wraps_its_last_column_in_a_terminal_only():
    rows = [("a", "one two three four five six seven eight nine"), ("bb", "x")]
    assert list(format_table(rows, 24)) == [
        "a   one two three four",
        "    five six seven eight",
        "    nine",
        "bb  x",
    ]
    assert list(format_table(rows, None)) == [f"a   {rows[0][1]}", "bb  x"]


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (92_871_040, "93 MB")],
)
def test_sizes_are_decimal(size, shown):
    assert format_size(size) == shown
