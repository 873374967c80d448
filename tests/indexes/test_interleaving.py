"""Two writers and readers, interleaved at every step of a change: readers see whole versions."""

import random

import numpy as np
from filelock import FileLock

from indexes import Index, IndexConfig, build, snapshot, transaction
from indexes.storage.staging import Staging
from retrieval import Document
from retrieval.errors import StorageError
from tests.indexes import fakes

INTERLEAVINGS = 200
IDS = [f"d{number}" for number in range(8)]
WORDS = "anchor first text"
"""One of them is in every text."""
EVERYTHING = np.ones((1, 16), dtype=np.float32)


def documents_of(state):
    return [Document(doc_id, text) for doc_id, text in state.items()]


class Theatre:
    """Runs changes of one index, interrupts them at seeded places, and knows what must be there.

    ``state`` maps id to text and is brought up to date at the very commit of a change. "anchor" is
    never deleted, since an index needs a document.
    """

    def __init__(self, path, seed):
        self.path, self.random = path, random.Random(seed)
        self.encoder = fakes.HashingEncoder()
        self.state = {"anchor": "anchor", **dict.fromkeys(IDS, "first")}
        self.effects = []  # of the changes that are in progress, the innermost last
        self.kept = []  # open readers, with the state that each of them was opened in
        self.interleavings = self.refused = 0
        Index.create(path, self.encoder, documents_of(self.state))

    def patch(self, monkeypatch):
        for place, name in [
            (FileLock, "acquire"),
            (FileLock, "release"),
            (Staging, "finish"),
            (build, "infer_fields"),
            (snapshot, "read_manifest"),
            (transaction, "_clean"),
            (transaction, "sync_tree"),
            (transaction, "_prepare"),
            (type(self.path), "rename"),
        ]:
            monkeypatch.setattr(place, name, self.interrupted(getattr(place, name)))
        commit = transaction.commit

        def committing(*arguments):
            self.interrupt()
            commit(*arguments)
            self.state = self.effects[-1](self.state)
            self.effects[-1] = dict  # what follows is a compaction
            self.interrupt()

        monkeypatch.setattr(transaction, "commit", committing)

    def interrupted(self, step):
        def replacement(*arguments, **options):
            self.interrupt()
            done = step(*arguments, **options)
            self.interrupt()
            return done

        return replacement

    def interrupt(self):
        """Let the other writer act, or a reader, or neither."""
        if len(self.effects) != 1 or self.random.random() > 0.15:
            return
        self.interleavings += 1
        if self.random.random() < 0.5:
            self.read()
        else:
            self.write()

    def write(self):
        share = self.random.choice([0.0, 0.25, 1.0])
        config, index = IndexConfig(compact_share=share), Index.open(self.path, self.encoder)
        ids = self.random.sample(IDS, self.random.randint(1, 4))
        text = f"text {self.random.randrange(10**6)}"
        new = dict.fromkeys(ids, text)
        kind = self.random.choice(["delete", "update", "replace all", "compact", "reindex"])
        effect = {
            "delete": lambda state: {i: t for i, t in state.items() if i not in ids},
            "update": lambda state: {**state, **new},
            "replace all": lambda state: {"anchor": "anchor", **new},
        }.get(kind, dict)
        self.effects.append(effect)
        try:
            if kind == "delete":
                index.delete(ids, config, ignore_missing=True)
            elif kind == "update":
                index.update(documents_of(new), config)
            elif kind == "replace all":
                index.update(documents_of({"anchor": "anchor", **new}), config, delete_missing=True)
            elif kind == "compact":
                index.compact()
            else:
                index.reindex(factory=self.random.choice(["Flat", "HNSW4"]))
        except StorageError as error:
            assert "Another process is writing" in str(error)
            assert len(self.effects) == 2
            self.refused += 1
        finally:
            self.effects.pop()

    def read(self):
        before = self.state
        self.effects.append(dict)  # a reader is not interrupted by a reader
        reader = Index.open(self.path)
        self.effects.pop()
        assert contents(reader) == before
        assert fakes.ids_by_words(reader, WORDS) == sorted(before)
        self.kept.append((reader, before))
        reader, expected = self.random.choice(self.kept)
        assert contents(reader) == expected
        assert fakes.ids_by_words(reader, WORDS) == sorted(expected)


def contents(index):
    return {hit.doc_id: hit.text for hit in index.search(EVERYTHING, 100)[0]}


def test_readers_see_one_version_or_the_next_whatever_two_writers_do(tmp_path, monkeypatch):
    interleavings = refused = 0
    for seed in range(100):
        with monkeypatch.context() as patches:
            theatre = Theatre(tmp_path / str(seed), seed)
            theatre.patch(patches)
            for _ in range(4):
                theatre.write()
        index = Index.open(theatre.path)
        index.check()
        assert contents(index) == theatre.state, f"seed {seed}"
        assert fakes.ids_by_words(index, WORDS) == sorted(theatre.state), f"seed {seed}"
        for reader, expected in theatre.kept:
            assert contents(reader) == expected, f"seed {seed}"
        interleavings += theatre.interleavings
        refused += theatre.refused
        if interleavings >= INTERLEAVINGS:
            break
    assert interleavings >= INTERLEAVINGS
    assert 0 < refused < interleavings / 2  # the second writer met a lock, and got by as well


def test_a_reader_that_is_overtaken_while_it_opens_sees_the_next_version(tmp_path, monkeypatch):
    theatre = Theatre(tmp_path / "i", 0)
    read, left = snapshot.read_manifest, [3]

    def overtaken(path):
        manifest = read(path)
        if left[0]:
            left[0] -= 1
            text = {"d0": f"version {left[0]}"}
            other = Index.open(path, theatre.encoder)
            other.update(documents_of(text))
            other.compact()
            theatre.state |= text
        return manifest

    monkeypatch.setattr(snapshot, "read_manifest", overtaken)
    assert contents(Index.open(theatre.path)) == theatre.state


def test_a_reindex_beside_a_deletion_that_compacts_loses_no_document(tmp_path, encoder):
    """12 documents, 3 of them deleted: an open index reindexes what another process compacted."""
    path = tmp_path / "i"
    Index.create(path, encoder, fakes.make_documents(12))
    stale = Index.open(path)
    stale.delete(["d0", "d1"], IndexConfig(compact_share=1.0))
    change = Index.open(path).delete(["d2", "d3"])
    assert (change.compacted, change.manifest.rows) == (True, 8)
    stale.reindex(factory="HNSW8")
    assert contents(stale).keys() == {f"d{number}" for number in range(4, 12)}
    assert contents(Index.open(path)).keys() == {f"d{number}" for number in range(4, 12)}
    assert stale.check().rows == 8
