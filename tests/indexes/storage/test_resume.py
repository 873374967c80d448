"""A build that was broken off goes on from its last finished shard, or says why it cannot."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from indexes import Index, IndexConfig
from indexes.storage import staging as staging_module
from retrieval import Document
from retrieval.errors import DuplicateIdError, UsageError, VectorError
from tests.indexes import fakes

CONFIG = IndexConfig(batch_documents=5, corpus_name="corpus.jsonl")


@pytest.fixture(autouse=True)
def a_shard_for_each_chunk(monkeypatch):
    monkeypatch.setattr(staging_module, "SHARD_SECONDS", 0.0)


class StopError(Exception):
    """Ends a build from outside."""


def break_off(encoder, documents, path, after, config=CONFIG):
    """Index until so many documents have been read."""

    def stream():
        for number, document in enumerate(documents):
            if number == after:
                raise StopError
            yield document

    with pytest.raises(StopError):
        Index.create(path, encoder, stream(), config)


def contents(path):
    """Ids in order, and the bytes of all vectors."""
    index = Index.open(path)
    ids = [doc_id for batch in index.snapshot.documents.iterate_ids() for doc_id in batch]
    parts = [np.load(part) for part in sorted((path / "vectors").glob("*.npy"))]
    return ids, np.concatenate(parts).tobytes()


def test_a_broken_build_goes_on_with_the_same_chunks(tmp_path, documents):
    whole = fakes.HashingEncoder()
    Index.create(tmp_path / "whole", whole, documents, CONFIG)
    break_off(fakes.HashingEncoder(), documents, tmp_path / "i", 13)  # 2 shards of 5
    encoder, known, finished = fakes.HashingEncoder(), [], []
    Index.create(
        tmp_path / "i", encoder, documents, CONFIG, resumed=known.append, progress=finished.append
    )
    assert known == [10]
    assert finished == [5, 5, 5, 5, 5]
    assert (whole.calls, encoder.calls) == (5, 3)
    assert contents(tmp_path / "i") == contents(tmp_path / "whole")
    assert not (tmp_path / "i" / ".building").exists()


def test_a_published_index_is_read_while_the_next_one_is_half_done(tmp_path, encoder, documents):
    Index.create(tmp_path / "i", encoder, documents, CONFIG)
    newer = [Document(f"n{n}", f"new {n}") for n in range(20)]
    again = IndexConfig(batch_documents=5, corpus_name="newer.jsonl", overwrite=True)
    break_off(encoder, newer, tmp_path / "i", 12, again)
    assert Index.open(tmp_path / "i").check().documents == 25
    Index.create(tmp_path / "i", encoder, newer, again)
    assert Index.open(tmp_path / "i").check().documents == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corpus_name": "other.jsonl"}, "corpus was 'corpus.jsonl' and is 'other.jsonl'"),
        ({"batch_documents": 6}, "batch_documents was 5 and is 6"),
        ({"reading": {"limit": 9}}, "limit was None and is 9"),
    ],
)
def test_another_option_is_refused_and_named(tmp_path, encoder, documents, change, message):
    break_off(encoder, documents, tmp_path / "i", 13)
    settings = {"batch_documents": 5, "corpus_name": "corpus.jsonl", **change}
    with pytest.raises(UsageError, match=message):
        Index.create(tmp_path / "i", encoder, documents, IndexConfig(**settings))
    Index.create(tmp_path / "i", encoder, documents, CONFIG)  # the shards were left alone
    assert Index.open(tmp_path / "i").check().documents == 25


def test_another_model_of_the_same_dimension_is_refused(tmp_path, encoder, documents):
    break_off(encoder, documents, tmp_path / "i", 13)
    with pytest.raises(UsageError, match=r"model was 'hash' and is 'other'.*--restart"):
        Index.create(tmp_path / "i", fakes.HashingEncoder(model="other"), documents, CONFIG)


@pytest.mark.parametrize("change", ["text", "title", "doc_id", "metadata", "order", "fewer"])
def test_a_changed_corpus_is_refused_with_the_documents_that_changed(
    tmp_path, encoder, documents, change
):
    break_off(encoder, documents, tmp_path / "i", 13)
    changed = list(documents)
    old = changed[7]
    if change == "order":
        changed[7], changed[8] = changed[8], changed[7]
    elif change == "fewer":
        changed = changed[:7]
    else:
        parts = {"doc_id": old.doc_id, "text": old.text, "title": old.title}
        new = {**parts, "metadata": {"n": -1}} if change == "metadata" else {**parts, change: "x"}
        changed[7] = Document(**new)
    with pytest.raises(UsageError, match=r"corpus.jsonl has changed .* documents 6 to 10 are"):
        Index.create(tmp_path / "i", encoder, changed, CONFIG)
    calls = encoder.calls
    Index.create(tmp_path / "i", encoder, documents, CONFIG)
    assert encoder.calls == calls + 3


def test_restart_embeds_everything_again(tmp_path, encoder, documents):
    break_off(encoder, documents, tmp_path / "i", 13)
    other = fakes.HashingEncoder(model="other")
    config = IndexConfig(batch_documents=5, corpus_name="corpus.jsonl", restart=True)
    Index.create(tmp_path / "i", other, documents, config)
    assert other.calls == 5
    assert Index.open(tmp_path / "i").fingerprint.model == "other"


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "record"])
def test_a_damaged_shard_and_what_follows_it_is_embedded_again(
    tmp_path, encoder, documents, damage
):
    whole = tmp_path / "whole"
    Index.create(whole, encoder, documents, CONFIG)
    break_off(encoder, documents, tmp_path / "i", 18)  # shards 0, 1 and 2
    staging = tmp_path / "i" / ".building"
    target = staging / "vectors" / "00001.npy"
    if damage == "truncate":
        os.truncate(target, 150)
    elif damage == "flip":
        content = bytearray(target.read_bytes())
        content[-3] ^= 1
        target.write_bytes(content)
    elif damage == "delete":
        (staging / "documents" / "00001.arrow").unlink()
    else:
        (staging / "done" / "00001.json").write_text("{")
    resumed = fakes.HashingEncoder()
    Index.create(tmp_path / "i", resumed, documents, CONFIG)
    assert resumed.calls == 4  # all but shard 0
    assert contents(tmp_path / "i") == contents(whole)


def test_an_error_of_the_encoder_keeps_what_came_before(tmp_path, documents):
    encoder = fakes.HashingEncoder()
    encode = encoder.encode_documents

    def spoiled(texts):
        vectors = encode(texts)
        if encoder.calls == 4:
            vectors[0, 0] = np.nan
        return vectors

    encoder.encode_documents = spoiled
    with pytest.raises(VectorError, match="'d15'"):
        Index.create(tmp_path / "i", encoder, documents, CONFIG)
    known = []
    Index.create(tmp_path / "i", fakes.HashingEncoder(), documents, CONFIG, resumed=known.append)
    assert known == [15]


def test_a_corpus_with_a_repeated_id_leaves_nothing_to_go_on_from(tmp_path, encoder, documents):
    with pytest.raises(DuplicateIdError):
        Index.create(tmp_path / "i", encoder, [*documents, documents[0]], CONFIG)
    assert not (tmp_path / "i").exists()


FIFTY_KILLS = """
import json, os, random, sys
from pathlib import Path
import indexes.storage.staging
from indexes import Index, IndexConfig
from tests.indexes.fakes import HashingEncoder, make_documents
from benchmarks.lab.attack.common import Moments

folder, seed = Path(sys.argv[1]), int(sys.argv[2])
chance = random.Random(seed)
indexes.storage.staging.SHARD_SECONDS = 0.0
documents = make_documents(60)
config = IndexConfig(batch_documents=3)

def write(path, moments):
    encoder = HashingEncoder()
    moments.watch()
    Index.create(path, encoder, documents, config)
    moments.end()
    return moments.counts

write(folder / "first", Moments())  # which imports what a write needs
counts = write(folder / "counted", Moments())

killed = taken_up = 0
for run in range(50):
    path, files_only = folder / str(run), run % 2 == 0
    moments = Moments(chance.randint(1, counts[files_only]), files_only)
    child = os.fork()
    if child == 0:
        write(path, moments)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed += os.WIFSIGNALED(status)
    if not (path / "manifest.json").exists():
        known = []
        Index.create(path, HashingEncoder(), documents, config, resumed=known.append)
        taken_up += bool(known)
    Index.open(path).check()
print(json.dumps({"killed": killed, "taken_up": taken_up}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_fifty_kills_at_random_moments_lose_and_double_nothing(tmp_path, seed):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FIFTY_KILLS, str(tmp_path), str(seed)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    counts = json.loads(done.stdout)
    assert counts["killed"] >= 45, f"seed {seed}: {counts}"
    assert counts["taken_up"] >= 5, f"seed {seed}: {counts}"
    config = IndexConfig(batch_documents=3)
    Index.create(tmp_path / "whole", fakes.HashingEncoder(), fakes.make_documents(60), config)
    expected = contents(tmp_path / "whole")
    for run in range(50):
        assert contents(tmp_path / str(run)) == expected, f"seed {seed}, run {run}"
