import os
import subprocess
import sys
from pathlib import Path

import pytest

from embedder import Embedder
from embedder.models.bases import converted_folder
from embedder.models.provenance import model_sources, stamp_code, stamp_sources
from tests.embedder import stand_ins

ROOT = Path(__file__).parents[3]


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    stand_ins.write_model_folder(folder)
    return folder


def test_a_base_folder_is_its_own_source(base):
    name = f"{base}:mean+causal"
    sources = model_sources(name, Embedder.load(name, device="cpu"))
    assert base in sources
    stamp = stamp_sources(sources)
    assert stamp_sources(sources) == stamp


@pytest.mark.parametrize("change", ["touch", "grow", "add", "remove"])
def test_every_change_of_the_folder_changes_the_stamp(base, change):
    name = f"{base}:mean+causal"
    sources = model_sources(name, Embedder.load(name, device="cpu"))
    stamp = stamp_sources(sources)
    path = base / "tokenizer_config.json"
    if change == "touch":
        os.utime(path, ns=(1, 1))
    if change == "grow":
        path.write_text(path.read_text() + "\n")
    if change == "add":
        (base / "added_tokens.json").write_text("{}")
    if change == "remove":
        path.unlink()
    assert stamp_sources(sources) != stamp


def test_a_saved_model_needs_its_own_files_and_those_of_its_base(base, tmp_path):
    from embedder.models.lora import LoraOptions, add_adapter
    from embedder.models.saving import save_model

    embedder = Embedder.load(f"{base}:mean+causal", device="cpu")
    add_adapter(embedder.backbone, LoraOptions())
    folder = tmp_path / "trained"
    save_model(embedder, folder, record={})
    sources = model_sources(str(folder), Embedder.load(str(folder), device="cpu"))
    assert {folder, base} <= set(sources)
    stamp = stamp_sources(sources)
    os.utime(folder / "adapter" / "adapter_model.safetensors", ns=(1, 1))
    assert stamp_sources(sources) != stamp


def test_a_gguf_file_counts_with_what_was_converted_from_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "tiny.gguf"
    identity = stand_ins.write_gguf(path)
    name = f"{path}:mean+causal"
    sources = model_sources(name, Embedder.load(name, device="cpu"))
    assert {path, converted_folder(identity)} <= set(sources)


def test_a_folder_that_takes_the_model_s_name_later_changes_the_stamp(base, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    embedder = Embedder.load(f"{base}:mean+causal", device="cpu")
    sources = model_sources("base", embedder)
    stamp = stamp_sources(sources)
    (tmp_path / "base" / "millpond.json").write_text("{}")
    assert stamp_sources(sources) != stamp


def test_a_hub_s_branch_is_no_file_and_a_commit_needs_none(base):
    embedder = Embedder.load(f"{base}:mean+causal", device="cpu")
    for revision, known in ((None, False), ("main", False), ("a" * 40, True)):
        import dataclasses

        embedder.spec = dataclasses.replace(
            embedder.spec, base="nobody-here/no-model", revision=revision
        )
        assert (model_sources("nobody-here/no-model", embedder) is not None) == known


def test_stamps_need_no_torch():
    code = (
        "import sys; from embedder.models.provenance import stamp_code, stamp_sources\n"
        "from pathlib import Path\n"
        "assert len(stamp_code()) == len(stamp_sources([Path('/')])) == 64\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert stamp_code() == stamp_code()
