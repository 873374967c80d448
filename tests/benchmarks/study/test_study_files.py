"""The files of a study folder in every state of damage: read, or refused in one line."""

import json

import pytest

from benchmarks.study.runs import RunRecord, StudyFolder, list_runs
from retrieval.errors import MillpondError
from tests.stored_files import survive


@pytest.fixture
def study(study_config, tmp_path):
    config = study_config()
    return StudyFolder(tmp_path / "study"), list_runs(config)[0]


TRAINING = {"seconds": 1.5, "tokens": 3, "curve": [[1, 2.0], [2, 1.0]]}
ANALYSIS = {
    "correlation": [[1.0, 0.5], [0.5, 1.0]],
    "flops": 7,
    "reading": {"layers": [1, 2], "shares": [0.5, 0.5]},
    "attention": {"keys": 1.0, "change": 0.1, "idle": 3},
}


def test_the_files_of_a_study_are_read_or_refused(study):
    folder, run = study
    folder.write_record(run, RunRecord("done", training=TRAINING, analysis=ANALYSIS))
    folder.write_training(run, TRAINING)
    folder.write_base(run, {"correlation": ANALYSIS["correlation"]})
    now = {"config": {"seeds": [0]}, "data": [{"sha256": "a"}], "tasks": {}}
    home = folder.path / "runs" / run.folder_name
    for path, read in (
        (home / "run.json", lambda: folder.read_record(run)),
        (home / "training.json", lambda: folder.read_training(run)),
        (folder.base_path(run), lambda: folder.read_base(run)),
    ):
        assert survive(path, read, MillpondError) == []
    assert folder.read_record(run).analysis == ANALYSIS
    assert folder.read_training(run) == TRAINING
    (folder.path / "study.json").write_text(json.dumps({"millpond_study": 1, **now}))
    path = folder.path / "study.json"
    assert survive(path, lambda: folder.check(now), MillpondError) == []
