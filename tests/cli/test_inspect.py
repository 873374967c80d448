import json

import pytest

from cli.commands import doctor as _faiss
from cli.commands.doctor import FaissBuild, describe_faiss, find_faiss_problems, find_problems
from cli.console import format_size, format_table
from embedder import list_variants

GOOD_MODULES = {"cli": "/here/cli", "indexes": "/here/indexes"}


@pytest.fixture
def packages():
    from cli.commands.doctor import REQUIRED

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
    assert facts["arms"] == "dense, lexical (english)"
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
    assert "index.faiss is damaged" in result.stderr


def test_doctor_prints_versions_device_cache_and_import_places(millpond):
    result = millpond("doctor")
    for word in ("torch", "faiss", "device", "speed exact", "speed fast", "cache", "disk"):
        assert word in result.stdout
    for word in ("import retrieval", "import cli"):
        assert word in result.stdout
    found = json.loads(millpond("doctor", "--json").stdout)
    assert result.exit_code == (1 if found["problems"] else 0)
    assert found["packages"]["numpy"]
    assert found["exact"] == "float32, packed"
    assert found["fast"]


def test_doctor_is_content_with_a_good_installation(packages):
    assert find_problems(packages, GOOD_MODULES, {}) == []


CPU, GPU = {"faiss-cpu": "1.15.1"}, {"faiss-gpu": "1.15.1"}
CPU_BUILD, BROKEN = FaissBuild("1.15.1"), FaissBuild(error="ImportError: no libcublas")


@pytest.mark.parametrize(
    ("wheels", "build", "device", "shown", "problem"),
    [
        (CPU, CPU_BUILD, "cpu", "faiss-cpu 1.15.1; for CPUs", None),
        (CPU, CPU_BUILD, "cuda H200", "for the GPU: pip uninstall faiss-cpu", None),
        (GPU, FaissBuild("1.15.1", True, 2), "cuda H200", "built for GPUs, sees 2 GPUs", None),
        (GPU, FaissBuild("1.15.1", True, 1), "cuda H200", "built for GPUs, sees 1 GPU", None),
        (GPU, FaissBuild("1.15.1", True, 0), "cpu", "built for GPUs, sees no GPU", None),
        (GPU, FaissBuild("1.15.1", True, 0), "cuda H200", "sees no GPU", "nvidia-smi"),
        (GPU, BROKEN, "cpu", "cannot be imported", "ImportError: no libcublas. Type: pip install"),
        ({}, BROKEN, "cpu", "(not installed)", "pip install 'millpond[cpu]'"),
        ({}, CPU_BUILD, "cpu", "faiss 1.15.1, not from a wheel; for CPUs", None),
        (CPU | GPU, CPU_BUILD, "cpu", "faiss-cpu 1.15.1 and faiss-gpu 1.15.1", "the CPU build is"),
        (CPU | GPU, BROKEN, None, "cannot be imported", "pip uninstall faiss-cpu faiss-gpu"),
    ],
)
def test_doctor_says_which_faiss_is_there_and_what_is_wrong_with_it(
    wheels, build, device, shown, problem
):
    assert shown in describe_faiss(wheels, build, device)
    problems = find_faiss_problems(wheels, build, device)
    assert len(problems) == (0 if problem is None else 1)
    assert all(problem in found for found in problems)


def test_doctor_asks_a_process_of_its_own_what_faiss_sees(monkeypatch):
    import faiss

    gpu = hasattr(faiss, "StandardGpuResources")
    seen = faiss.get_num_gpus() if gpu else 0
    assert _faiss.probe_faiss() == FaissBuild(faiss.__version__, gpu, seen)
    assert len(_faiss.list_wheels()) == 1
    monkeypatch.setattr(_faiss, "PROBE", "import os; os.abort()")  # as CUDA does
    assert _faiss.probe_faiss() == FaissBuild(error="it ended with -6")
    monkeypatch.setattr(_faiss, "PROBE", "raise ImportError('one\\ntwo')")
    assert _faiss.probe_faiss() == FaissBuild(error="two")
    monkeypatch.setattr(_faiss, "PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(_faiss, "PROBE_SECONDS", 0.2)
    assert "did not answer" in _faiss.probe_faiss().error


def test_doctor_warns_of_a_package_of_our_name(packages):
    intruders = {"cli": ["other-tool"]}
    (problem,) = find_problems(packages, GOOD_MODULES, intruders)
    assert "'cli' is shipped by other-tool" in problem


def test_doctor_warns_of_packages_from_two_places(packages):
    modules = {"cli": "/there/cli", "indexes": "/here/indexes"}
    (problem,) = find_problems(packages, modules, {})
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
