"""A base named by its hub id, against a hub that a thread of this process plays."""

import json
import socket
import subprocess
import sys

import pytest
import torch

from benchmarks.lab.layouts.encoders import write_layout
from embedder import load_encoder
from tests.embedder import stand_ins

FIRST, SECOND, PICKLED, ENCODER = (letter * 40 for letter in "abcd")

# The hub's address and cache are read when huggingface_hub is imported, hence a process of its own.
SCRIPT = """
import json, sys, time, warnings
waits = []
time.sleep = waits.append  # what the libraries would wait between attempts
warnings.simplefilter("error", ResourceWarning)
from embedder import load_encoder
for line in sys.stdin:
    notes = []
    waits.clear()
    found = {"weights": None, "vector": None, "error": None, "message": ""}
    try:
        loaded = load_encoder(line.strip(), "cpu", notify=notes.append)
    except Exception as error:
        found |= {"error": type(error).__name__, "message": str(error)}
    else:
        found["weights"] = loaded.fingerprint.settings["weights"]
        found["vector"] = loaded.encode_queries(["the thing"])[0].tolist()
    found |= {"notes": notes, "waited_seconds": sum(waits)}
    print(json.dumps(found), flush=True)
"""


class Child:
    """A Python of its own that loads the models it is told to."""

    def __init__(self, endpoint, folder, errors):
        environment = stand_ins.python_environment(
            folder / "cache", HF_ENDPOINT=endpoint, HF_HOME=str(folder / "hf")
        )
        self.errors = errors
        with errors.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )

    def load(self, model):
        """Return what came of it, and what the libraries wrote on stderr meanwhile."""
        before = self.errors.stat().st_size
        self.process.stdin.write(f"{model}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.errors.read_text()
        return json.loads(line) | {"stderr": self.errors.read_text()[before:]}

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        assert self.process.wait(120) == 0, self.errors.read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def hub(folder):
    for seed, name in enumerate(["main", "v2", "pickled"]):
        stand_ins.write_model_folder(folder / name, seed=seed)
    torch.save({}, folder / "pickled" / "pytorch_model.bin")
    (folder / "pickled" / "model.safetensors").unlink()
    served = stand_ins.HubStandIn(
        {
            "acme/tiny": {"main": (FIRST, folder / "main"), "v2": (SECOND, folder / "v2")},
            "acme/pickled": {"main": (PICKLED, folder / "pickled")},
            "acme/encoder": {"main": (ENCODER, write_layout("bge-small", folder / "encoder"))},
        }
    )
    yield served
    served.close()


@pytest.fixture(scope="module")
def children(hub, folder):
    """One child that reaches the hub, and one whose hub is a port that nothing listens on."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    pair = (
        Child(hub.endpoint, folder, folder / "online.txt"),
        Child(f"http://127.0.0.1:{port}", folder, folder / "offline.txt"),
    )
    yield pair
    for child in pair:
        child.close()


@pytest.fixture(scope="module")
def online(children):
    return children[0]


@pytest.fixture(scope="module")
def offline(children):
    return children[1]


def assert_one_clear_line(outcome, *words):
    assert outcome["error"] == "ModelError"
    assert "\n" not in outcome["message"]
    assert [word for word in words if word not in outcome["message"]] == []
    assert outcome["stderr"] == ""


@pytest.fixture(scope="module")
def default_branch(online):
    return online.load("acme/tiny:mean+causal")


def test_a_hub_id_loads_and_its_fingerprint_names_the_commit(default_branch):
    assert default_branch["error"] is None, default_branch["message"]
    assert default_branch["weights"] == FIRST
    assert len(default_branch["vector"]) == stand_ins.WIDTH
    assert default_branch["stderr"] == ""


def test_a_hub_base_gives_the_vectors_of_its_files(default_branch, folder, tmp_path, monkeypatch):
    from embedder import Embedder

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = Embedder.load(f"{folder / 'main'}:mean+causal", device="cpu")
    assert here.encode_queries(["the thing"])[0].tolist() == pytest.approx(
        default_branch["vector"], abs=1e-5
    )


def test_a_revision_is_asked_for_and_named(hub, online, default_branch):
    start = len(hub.requests)
    found = online.load("acme/tiny@v2:mean+causal")
    assert found["error"] is None, found["message"]
    assert found["weights"] == SECOND
    assert found["vector"] != default_branch["vector"]
    files = [path.split("/") for _, path in hub.requests[start:] if "/resolve/" in path]
    assert {parts[3] for parts in files} <= {"v2", SECOND}
    assert ["acme", "tiny", "resolve", "v2", "config.json"] in files


def test_all_files_come_from_the_commit_of_the_configuration(hub, default_branch):
    """A branch that moves between two files must not mix two commits under one fingerprint."""
    branch = {path for _, path in hub.requests if path.startswith("acme/tiny/resolve/main/")}
    assert branch == {"acme/tiny/resolve/main/config.json"}


def test_an_unknown_repository_is_one_line_about_the_hub(online):
    found = online.load("acme/nothing:mean+causal")
    assert_one_clear_line(found, "acme/nothing", "model hub", "millpond models")


def test_an_unknown_revision_is_one_line_about_the_hub(online):
    assert_one_clear_line(online.load("acme/tiny@v9:mean+causal"), "v9", "model hub")


@pytest.mark.parametrize("revision", ["", "@main"])
def test_pickled_weights_are_refused_and_never_fetched(hub, online, revision):
    start = len(hub.requests)
    found = online.load(f"acme/pickled{revision}:mean+causal")
    assert_one_clear_line(found, "acme/pickled", "safetensors")
    asked = hub.requests[start:]
    assert [path for _, path in asked if path.endswith(".bin")] == []
    # transformers can ask a bot for a pull request with converted weights, and load that.
    assert [path for method, path in asked if method == "POST" or "/commits/" in path] == []


@pytest.mark.parametrize("model", ["acme/other:mean+causal", "acme/plain", "st:acme/library"])
def test_a_refused_connection_is_one_line_after_two_attempts(offline, model):
    found = offline.load(model)
    name = model.removeprefix("st:").partition(":")[0]
    assert_one_clear_line(found, name, "model hub", "127.0.0.1", "cannot be reached", "network")
    assert found["waited_seconds"] == 1


def test_what_was_fetched_once_loads_without_the_hub(offline, default_branch):
    found = offline.load("acme/tiny:mean+causal")
    assert found["error"] is None, found["message"]
    assert (found["weights"], found["vector"]) == (FIRST, default_branch["vector"])


def test_an_encoder_comes_through_sentence_transformers_of_one_commit(hub, online, folder):
    start = len(hub.requests)
    found = online.load("acme/encoder")
    assert found["error"] is None, found["message"]
    assert found["notes"][-1] == (
        "Loading acme/encoder with sentence-transformers: it is an encoder (bert)"
    )
    here = load_encoder(str(folder / "encoder"), "cpu")
    assert found["vector"] == pytest.approx(here.encode_queries(["the thing"])[0], abs=1e-5)
    assert found["weights"] == here.fingerprint.settings["weights"]
    assert found["stderr"] == ""
    asked = {path for _, path in hub.requests[start:] if "/resolve/main/" in path}
    assert asked == {"acme/encoder/resolve/main/config.json"}
    assert online.load("st:acme/encoder")["weights"] == found["weights"]
    assert_one_clear_line(online.load("st:acme/nothing"), "acme/nothing", "model hub")


def test_an_encoder_fetched_once_loads_without_the_hub(online, offline):
    fetched = online.load("acme/encoder")
    found = offline.load("st:acme/encoder")
    assert found["error"] is None, found["message"]
    assert found["vector"] == fetched["vector"]
