import json
import shutil
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest

from indexes import Index, IndexConfig, read_manifest, snapshot
from retrieval.errors import IndexCorruptError, SourceNotFoundError, UnknownNameError


@pytest.fixture
def folder(tmp_path, encoder, documents):
    Index.create(tmp_path / "i", encoder, documents)
    return tmp_path / "i"


def edit(folder, **changes):
    data = json.loads((folder / "manifest.json").read_text())
    del data["digest"]
    (folder / "manifest.json").write_text(json.dumps(data | changes))


def test_importing_indexes_does_not_import_faiss_or_torch():
    code = "import sys, indexes; print({'faiss', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_an_index_that_is_not_there_is_not_found(tmp_path):
    with pytest.raises(SourceNotFoundError, match="millpond index"):
        Index.open(tmp_path / "nowhere")


def test_an_interrupted_first_build_says_so(tmp_path):
    (tmp_path / ".building").mkdir()
    with pytest.raises(IndexCorruptError, match=r"interrupted.*run the same command again"):
        Index.open(tmp_path)


@pytest.mark.parametrize("name", ["index.faiss", "documents/00000.arrow", "vectors/00000.npy"])
@pytest.mark.parametrize("damage", ["truncate", "grow", "delete"])
def test_a_file_of_the_wrong_size_is_corrupt(folder, name, damage):
    path = folder / name
    if damage == "delete":
        path.unlink()
    else:
        with path.open("r+b") as stream:
            stream.truncate(path.stat().st_size + (-7 if damage == "truncate" else 7))
    with pytest.raises(IndexCorruptError, match=f"{name} is damaged: .*--overwrite") as caught:
        Index.open(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["index.faiss", "documents/00000.arrow", "vectors/00000.npy"])
def test_a_flipped_bit_is_noticed_before_it_is_used(folder, name):
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IndexCorruptError, match=f"{path} is damaged: the MiB from byte 0 on"):
        Index.open(folder).search(np.ones((1, 16), np.float32), 3)
    with pytest.raises(IndexCorruptError, match=f"{path} is damaged"):
        Index.open(folder).check()


@pytest.mark.parametrize(("role", "size"), [("index", 100), ("documents/00000", 300), ("index", 3)])
def test_a_truncated_file_is_one_line_even_if_the_manifest_agrees(folder, role, size):
    files = json.loads((folder / "manifest.json").read_text())["files"]
    with (folder / files[role]["name"]).open("r+b") as stream:
        stream.truncate(size)
    files[role]["bytes"] = size
    edit(folder, files=files)
    with pytest.raises(IndexCorruptError, match=r"is damaged: ") as caught:
        Index.open(folder)
    assert "\n" not in str(caught.value)
    assert ".cpp" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"documents": 24}, "25 vectors and 25 documents with 0 deleted, but .* 25 with 1 deleted"),
        ({"dimension": 8}, r"holds float32 \(25, 16\); expected float32 or float16 \(n, 8\)"),
        ({"rows": 26, "documents": 26}, "25 documents with 0 deleted, but .* states 26 with 0"),
    ],
)
def test_counts_that_disagree_with_the_manifest_are_corrupt(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(IndexCorruptError, match=message):
        Index.open(folder)


def test_documents_of_another_corpus_are_corrupt(folder, tmp_path, encoder, documents):
    manifest = Index.create(tmp_path / "other", encoder, documents[:20]).manifest
    shutil.copy(tmp_path / "other" / "documents/00000.arrow", folder / "documents")
    files = json.loads((folder / "manifest.json").read_text())["files"]
    files["documents/00000"] |= asdict(manifest.files["documents/00000"])
    edit(folder, files=files)
    with pytest.raises(IndexCorruptError, match="20 documents"):
        Index.open(folder)


def test_a_manifest_that_lists_no_index_file_is_corrupt(folder):
    files = json.loads((folder / "manifest.json").read_text())["files"]
    del files["index"]
    edit(folder, files=files)
    with pytest.raises(IndexCorruptError, match="no file for 'index'"):
        Index.open(folder)


def test_an_index_of_an_unknown_backend_is_named(folder):
    edit(folder, backend="qdrnt")
    with pytest.raises(UnknownNameError, match="qdrnt"):
        Index.open(folder)


def test_a_reader_that_read_the_old_manifest_retries_with_the_new_one(
    folder, encoder, documents, monkeypatch
):
    manifests = [read_manifest(folder)]
    Index.create(folder, encoder, documents[:5], IndexConfig(overwrite=True))

    def read(path):
        return manifests.pop() if manifests else read_manifest(path)

    monkeypatch.setattr(snapshot, "read_manifest", read)
    assert len(Index.open(folder)) == 5
