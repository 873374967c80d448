"""The parts of the Ray engine that need no Ray: its layout, its worker, its messages."""

import os
import pickle
import sys

import pytest

from indexes.engines.ray import RayConfig, ray_engine
from indexes.engines.ray import session as session_module
from indexes.engines.ray.engine import Refusal, Worker
from retrieval import Fingerprint
from retrieval.errors import MissingDependencyError, UsageError
from tests.indexes import fakes


def test_without_ray_the_engine_says_what_to_type(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'millpond\[ray\]'"):
        ray_engine(fakes.HashingEncoder)


def test_a_ray_of_ours_reports_its_use_to_nobody_unless_told_to(monkeypatch):
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)
    with session_module._without_usage_report():
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert "RAY_USAGE_STATS_ENABLED" not in os.environ
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    with session_module._without_usage_report():
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "1"


@pytest.mark.parametrize(
    ("config", "resources", "expected"),
    [
        (RayConfig(), {"CPU": 8.0}, (8, 0.0)),
        (RayConfig(cpus_per_worker=3), {"CPU": 8.0}, (2, 0.0)),  # 8 // 3
        (RayConfig(), {"CPU": 8.0, "GPU": 4.0}, (4, 1.0)),
        (RayConfig(), {"CPU": 2.0, "GPU": 4.0}, (2, 1.0)),  # a worker needs a CPU, too
        (RayConfig(gpus_per_worker=0.5), {"CPU": 64.0, "GPU": 4.0}, (8, 0.5)),  # 4 / 0.5
        (RayConfig(gpus_per_worker=0), {"CPU": 8.0, "GPU": 4.0}, (8, 0.0)),
        (RayConfig(workers=5), {"CPU": 1.0}, (5, 0.0)),
    ],
)
def test_there_are_as_many_workers_as_the_cluster_holds(config, resources, expected):
    assert config.count_workers(resources) == expected


def test_a_cluster_without_room_for_one_worker_is_refused():
    with pytest.raises(UsageError, match="has 2 CPUs and 0 GPUs; a worker asks for 1 and 1"):
        RayConfig(gpus_per_worker=1).count_workers({"CPU": 2.0})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is 0; it must be 1 or more"),
        ({"retries": -1}, "retries is -1; it must be 0 or more"),
        ({"cpus_per_worker": float("nan")}, "cpus_per_worker is nan"),
        ({"start_seconds": 0}, "start_seconds is 0; it must be above 0"),
        ({"address": " "}, "address is empty"),
    ],
)
def test_impossible_numbers_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        RayConfig(**options)


def test_a_worker_that_is_another_model_never_returns_vectors():
    worker = Worker(fakes.HashingEncoder, Fingerprint("hash", {"model": "hash", "dimension": 8}))
    assert worker.introduce().reason == "dimension 8 against 16"
    assert isinstance(worker.encode(["a"]), Refusal)


def test_a_batch_that_fails_though_each_text_succeeds_blames_none_alone():
    class Small(fakes.HashingEncoder):
        def encode_documents(self, texts):
            if len(texts) > 2:
                raise MemoryError("too many")
            return super().encode_documents(texts)

    refusal = Worker(Small, Small().fingerprint).encode(["a", "b", "c"])
    assert (refusal.kind, refusal.row, refusal.reason) == ("text", None, "MemoryError: too many")
    assert pickle.loads(pickle.dumps(refusal)) == refusal


def test_a_message_of_rays_is_cut_to_its_first_and_last_line():
    error = RuntimeError("The actor died.\n\tclass_name: Worker\n\nNo module named 'indexes'\n")
    assert session_module.say(error) == "The actor died. ... No module named 'indexes'"
    assert session_module.say(RuntimeError()) == "RuntimeError"
