"""Four tiny tasks and a study of them that is run once for all tests."""

import json

import pytest

from benchmarks.study.config import read_study
from tests.benchmarks import fakes

WORDS = ("mill", "pond", "water", "wheel", "flour", "grain", "stone", "river", "race", "weir")


@pytest.fixture(scope="session")
def study_data(tmp_path_factory):
    """A folder with pairs.jsonl and tasks/, one of each task type."""
    folder = tmp_path_factory.mktemp("study-data")
    fakes.write_all(folder / "tasks")
    rows = [
        {"query": f"what of {WORDS[i % 10]} {i}", "positive": f"{WORDS[(i + 3) % 10]} {i}"}
        for i in range(12)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="session")
def study_plan(tiny_base, study_data):
    """Return the data of a tiny study, its top keys changed."""

    def build(**changes):
        return {
            "seeds": [0, 1],
            "sample_texts": 4,
            "resamples": 200,
            "bootstrap_resamples": 200,
            "tasks": ["tasks"],
            "bases": [{"base": str(tiny_base), "name": "tiny", "base_layers": 4, "max_tokens": 24}],
            "variants": [{"name": "model1"}, {"name": "model5"}],
            "pooling": {"latents": 3, "head_width": 8},
            "train": {
                "data": [{"path": "pairs.jsonl"}],
                "batch_pairs": 4,
                "steps": 2,
                "log_every_steps": 1,
                "optimiser": {"learning_rate": 1e-3},
                "adapter": {"rank": 2, "alpha": 4},
                "checkpoint": {"every_steps": 1},
            },
            **changes,
        }

    return build


@pytest.fixture(scope="session")
def study_config(study_plan, study_data):
    return lambda **changes: read_study(study_plan(**changes), study_data)
