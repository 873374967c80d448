"""No link inside an index folder is followed: a received index cannot reach other files."""

import pytest

from indexes import Index, IndexConfig, read_manifest
from indexes.storage.staging import read_unfinished
from retrieval import Document
from retrieval.errors import IndexCorruptError
from tests.indexes import fakes

WRITES = {
    "add": lambda path, encoder: Index.open(path, encoder).add([Document("new", "x")]),
    "update": lambda path, encoder: Index.open(path, encoder).update([Document("d1", "x")]),
    "delete": lambda path, encoder: Index.open(path).delete(["d1"]),
    "compact": lambda path, encoder: Index.open(path).compact(),
    "reindex": lambda path, encoder: Index.open(path).reindex(factory="HNSW8"),
    "create": lambda path, encoder: Index.create(
        path, encoder, fakes.make_documents(3), IndexConfig(overwrite=True)
    ),
}
READS = {
    "open": lambda path, encoder: Index.open(path),
    "check": lambda path, encoder: Index.open(path).check(),
}


@pytest.fixture
def path(tmp_path, encoder, documents):
    """An index of d0 to d24 without d3, so that it has a file of every kind."""
    Index.create(tmp_path / "i", encoder, documents).delete(["d3"], IndexConfig(compact_share=1.0))
    return tmp_path / "i"


@pytest.fixture
def precious(tmp_path):
    """Somebody's folder, with files of the names that a build in progress has."""
    folder = tmp_path / "precious"
    for name in ["a.txt", "documents/00000.arrow", "vectors/b.npy", "done/00000.json", "lock"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")
    return folder


def content(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", [".building", ".building/documents", ".building/done", ".lock"])
def test_a_writer_follows_no_link_to_its_staging_folder_or_lock(
    path, encoder, precious, write, name
):
    (path / name).parent.mkdir(exist_ok=True)
    target = precious / {".lock": "lock", ".building": "."}.get(name, name.partition("/")[2])
    (path / name).symlink_to(target)
    before, index = content(precious), content(path)
    with pytest.raises(IndexCorruptError, match=rf"{name} is a symbolic link.*Delete the link"):
        WRITES[write](path, encoder)
    assert content(precious) == before
    assert content(path) == index
    (path / name).unlink()
    WRITES[write](path, encoder)


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("name", ["documents.2", "vectors.7", "fields.3.arrow", "index.9.faiss"])
def test_a_writer_follows_no_link_in_place_of_a_file_of_the_index(
    path, encoder, precious, write, name
):
    (path / name).unlink(missing_ok=True)
    (path / name).symlink_to(precious)
    before = content(precious)
    with pytest.raises(IndexCorruptError, match=rf"{name} is a symbolic link"):
        WRITES[write](path, encoder)
    assert content(precious) == before


@pytest.mark.parametrize("use", [*READS, *WRITES])
def test_a_manifest_that_is_a_link_is_refused(path, encoder, tmp_path, use):
    elsewhere = tmp_path / "elsewhere.json"
    (path / "manifest.json").rename(elsewhere)
    (path / "manifest.json").symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    with pytest.raises(IndexCorruptError, match=r"manifest\.json is a symbolic link"):
        {**READS, **WRITES}[use](path, encoder)
    assert elsewhere.read_bytes() == before
    with pytest.raises(IndexCorruptError, match=r"manifest\.json is a symbolic link"):
        read_manifest(path)


@pytest.mark.parametrize("role", ["documents/00000", "vectors/00000", "fields", "deleted", "index"])
@pytest.mark.parametrize("use", [*READS, *[name for name in WRITES if name != "create"]])
def test_a_link_in_place_of_a_listed_file_is_refused_by_name(path, encoder, tmp_path, role, use):
    file = read_manifest(path).place(path, role)
    index = Index.open(path, encoder)
    file.rename(tmp_path / "whole")
    file.symlink_to(tmp_path / "whole")
    with pytest.raises(IndexCorruptError, match=f"{file.name}.* is a symbolic link"):
        {**READS, **WRITES}[use](path, encoder)
    with pytest.raises(IndexCorruptError, match=f"{file.name}.* is a symbolic link"):
        index.check()
    assert (tmp_path / "whole").is_file()


def test_a_link_in_place_of_a_folder_of_shards_is_refused_by_name(path, tmp_path):
    (path / "vectors").rename(tmp_path / "vectors")
    (path / "vectors").symlink_to(tmp_path / "vectors")
    with pytest.raises(IndexCorruptError, match=r"i/vectors is a symbolic link"):
        Index.open(path)


def test_a_link_beside_the_files_of_an_engine_is_refused_by_name(tmp_path, encoder, documents):
    path = tmp_path / "i"
    Index.create(path, encoder, documents, IndexConfig(backend="qdrant"))
    segment = next((path / "qdrant" / "shard" / "segments").iterdir())
    (segment / "extra.dat").symlink_to(tmp_path / "precious")
    with pytest.raises(IndexCorruptError, match=r"extra\.dat is a symbolic link"):
        Index.open(path)


def test_an_index_is_overwritten_where_a_shard_is_a_link(path, encoder, tmp_path):
    file = path / "vectors" / "00000.npy"
    file.rename(tmp_path / "whole")
    file.symlink_to(tmp_path / "whole")
    before = (tmp_path / "whole").read_bytes()
    WRITES["create"](path, encoder)
    assert (tmp_path / "whole").read_bytes() == before
    assert Index.open(path).check().documents == 3


def test_a_link_to_the_index_folder_itself_is_the_users_own(path, encoder, tmp_path):
    (tmp_path / "link").symlink_to(path)
    Index.open(tmp_path / "link", encoder).add([Document("new", "x")])
    assert len(Index.open(path)) == 25


def test_other_peoples_links_beside_an_index_are_left_alone(path, encoder, precious):
    (path / "notes").symlink_to(precious)
    before = content(precious)
    Index.open(path, encoder).add([Document("new", "x")])
    assert (path / "notes").is_symlink()
    assert content(precious) == before


def test_an_unfinished_build_is_not_looked_for_behind_a_link(path, precious):
    (path / ".building").symlink_to(precious)
    with pytest.raises(IndexCorruptError, match=r"\.building is a symbolic link"):
        read_unfinished(path)
