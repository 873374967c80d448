import errno
import json
import os
import re
import subprocess
from collections import namedtuple

import numpy as np
import pytest
from filelock import FileLock

from indexes import (
    Index,
    IndexConfig,
    check_target,
    list_backends,
    read_manifest,
    transaction,
)
from indexes.storage import staging as staging_module
from retrieval import Document, Fingerprint
from retrieval.errors import (
    DuplicateIdError,
    EmptyCorpusError,
    IndexExistsError,
    RecordError,
    StorageError,
    UnknownNameError,
    UsageError,
    VectorError,
)
from tests.indexes import fakes


def names(folder):
    """Everything in an index folder but an unfinished build and the files of the lexical arm."""
    found = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return [name for name in found if ".building" not in name and not LEXICAL_FILE.search(name)]


LEXICAL_FILE = re.compile(r"lexical(\.2)?/")
FIRST_GENERATION = [
    "documents",
    "documents/00000.arrow",
    "fields.arrow",
    "index.faiss",
    "lexical",
    "manifest.json",
    "vectors",
    "vectors/00000.npy",
]
SECOND_GENERATION = [
    "documents.2",
    "documents.2/00000.arrow",
    "fields.2.arrow",
    "index.2.faiss",
    "lexical.2",
    "manifest.json",
    "vectors.2",
    "vectors.2/00000.npy",
]


def test_a_corpus_becomes_a_folder_and_a_manifest(tmp_path, encoder, documents):
    finished = []
    manifest = Index.create(
        tmp_path / "deep" / "i",
        encoder,
        iter(documents),
        IndexConfig(corpus_name="c.jsonl", batch_documents=10),
        skipped=lambda: 4,
        progress=finished.append,
    ).manifest
    assert finished == [10, 10, 5]
    assert names(tmp_path / "deep" / "i") == FIRST_GENERATION
    assert (
        manifest
        == read_manifest(tmp_path / "deep" / "i")
        == Index.open(tmp_path / "deep" / "i").check()
    )
    assert (manifest.documents, manifest.dimension, manifest.skipped) == (25, 16, 4)
    assert (manifest.backend, manifest.factory, manifest.metric) == ("faiss", "Flat", "cosine")
    assert (manifest.corpus_name, manifest.fingerprint) == ("c.jsonl", encoder.fingerprint)
    others = set(manifest.files) - set(manifest.lexical_files)
    assert others == {"index", "fields", "documents/00000", "vectors/00000"}
    libraries = {"python", "numpy", "pyarrow", "faiss", "tantivy", "PyStemmer"}
    assert set(manifest.libraries) == libraries
    assert manifest.created.endswith("+00:00")


def test_the_kept_shards_hold_the_vectors_of_all_documents(
    tmp_path, encoder, documents, monkeypatch
):
    monkeypatch.setattr(staging_module, "SHARD_BYTES", 64 * 10)  # of 7 and 7, 7 and 4 vectors
    manifest = Index.create(
        tmp_path / "i", encoder, documents, IndexConfig(batch_documents=7)
    ).manifest
    shards = [tmp_path / "i" / e.name for r, e in manifest.files.items() if r.startswith("vectors")]
    assert [len(np.load(path)) for path in shards] == [14, 11]
    stored = np.concatenate([np.load(path) for path in shards])
    assert np.array_equal(stored, encoder.encode_documents([d.content for d in documents]))


def test_titles_are_encoded_with_texts(tmp_path):
    seen = []
    encoder = fakes.HashingEncoder()
    encode = encoder.encode_documents
    encoder.encode_documents = lambda texts: seen.extend(texts) or encode(texts)
    Index.create(tmp_path / "i", encoder, [Document("a", "text", "title"), Document("b", "")])
    assert seen == ["title text", ""]


def test_documents_are_pulled_no_further_than_the_chunk_in_work(tmp_path, encoder, documents):
    pulled = []
    lag = []
    stream = (pulled.append(d) or d for d in documents)
    Index.create(
        tmp_path / "i",
        encoder,
        stream,
        IndexConfig(batch_documents=5),
        progress=lambda n: lag.append(len(pulled)),
    )
    assert lag == [5, 10, 15, 20, 25]


def test_long_documents_make_shorter_chunks(tmp_path, encoder):
    finished = []
    documents = [Document(str(n), "x" * 6_000_000) for n in range(4)]
    Index.create(tmp_path / "i", encoder, documents, progress=finished.append)
    assert finished == [3, 1]  # 18 million characters pass the limit of 16 Mi
    hits = Index.open(tmp_path / "i").search(encoder.encode_queries(["x" * 6_000_000]), 4)[0]
    assert [len(hit.text) for hit in hits] == [6_000_000] * 4


def test_an_existing_index_is_refused_before_anything_is_encoded(tmp_path, documents):
    Index.create(tmp_path / "i", fakes.HashingEncoder(), documents)
    encoder = fakes.HashingEncoder()
    with pytest.raises(IndexExistsError, match=r"25 documents by 'hash'.*--overwrite"):
        Index.create(tmp_path / "i", encoder, documents)
    assert encoder.calls == 0
    check_target(tmp_path / "i", overwrite=True)


def test_overwrite_replaces_the_index_by_the_next_generation(tmp_path, encoder, documents):
    path = tmp_path / "i"
    Index.create(path, encoder, documents)
    (path / "README.txt").write_text("mine")
    Index.create(path, encoder, documents[:5], IndexConfig(overwrite=True))
    assert names(path) == sorted([*SECOND_GENERATION, "README.txt"])
    assert len(Index.open(path)) == 5
    Index.create(path, encoder, documents[:6], IndexConfig(overwrite=True))
    assert "index.3.faiss" in names(path)
    assert "index.2.faiss" not in names(path)
    assert Index.open(path).check().documents == 6


def test_a_reader_that_has_the_old_index_open_keeps_it(tmp_path, encoder, documents):
    Index.create(tmp_path / "i", encoder, documents)
    reader = Index.open(tmp_path / "i")
    Index.create(
        tmp_path / "i", encoder, fakes.make_documents(9, "new"), IndexConfig(overwrite=True)
    )
    query = encoder.encode_queries([documents[20].content])
    assert reader.search(query, 1)[0][0].text == documents[20].text
    assert Index.open(tmp_path / "i").search(query, 1)[0][0].doc_id.startswith("new")


@pytest.mark.parametrize("content", ["", "{", '{"format": "millpond-index"}'])
def test_overwrite_replaces_a_damaged_index(tmp_path, encoder, documents, content):
    path = tmp_path / "i"
    Index.create(path, encoder, documents)
    (path / "manifest.json").write_text(content)
    with pytest.raises(IndexExistsError, match="a damaged index"):
        check_target(path)
    with pytest.raises(VectorError):
        Index.create(path, Broken(encoder, nan=3), documents, IndexConfig(overwrite=True))
    assert names(path) == FIRST_GENERATION  # the damaged files stay until there is a new index
    Index.create(path, encoder, documents, IndexConfig(overwrite=True))
    assert names(path) == SECOND_GENERATION


def test_a_newer_index_is_not_overwritten(tmp_path, encoder, documents):
    path = tmp_path / "i"
    Index.create(path, encoder, documents)
    data = json.loads((path / "manifest.json").read_text()) | {"format_version": 99}
    (path / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(UsageError, match="upgrade"):
        Index.create(path, encoder, documents, IndexConfig(overwrite=True))


def test_an_older_index_can_be_overwritten(tmp_path, encoder, documents):
    path = tmp_path / "i"
    Index.create(path, encoder, documents)
    data = json.loads((path / "manifest.json").read_text()) | {"format_version": 1}
    (path / "manifest.json").write_text(json.dumps(data))
    Index.create(path, encoder, documents, IndexConfig(overwrite=True))
    assert len(Index.open(path)) == len(documents)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("foreign", ["notes.txt", "manifest.json", "index.faiss", "vectors.csv"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, encoder, documents, overwrite, foreign):
    (tmp_path / foreign).write_text('{"name": "a web app"}')
    with pytest.raises(UsageError, match="not an index"):
        Index.create(tmp_path, encoder, documents, IndexConfig(overwrite=overwrite))
    assert names(tmp_path) == [foreign]
    assert encoder.calls == 0


@pytest.mark.parametrize("inside", ["", "deeper/i"])
def test_a_path_that_is_a_file_is_refused(tmp_path, encoder, documents, inside):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        Index.create(tmp_path / "file" / inside, encoder, documents)
    assert (tmp_path / "file").read_text() == "x"


def test_an_empty_folder_is_accepted(tmp_path, encoder, documents):
    Index.create(tmp_path, encoder, documents)
    assert names(tmp_path) == FIRST_GENERATION


def test_an_empty_corpus_leaves_nothing_behind(tmp_path, encoder):
    with pytest.raises(EmptyCorpusError, match="holds no document"):
        Index.create(tmp_path / "i" / "j", encoder, iter([]))
    assert names(tmp_path) == []


def test_an_unknown_backend_is_named_with_the_known_ones(tmp_path, encoder, documents):
    assert list_backends() == ("faiss", "qdrant")
    with pytest.raises(UnknownNameError, match=r"'fais'.*Did you mean 'faiss'"):
        Index.create(tmp_path / "i", encoder, documents, IndexConfig(backend="fais"))


def test_a_chunk_of_no_documents_is_refused(tmp_path, encoder, documents):
    with pytest.raises(UsageError, match="batch_documents is 0"):
        Index.create(tmp_path / "i", encoder, documents, IndexConfig(batch_documents=0))


def test_a_repeated_id_is_refused_and_nothing_is_left(tmp_path, encoder, documents):
    with pytest.raises(DuplicateIdError, match="c:26: id 'd4' is already the id of record 5"):
        Index.create(
            tmp_path / "i", encoder, [*documents, documents[4]], IndexConfig(corpus_name="c")
        )
    assert names(tmp_path) == []


def test_a_document_that_is_not_unicode_is_refused_and_nothing_is_left(tmp_path, documents):
    class Zeros:
        dimension = 1
        fingerprint = Fingerprint("zeros")

        def encode_documents(self, texts):
            return np.zeros((len(texts), 1), dtype=np.float32)

    with pytest.raises(RecordError, match="26: 'text' holds half of a surrogate pair"):
        Index.create(tmp_path / "i", Zeros(), [*documents, Document("bad", "\udc00")])
    assert names(tmp_path) == []


class Broken:
    """Wraps an encoder and spoils the chunk that holds row ``nan`` or changes every chunk."""

    def __init__(self, encoder, *, nan=None, change=lambda vectors: vectors):
        self.encoder, self.nan, self.change = encoder, nan, change
        self.dimension, self.fingerprint = encoder.dimension, encoder.fingerprint
        self.rows = 0

    def encode_documents(self, texts):
        vectors = self.encoder.encode_documents(texts)
        if self.nan is not None and self.rows <= self.nan < self.rows + len(texts):
            vectors[self.nan - self.rows, 0] = np.nan
        self.rows += len(texts)
        return self.change(vectors)


def test_a_nan_names_the_document_and_leaves_nothing(tmp_path, encoder, documents):
    with pytest.raises(VectorError, match="NaN or infinity for document 'd17'"):
        Index.create(
            tmp_path / "i", Broken(encoder, nan=17), documents, IndexConfig(batch_documents=10)
        )
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v[:-1], r"shape \(9, 16\) for 10 documents from 'd0' on; expected \(10, 16\)"),
        (lambda v: v[:, :8], r"shape \(10, 8\)"),
        (lambda v: v[0], r"shape \(16,\)"),
        (lambda v: v.tolist(), "shape None"),
        (lambda v: v.astype(np.float64), "float64 for document 'd0'; expected float32"),
    ],
)
def test_an_encoder_that_returns_something_else_is_refused(
    tmp_path, encoder, documents, change, message
):
    with pytest.raises(VectorError, match=message):
        Index.create(
            tmp_path / "i",
            Broken(encoder, change=change),
            documents,
            IndexConfig(batch_documents=10),
        )
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError])
@pytest.mark.parametrize("first", [True, False], ids=["first index", "overwrite"])
def test_an_error_while_reading_passes_through_and_the_old_index_stays(
    tmp_path, encoder, documents, error, first
):
    path = tmp_path / "i"
    if not first:
        Index.create(path, encoder, documents)

    def failing():
        yield from documents[:15]
        raise error("reader")

    with pytest.raises(error, match="reader"):
        Index.create(path, encoder, failing(), IndexConfig(overwrite=True, batch_documents=5))
    assert names(tmp_path) == ([] if first else ["i", *(f"i/{name}" for name in FIRST_GENERATION)])
    if not first:
        assert Index.open(path).check().documents == 25


@pytest.mark.parametrize("committed", [False, True])
def test_ctrl_c_around_the_commit_leaves_a_whole_index(
    tmp_path, encoder, documents, monkeypatch, committed
):
    Index.create(tmp_path / "i", encoder, documents)
    commit = transaction.commit

    def interrupted(draft, manifest):
        if committed:
            commit(draft, manifest)
        raise KeyboardInterrupt

    monkeypatch.setattr(transaction, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Index.create(tmp_path / "i", encoder, documents[:5], IndexConfig(overwrite=True))
    assert Index.open(tmp_path / "i").check().documents == (5 if committed else 25)
    assert names(tmp_path / "i") == (SECOND_GENERATION if committed else FIRST_GENERATION)


def test_a_second_writer_is_refused(tmp_path, encoder, documents):
    Index.create(tmp_path / "i", encoder, documents)
    with (
        FileLock(tmp_path / "i" / ".lock"),
        pytest.raises(StorageError, match="Another process is writing"),
    ):
        Index.create(tmp_path / "i", encoder, documents, IndexConfig(overwrite=True))
    assert encoder.calls == 1
    assert Index.open(tmp_path / "i").check().documents == 25


def test_a_writer_inside_a_writer_is_refused_and_the_outer_one_finishes(
    tmp_path, encoder, documents
):
    def nested():
        yield from documents[:10]
        with pytest.raises(StorageError, match="Another process is writing"):
            Index.create(tmp_path / "i", fakes.HashingEncoder(), documents)
        yield from documents[10:]

    Index.create(tmp_path / "i", encoder, nested(), IndexConfig(batch_documents=5))
    assert Index.open(tmp_path / "i").check().documents == 25


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("target", ["shards", "documents", "index", "publish"])
def test_a_full_disk_says_how_much_is_free_and_was_needed(
    tmp_path, encoder, documents, monkeypatch, number, target
):
    Index.create(tmp_path / "i", encoder, documents)

    def full(*arguments, **options):
        raise OSError(number, os.strerror(number))

    places = {
        "shards": "indexes.storage.vectors.VectorWriter.append",
        "documents": "indexes.storage.document_writer.DocumentWriter._flush",
        "index": "indexes.backends.faiss._write_flat",
        "publish": "indexes.transaction.sync_tree",
    }
    monkeypatch.setattr(places[target], full)
    monkeypatch.setattr("shutil.disk_usage", lambda path: Usage(9, 8, 1_234_567))
    with pytest.raises(StorageError, match=r"full: 1\.2 MB free after .* \d+\.\d MB") as caught:
        Index.create(tmp_path / "i", encoder, documents, IndexConfig(overwrite=True))
    assert "\n" not in str(caught.value)
    is_kept = (tmp_path / "i" / ".building").is_dir()
    assert ("it goes on from the last finished shard" in str(caught.value)) == is_kept
    assert names(tmp_path / "i") == FIRST_GENERATION
    assert Index.open(tmp_path / "i").check().documents == 25


@pytest.mark.parametrize(("count", "factory"), [(400, "Flat"), (400, "HNSW16"), (3000, "Flat")])
def test_a_disk_that_is_really_full_keeps_the_earlier_index(small_disk, count, factory):
    # Vectors of 1 KB: 400 fit as shards but not a second time as an index, 3000 not even as shards.
    encoder = fakes.HashingEncoder(256)
    Index.create(small_disk / "i", encoder, fakes.make_documents(100))
    with pytest.raises(StorageError, match=r"full: 0\.\d MB free after .* 0\.\d MB"):
        Index.create(
            small_disk / "i",
            encoder,
            fakes.make_documents(count),
            IndexConfig(overwrite=True, factory=factory),
        )
    assert names(small_disk / "i") == FIRST_GENERATION
    assert Index.open(small_disk / "i").check().documents == 100


def test_a_read_only_disk_is_reported_before_anything_is_encoded(small_disk, encoder, documents):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError, match=r"cannot be written.*Read-only"):
        Index.create(small_disk / "i", encoder, documents)
    assert encoder.calls == 0


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_without_permission_is_reported(tmp_path, encoder, documents, exists):
    parent = tmp_path / "closed"
    path = parent if exists else parent / "i"
    parent.mkdir(mode=0o500)
    if os.access(parent, os.W_OK):
        pytest.skip("root may write anywhere")
    with pytest.raises(StorageError, match=r"cannot be written.*Permission denied"):
        Index.create(path, encoder, documents)
    assert encoder.calls == 0


def test_a_permission_error_is_reported_as_such(tmp_path, encoder, documents, monkeypatch):
    def denied(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("indexes.transaction.commit", denied)
    with pytest.raises(StorageError, match=r"Permission denied.*Check the permissions"):
        Index.create(tmp_path / "i", encoder, documents)
    assert names(tmp_path) == ["i"]  # and what it has embedded, for the next try
