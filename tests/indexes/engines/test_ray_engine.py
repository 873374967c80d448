"""Ray's workers write the index that this process alone would write, or none."""

import importlib
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from indexes import Index, IndexConfig
from indexes.engines.ray import RayConfig, ray_engine
from indexes.storage import staging as staging_module
from retrieval.errors import (
    FailureError,
    FingerprintError,
    ModelError,
    UsageError,
)
from tests.indexes.engines import ray_encoders

CONFIG = IndexConfig(batch_documents=5, corpus_name="corpus.jsonl")
ONE = RayConfig(workers=1, cpus_per_worker=0.5, start_seconds=240)
TWO = replace(ONE, workers=2)

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed"
)


@pytest.fixture(autouse=True)
def a_shard_for_each_chunk(monkeypatch):
    monkeypatch.setattr(staging_module, "SHARD_SECONDS", 0.0)


@pytest.fixture(scope="module")
def encoders():
    """The encoders of ray_encoders.py, with Ray running for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "token")  # Ray would set it, and leave it
        ray = importlib.import_module("ray")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(
                address="local",
                num_cpus=2,
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=100 * 2**20,
            )
        yield ray_encoders
        ray.shutdown()


def files_of(path):
    """The bytes of every document and vector file of an index."""
    parts = [*(path / "documents").iterdir(), *(path / "vectors").iterdir()]
    return {part.relative_to(path).as_posix(): part.read_bytes() for part in parts}


def index_here(encoder, documents, path):
    Index.create(path, encoder, documents, CONFIG)
    return files_of(path)


@needs_ray
def test_two_workers_write_the_same_bytes_as_this_process(tmp_path, encoders, encoder, documents):
    expected = index_here(encoder, documents, tmp_path / "here")
    # The first chunk takes 0.3 s and the others nothing, so they are ready before it.
    engine = ray_engine(encoders.Uneven, TWO)
    Index.create(tmp_path / "ray", encoder, documents, CONFIG, engine=engine)
    assert len(expected) == 10  # 25 documents, 5 a chunk: 5 shards of two files
    assert files_of(tmp_path / "ray") == expected
    assert encoder.calls == 5  # all of them in the build without Ray


@needs_ray
def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost_or_doubled(
    tmp_path, encoders, encoder, documents, capfd
):
    expected = index_here(encoder, documents, tmp_path / "here")
    (tmp_path / "flags").mkdir()
    factory = partial(encoders.Mortal, documents[12].content, tmp_path / "flags")
    Index.create(tmp_path / "ray", encoder, documents, CONFIG, engine=ray_engine(factory, TWO))
    assert len(list((tmp_path / "flags").iterdir())) == 1
    assert files_of(tmp_path / "ray") == expected
    assert capfd.readouterr().out == ""  # where Ray would write "A worker died"


@needs_ray
def test_a_chunk_that_kills_every_worker_stops_the_run_with_its_documents_named(
    tmp_path, encoders, encoder, documents
):
    (tmp_path / "flags").mkdir()
    factory = partial(encoders.Mortal, documents[12].content, tmp_path / "flags", deaths=99)
    # One chunk at a time: another that the worker had before it would die twice as well.
    engine = ray_engine(factory, replace(ONE, retries=1, chunks_in_flight=1))
    with pytest.raises(FailureError, match="5 documents from 'd10' to 'd14'.*tried 2 times"):
        Index.create(tmp_path / "ray", encoder, documents, CONFIG, engine=engine)
    assert len(list((tmp_path / "flags").iterdir())) == 2
    # The two chunks before it are kept, so a run with a better worker goes on after them.
    known = []
    Index.create(tmp_path / "ray", encoder, documents, CONFIG, resumed=known.append)
    assert known == [10]
    assert encoder.calls == 3


@needs_ray
def test_a_text_that_cannot_be_encoded_is_named(tmp_path, encoders, encoder, documents):
    engine = ray_engine(partial(encoders.Choosy, documents[17].content), ONE)
    with pytest.raises(ModelError, match="Document 'd17' cannot be .*: this text is not for me"):
        Index.create(tmp_path / "ray", encoder, documents, CONFIG, engine=engine)


@needs_ray
@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("other", FingerprintError, "another model than 'hash' here: model 'hash' against 'other'"),
        ("missing", ModelError, "cannot load 'hash': OSError: the weights are not on this node"),
    ],
)
def test_a_worker_with_another_model_or_none_stops_the_run_before_anything_is_written(
    tmp_path, encoders, encoder, documents, name, kind, message
):
    factory = {
        "other": partial(encoders.HashingEncoder, model="other"),
        "missing": encoders.missing_weights,
    }[name]
    engine = ray_engine(factory, ONE)
    with pytest.raises(kind, match=message):
        Index.create(tmp_path / "ray", encoder, documents, CONFIG, engine=engine)
    assert list((tmp_path / "ray").rglob("*.npy")) == []


@needs_ray
def test_chunks_are_read_only_as_fast_as_they_are_taken(encoders, encoder, documents):
    read = []

    def stream():
        for document in documents:
            read.append(document.doc_id)
            yield [document]

    engine = ray_engine(encoders.HashingEncoder, replace(TWO, chunks_in_flight=2))
    results = engine(encoder, stream())
    for taken in range(1, 6):
        chunk, vectors = next(results)
        assert [document.doc_id for document in chunk] == [f"d{taken - 1}"]
        assert np.array_equal(vectors, encoder.encode_documents([chunk[0].content]))
        # 2 workers x 2 chunks are out at most, beside those taken and the one just read.
        assert len(read) <= taken + 4
    results.close()


@needs_ray
def test_workers_fill_a_qdrant_in_memory(tmp_path, encoders, encoder, documents):
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
    from indexes.backends.qdrant import QdrantOptions, configured_backend

    Index.create(
        tmp_path / "q",
        encoder,
        documents,
        IndexConfig(backend="qdrant", batch_documents=5),
        store=configured_backend(QdrantOptions(memory=True)),
        engine=ray_engine(encoders.HashingEncoder, ONE),
    )
    index = Index.open(tmp_path / "q")
    assert len(index) == 25
    for document in documents:
        hit = index.search(encoder.encode_queries([document.content]), 1)[0][0]
        assert hit.doc_id == document.doc_id


SCRIPT = """
import os
import sys
import time
from functools import partial
from pathlib import Path
import indexes.storage.staging
from indexes import Index, IndexConfig
from indexes.engines.ray import RayConfig, ray_engine
from tests.indexes.fakes import HashingEncoder, make_documents
from tests.indexes.engines.ray_encoders import Counting

path, folder, address = sys.argv[1:]
indexes.storage.staging.SHARD_SECONDS = 0.0
documents = make_documents(25)

def stream():
    yield from documents[:15]
    if address:
        while not list(Path(path).glob(".building/done/*.json")):
            time.sleep(0.01)
        print("written", flush=True)
        time.sleep(600)
    yield from documents[15:]

layout = RayConfig(
    address=address or None,
    workers=1,
    cpus_per_worker=0.5,
    chunks_in_flight=1,
    start_seconds=240,
)
engine = ray_engine(partial(Counting, folder), layout)
config = IndexConfig(batch_documents=5, corpus_name="corpus.jsonl")
Index.create(path, HashingEncoder(), stream(), config, engine=engine)
import ray
mode = os.environ["RAY_AUTH_MODE"]  # for Ray's sake: strangers could run code in it
reports = "RAY_USAGE_STATS_ENABLED" in os.environ
print(ray.is_initialized(), mode, reports, flush=True)
"""


def start_build(path, address=""):
    """Index in another process, on a running Ray or on its own; leaves a file for each chunk."""
    folder = path.with_suffix(".calls")
    folder.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    token = {"RAY_AUTH_MODE": "token"} if address else {}  # what Ray asks of who joins
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(path), str(folder), address],
        env={**clean, **token},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@needs_ray
@pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL")
def test_a_build_whose_driver_was_killed_goes_on_where_it_stopped(
    tmp_path, encoders, encoder, documents
):
    address = importlib.import_module("ray").get_runtime_context().gcs_address
    with start_build(tmp_path / "ray", address) as build:
        assert build.stdout.readline() == "written\n", build.communicate()
        build.kill()
    assert build.returncode == -signal.SIGKILL
    known = []
    engine = ray_engine(encoders.HashingEncoder, ONE)
    Index.create(tmp_path / "ray", encoder, documents, CONFIG, engine=engine, resumed=known.append)
    # One chunk was out and one read; the first, or two, had come back.
    assert known in ([5], [10])
    assert files_of(tmp_path / "ray") == index_here(encoder, documents, tmp_path / "here")


@pytest.fixture
def listens_to_ctrl_c():
    """A process that was started in the background ignores SIGINT, and so would its test."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@needs_ray
@pytest.mark.usefixtures("listens_to_ctrl_c")
def test_ctrl_c_ends_the_workers_and_keeps_what_is_written(
    tmp_path, encoders, encoder, documents, monkeypatch
):
    ray = importlib.import_module("ray")
    started = []
    kill = ray.kill
    monkeypatch.setattr(ray, "kill", lambda actor: (started.append(actor), kill(actor)))
    finished = []

    def interrupt(rows):
        finished.append(rows)
        threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()

    # The second chunk takes ten minutes, so Ctrl-C meets the engine waiting for a worker.
    factory = partial(encoders.Stalled, documents[5].content, tmp_path / "finished")
    config = replace(ONE, chunks_in_flight=1)
    with pytest.raises(KeyboardInterrupt) as caught:
        Index.create(
            tmp_path / "ray",
            encoder,
            documents,
            CONFIG,
            engine=ray_engine(factory, config),
            progress=interrupt,
        )
    del caught  # its traceback holds the engine
    assert not (tmp_path / "finished").exists()
    assert (finished, len(started)) == ([5], 1)
    known = []
    Index.create(tmp_path / "ray", encoder, documents, CONFIG, resumed=known.append)
    assert known == [5]


@needs_ray
def test_a_ray_that_was_started_for_the_build_is_ended_after_it_in_silence(
    tmp_path, encoder, documents
):
    with start_build(tmp_path / "ray") as build:
        stdout, stderr = build.communicate(timeout=300)
    assert (stdout, stderr, build.returncode) == ("False token False\n", "", 0)
    assert len(list((tmp_path / "ray.calls").iterdir())) == 5
    assert files_of(tmp_path / "ray") == index_here(encoder, documents, tmp_path / "here")


@needs_ray
def test_a_cluster_that_does_not_answer_is_named(encoder, documents, monkeypatch):
    ray = importlib.import_module("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def refuse(**_):
        raise ConnectionError("Failed to connect to Ray cluster at node7:6379")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # other tests need theirs
    engine = ray_engine(encoder, RayConfig(address="node7:6379"))
    with pytest.raises(FailureError, match="cannot be reached: .* running at node7:6379, with"):
        next(engine(encoder, iter([documents])))


@needs_ray
def test_more_workers_than_this_machine_can_hold_are_refused(
    tmp_path, encoders, encoder, documents
):
    engine = ray_engine(encoders.HashingEncoder, RayConfig(workers=3))
    with pytest.raises(UsageError, match="3 workers of 1 CPUs each need 3; this machine has 2"):
        Index.create(tmp_path / "ray", encoder, documents, CONFIG, engine=engine)
