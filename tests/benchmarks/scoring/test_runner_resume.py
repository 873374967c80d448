"""A benchmark that is killed goes on run by run, and a finished one imports no torch."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from benchmarks.scoring.results import read_results
from tests.benchmarks import fakes

for module in ("sklearn", "scipy", "faiss"):
    pytest.importorskip(module, reason="the bench extra is not installed")

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL")


# Imports once what a run needs, then forks a child for each line: [data, out, log, die_at].
SCRIPT = """
import json, os, sys, traceback
from pathlib import Path
import faiss, scipy.stats, sklearn.cluster, sklearn.linear_model
from benchmarks import BenchConfig, run_benchmark
from tests.benchmarks.fakes import Models, WordEncoder

def run(data, out, log, die_at):
    load = Models(lambda name: WordEncoder(name, log, die_at))
    run_benchmark(BenchConfig(models=["one"], tasks=[data], out=Path(out)), load=load)
    assert "torch" not in sys.modules

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            run(*json.loads(line))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def runner():
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def run(runner, tmp_path):
    """Run every task type in a child; returns its exit code and the encoder calls it finished."""
    data, log = fakes.write_all(tmp_path / "data"), tmp_path / "calls"

    def start(die_at=0):
        log.write_text("")
        arguments = [str(data), str(tmp_path / "out"), str(log), die_at]
        runner.stdin.write(json.dumps(arguments) + "\n")
        runner.stdin.flush()
        code = int(runner.stdout.readline())
        assert code in (0, -signal.SIGKILL)
        return code, log.read_text().splitlines()

    return start


UNBROKEN = [
    "document 3",  # the corpus of ponds
    "query 2",
    *["query 1"] * 3,  # latency: one to warm up, then each query alone
    "query 18",  # the drawn training texts, all of them drawn at some time
    "query 2",  # the test texts
    "query 40",  # the clusters
    "query 6",  # the pairs
]


def test_an_unbroken_run_embeds_every_text_list_once(run):
    assert run() == (0, UNBROKEN)
    assert run() == (0, [])


@pytest.mark.parametrize("die_at", [1, 2, 6, 7, 9])
def test_a_killed_run_goes_on_with_the_runs_and_vectors_it_lacks(run, tmp_path, die_at):
    code, before = run(die_at)
    assert code == -signal.SIGKILL
    assert before == UNBROKEN[: die_at - 1]
    code, after = run()
    assert code == 0
    # What an earlier run kept is not embedded again; latency is measured with its own run.
    kept = [call for call in before if call != "query 1"]
    unfinished = [call for call in UNBROKEN if call != "query 1"]
    assert Counter(call for call in after if call != "query 1") == Counter(unfinished) - Counter(
        kept
    )
    assert after.count("query 1") == (0 if die_at > 5 else 3)
    assert len(read_results(tmp_path / "out")) == 4
    assert run() == (0, [])
