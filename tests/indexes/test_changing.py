"""Adding, replacing and deleting documents: what is embedded, what is found, what readers see."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexes import FileEntry, Index, IndexConfig, read_manifest, transaction
from indexes.backends.registry import backend_of
from indexes.snapshot import Snapshot
from indexes.storage import staging
from retrieval import Document
from retrieval.errors import (
    DuplicateIdError,
    FingerprintError,
    IndexCorruptError,
    IndexExistsError,
    SourceNotFoundError,
    UsageError,
    VectorError,
)
from tests.indexes import fakes

BACKENDS = [("faiss", "Flat"), ("faiss", "HNSW16"), ("faiss", "IVF4,Flat"), ("qdrant", "Flat")]
KEEP = IndexConfig(compact_share=1.0)


def found_ids(index, encoder, documents):
    """For each document, the id that a search for its own content finds first."""
    hits = index.search(encoder.encode_queries([d.content for d in documents]), 1)
    return [one[0].doc_id if one else None for one in hits]


def everything(index):
    """All documents that can be found, by id."""
    hits = index.search(np.ones((1, index.dimension), dtype=np.float32), 10_000)[0]
    assert len(hits) == len(index)
    return {h.doc_id: (h.title, h.text, dict(h.metadata)) for h in hits}


def as_stored(documents):
    return {d.doc_id: (d.title, d.text, dict(d.metadata)) for d in documents}


class Counting:
    """Counts the texts that the encoder of the fakes is given."""

    def __init__(self, encoder):
        self._encoder, self.texts = encoder, []
        self.dimension, self.fingerprint = encoder.dimension, encoder.fingerprint
        self.encode_queries = encoder.encode_queries

    def encode_documents(self, texts):
        self.texts += texts
        return self._encoder.encode_documents(texts)


@pytest.mark.parametrize(("backend", "factory"), BACKENDS)
def test_added_documents_are_found_and_only_they_are_embedded(
    tmp_path, encoder, documents, backend, factory
):
    config = IndexConfig(backend=backend, factory=factory)
    Index.create(tmp_path / "i", encoder, documents, config)
    new = fakes.make_documents(15, "new")
    counting = Counting(encoder)
    change = Index.open(tmp_path / "i", counting).add([*documents[:5], *new])
    assert (change.added, change.unchanged, change.replaced) == (15, 5, 0)
    assert counting.texts == [d.content for d in new]
    index = Index.open(tmp_path / "i")
    assert everything(index) == as_stored([*documents, *new])
    assert found_ids(index, encoder, [*documents, *new]) == [d.doc_id for d in [*documents, *new]]
    assert Index.open(tmp_path / "i").check() == change.manifest
    assert (change.manifest.documents, change.manifest.rows) == (40, 40)


@pytest.mark.parametrize(("backend", "factory"), BACKENDS)
def test_deleted_documents_are_not_found_and_their_places_go_to_the_next_best(
    tmp_path, encoder, documents, backend, factory
):
    config = IndexConfig(backend=backend, factory=factory)
    Index.create(tmp_path / "i", encoder, documents, config)
    gone = ["d0", "d7", "d24"]
    change = Index.open(tmp_path / "i").delete(gone, KEEP)
    assert (change.deleted, change.manifest.documents, change.manifest.rows) == (3, 22, 25)
    index = Index.open(tmp_path / "i")
    left = [d for d in documents if d.doc_id not in gone]
    assert everything(index) == as_stored(left)
    assert not set(found_ids(index, encoder, documents)) & set(gone)
    assert len(index.search(encoder.encode_queries(["x"]), 22)[0]) == 22


@pytest.mark.parametrize(("backend", "factory"), BACKENDS)
def test_an_update_embeds_changed_texts_and_keeps_vectors_of_changed_metadata(
    tmp_path, encoder, documents, backend, factory
):
    config = IndexConfig(backend=backend, factory=factory)
    Index.create(tmp_path / "i", encoder, documents, config)
    changed = Document("d3", "another text", "title 3", {"n": 3})
    labelled = Document("d4", "text 4 of d", "title 4", {"n": 444})
    new = Document("e", "a new text", "", {"n": -1})
    counting = Counting(encoder)
    change = Index.open(tmp_path / "i", counting).update(
        [documents[0], changed, labelled, new], KEEP
    )
    counts = (change.unchanged, change.replaced, change.relabelled, change.added, change.deleted)
    assert counts == (1, 1, 1, 1, 0)
    assert counting.texts == ["title 3 another text", "a new text"]
    index = Index.open(tmp_path / "i")
    kept = [d for d in documents if d.doc_id not in ("d3", "d4")]
    assert everything(index) == as_stored([*kept, changed, labelled, new])
    assert found_ids(index, encoder, [changed, labelled]) == ["d3", "d4"]
    query = encoder.encode_queries(["x"])
    assert [h.doc_id for h in index.search(query, 9, where="n == 444")[0]] == ["d4"]
    assert index.search(query, 9, where="n == 4") == [[]]


def test_an_update_with_delete_missing_leaves_the_corpus_and_nothing_else(
    tmp_path, encoder, documents
):
    Index.create(tmp_path / "i", encoder, documents)
    corpus = [*documents[10:20], *fakes.make_documents(3, "new")]
    change = Index.open(tmp_path / "i", encoder).update(corpus, KEEP, delete_missing=True)
    assert (change.added, change.unchanged, change.deleted) == (3, 10, 15)
    assert everything(Index.open(tmp_path / "i")) == as_stored(corpus)


def test_too_many_deletions_are_cleared_away(tmp_path, encoder, documents):
    Index.create(tmp_path / "i", encoder, documents, IndexConfig(factory="HNSW16"))
    kept = Index.open(tmp_path / "i").delete([f"d{n}" for n in range(6)])  # 6 of 25 are 24 percent
    assert (kept.compacted, kept.manifest.rows) == (False, 25)
    cleared = Index.open(tmp_path / "i").delete(["d6"])  # 28 percent
    assert (cleared.compacted, cleared.manifest.rows, cleared.manifest.documents) == (True, 18, 18)
    assert "deleted" not in cleared.manifest.files
    names = sorted(path.name for path in (tmp_path / "i").iterdir())
    # Documents, vectors, fields, index, lexical arm and manifest of one generation.
    assert len(names) == 6, names
    assert everything(Index.open(tmp_path / "i")) == as_stored(documents[7:])


def test_compacting_changes_no_hit(tmp_path, encoder, documents):
    Index.create(tmp_path / "i", encoder, documents)
    Index.open(tmp_path / "i").delete(["d1", "d2"], KEEP)
    queries = encoder.encode_queries([d.content for d in documents])
    before = Index.open(tmp_path / "i").search(queries, 10)
    assert Index.open(tmp_path / "i").compact().rows == 23
    assert Index.open(tmp_path / "i").search(queries, 10) == before
    assert Index.open(tmp_path / "i").compact().rows == 23  # nothing to do


@pytest.mark.parametrize("changes", [["add", "delete", "add"], ["update", "update", "delete"]])
def test_a_change_after_a_change_finds_the_shards_of_all_generations(
    tmp_path, encoder, documents, changes
):
    Index.create(tmp_path / "i", encoder, documents)
    expected = as_stored(documents)
    for number, kind in enumerate(changes):
        batch = fakes.make_documents(4, f"g{number}-")
        if kind == "delete":
            gone = list(expected)[:3]
            Index.open(tmp_path / "i").delete(gone, KEEP)
            expected = {name: expected[name] for name in expected if name not in gone}
        else:
            if kind == "update":
                batch += [Document("d20", f"version {number}")]
            getattr(Index.open(tmp_path / "i", encoder), kind)(batch, KEEP)
            expected |= as_stored(batch)
        assert everything(Index.open(tmp_path / "i")) == expected
    Index.open(tmp_path / "i").check()


IDS = st.sampled_from("abcdef")
TEXTS = st.sampled_from(["one", "two", "three", ""])
DOCUMENTS = st.lists(
    st.builds(Document, IDS, TEXTS, metadata=st.sampled_from([{}, {"n": 1}, {"n": 2}])),
    max_size=5,
    unique_by=lambda document: document.doc_id,
)
OPERATIONS = st.lists(
    st.tuples(st.just("update"), DOCUMENTS, st.booleans())
    | st.tuples(st.just("delete"), st.lists(IDS, unique=True, max_size=4), st.booleans()),
    max_size=4,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=DOCUMENTS.filter(bool), operations=OPERATIONS)
@pytest.mark.parametrize("backend", ["faiss", "qdrant"])
def test_any_changes_end_with_the_index_of_the_corpus_they_lead_to(
    tmp_path_factory, backend, first, operations
):
    folder = tmp_path_factory.mktemp("changes")
    encoder = fakes.HashingEncoder(4)
    Index.create(folder / "i", encoder, first, IndexConfig(backend=backend))
    corpus = {document.doc_id: document for document in first}
    for kind, argument, flag in operations:
        wanted = dict(corpus)
        if kind == "delete":
            wanted = {name: wanted[name] for name in wanted if name not in argument}
        else:
            given = {document.doc_id: document for document in argument}
            wanted = given if flag else wanted | given
        compact = IndexConfig(compact_share=0.5 if flag else 0.0)
        try:
            if kind == "delete":
                Index.open(folder / "i").delete(argument, compact, ignore_missing=True)
            else:
                Index.open(folder / "i", encoder).update(argument, compact, delete_missing=flag)
        except UsageError as error:
            assert "No document would be left" in str(error)
            assert not wanted
            continue
        corpus = wanted
    index = Index.open(folder / "i")
    assert len(index) == len(corpus)
    assert index.fetch(list("abcdef")) == corpus
    hits = index.search(np.ones((1, 4), dtype=np.float32), 10)[0]
    assert {hit.doc_id for hit in hits} == {name for name in corpus if corpus[name].text}
    fresh = folder / "fresh"
    Index.create(fresh, encoder, corpus.values())
    queries = encoder.encode_queries(["one", "two", "q"])
    for where in (None, "n == 1") if any(d.metadata for d in corpus.values()) else (None,):
        assert index.search(queries, 3, where=where) == Index.open(fresh).search(
            queries, 3, where=where
        )
    shutil.rmtree(folder, ignore_errors=True)


def add_and_die(point, path):
    """Add 40 documents, a shard for each 10, and die on the way."""
    staging.SHARD_SECONDS = 0.0
    if point == "publish":
        transaction.commit = lambda *arguments: fakes.die()
    encoder = fakes.HashingEncoder(die_at=3 if point == "encode" else 0)
    index = Index.open(path, encoder)
    index.add(fakes.make_documents(40, "new"), IndexConfig(batch_documents=10))


@pytest.mark.parametrize("point", ["encode", "publish"])
def test_a_killed_change_leaves_the_index_as_it_was_and_goes_on(
    tmp_path, encoder, documents, point
):
    path = tmp_path / "i"
    Index.create(path, encoder, documents)
    assert fakes.exit_code_of(add_and_die, point, path) == -9
    assert everything(Index.open(path)) == as_stored(documents)
    counting = Counting(encoder)
    new = fakes.make_documents(40, "new")
    change = Index.open(path, counting).add(new, IndexConfig(batch_documents=10))
    assert change.added == 40
    assert len(counting.texts) == {"encode": 20, "publish": 0}[point]
    assert everything(Index.open(path)) == as_stored([*documents, *new])


def test_another_change_than_the_killed_one_is_refused_until_restart(tmp_path, encoder, documents):
    path = tmp_path / "i"
    Index.create(path, encoder, documents)
    assert fakes.exit_code_of(add_and_die, "encode", path) == -9
    other = fakes.make_documents(5, "other")
    with pytest.raises(UsageError, match=r"other settings: change was 'add' and is 'update'"):
        Index.open(path, encoder).update(other, IndexConfig(batch_documents=10))
    config = IndexConfig(batch_documents=10, restart=True)
    assert Index.open(path, encoder).update(other, config).added == 5


def test_readers_keep_what_they_opened_while_the_index_changes(tmp_path, encoder, documents):
    Index.create(tmp_path / "i", encoder, documents)
    reader = Index.open(tmp_path / "i")
    Index.open(tmp_path / "i").delete([f"d{n}" for n in range(20)])
    assert everything(reader) == as_stored(documents)
    assert len(Index.open(tmp_path / "i")) == 5


@pytest.mark.parametrize(
    ("backend", "factory"), [("faiss", "HNSW16"), ("qdrant", "Flat"), ("qdrant", "HNSW")]
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_reindexing_embeds_nothing_and_keeps_vectors_ids_and_deletions(
    tmp_path, encoder, documents, backend, factory, elsewhere
):
    Index.create(tmp_path / "i", encoder, documents)
    Index.open(tmp_path / "i").delete(["d9"], KEEP)
    out = tmp_path / "other" if elsewhere else None
    manifest = (
        Index.open(tmp_path / "i").reindex(out=out, backend=backend, factory=factory).manifest
    )
    assert (manifest.backend, manifest.factory, manifest.documents) == (backend, factory, 24)
    index = Index.open(out or tmp_path / "i")
    assert everything(index) == as_stored(d for d in documents if d.doc_id != "d9")
    Index.open(out or tmp_path / "i").check()
    if elsewhere:
        assert Index.open(tmp_path / "i").manifest.factory == "Flat"
        with pytest.raises(IndexExistsError):
            Index.open(tmp_path / "i").reindex(out=out)


def test_float16_vectors_take_half_the_room_and_survive_changes(tmp_path, encoder, documents):
    config = IndexConfig(vector_type="float16")
    Index.create(tmp_path / "i", encoder, documents, config)
    shard = np.load(tmp_path / "i" / "vectors" / "00000.npy")
    assert (shard.dtype, shard.shape) == (np.float16, (25, 16))
    Index.open(tmp_path / "i", encoder).add([Document("new", "new")])
    index = Index.open(tmp_path / "i")
    assert index.manifest.vector_type == "float16"
    hit = index.search(encoder.encode_queries(["new"]), 1)[0][0]
    assert hit.doc_id == "new"
    assert hit.score == pytest.approx(1, abs=1e-3)


def test_a_vector_too_large_for_float16_is_refused(tmp_path):
    vectors = np.array([[1.0, 70_000.0]], dtype=np.float32)
    with pytest.raises(VectorError, match=r"7e\+04, and float16 ends at 65,504"):
        Index.create(
            tmp_path / "i",
            fakes.TableEncoder(vectors),
            [Document("a", "0")],
            IndexConfig(vector_type="float16"),
        )


def test_changes_that_cannot_be_made_say_why_and_change_nothing(tmp_path, encoder, documents):
    path = tmp_path / "i"
    Index.create(path, encoder, documents)
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(UsageError, match="'d1' is in .* with another text.*millpond update"):
        Index.open(path, encoder).add([Document("d1", "else")])
    with pytest.raises(FingerprintError):
        Index.open(path, fakes.HashingEncoder(model="other")).add(documents)
    with pytest.raises(DuplicateIdError, match="id 'x' came before"):
        Index.open(path, encoder).add([Document("x", "1"), Document("x", "2")])
    with pytest.raises(UsageError, match=r"2 of the ids are not in .*: 'y', 'z'\. Nothing was"):
        Index.open(path).delete(["d1", "y", "z"])
    with pytest.raises(UsageError, match="No document would be left"):
        Index.open(path).delete([d.doc_id for d in documents])
    with pytest.raises(SourceNotFoundError, match="no index"):
        Index.open(tmp_path / "none").delete(["a"])
    with pytest.raises(UsageError, match="compact_share is 2"):
        IndexConfig(compact_share=2)
    assert (path / "manifest.json").read_bytes() == before
    assert Index.open(path).delete(["y"], ignore_missing=True).missing == 1
    assert (path / "manifest.json").read_bytes() == before


def test_a_damaged_list_of_deletions_is_corrupt(tmp_path, encoder, documents):
    path = tmp_path / "i"
    Index.create(path, encoder, documents)
    Index.open(path).delete(["d1", "d2"], KEEP)
    manifest = read_manifest(path)
    file = manifest.place(path, "deleted")
    np.save(file, np.array([2, 1], dtype=np.int64))
    with pytest.raises(IndexCorruptError, match=r"deleted\.2\.npy is damaged: its checksum"):
        Index.open(path)
    stated = replace(manifest, files={**manifest.files, "deleted": FileEntry.of(file, file.name)})
    with pytest.raises(IndexCorruptError, match="not a rising list of row numbers"):
        Snapshot.of(path, stated, backend_of(manifest))


def test_one_id_is_deleted_and_not_its_letters(tmp_path, encoder):
    documents = [Document(name, f"text {name}") for name in ("1", "7", "17", "x")]
    index = Index.create(tmp_path / "i", encoder, documents)
    index.delete("17", KEEP)
    assert set(everything(index)) == {"1", "7", "x"}


@pytest.mark.parametrize(("old", "new"), [(1, True), (0, False), (2020, 2020.0), (True, 1)])
def test_a_value_of_another_type_is_another_value(tmp_path, encoder, old, new):
    index = Index.create(tmp_path / "i", encoder, [Document("a", "t", metadata={"field": old})])
    change = index.update([Document("a", "t", metadata={"field": new})], KEEP)
    assert (change.relabelled, change.unchanged) == (1, 0)
    [hit] = index.search(encoder.encode_queries(["t"]), 1)[0]
    assert type(hit.metadata["field"]) is type(new)
