"""Results and caches in every state of damage: read, or refused in one line."""

import json
import math

import pytest

from benchmarks.scoring.cache import Work, _read_work
from benchmarks.scoring.remembered import Remembered
from benchmarks.scoring.results import (
    QueryHits,
    Result,
    TopHit,
    read_hits,
    read_result,
    read_results,
    result_path,
    write_result,
)
from retrieval import Fingerprint
from retrieval.errors import MillpondError, RecordError
from tests.stored_files import survive


@pytest.fixture
def result():
    return Result(
        model="m",
        task="t",
        task_type="retrieval",
        main_metric="ndcg@10",
        metrics={"ndcg@10": 0.5, "map": math.nan},
        item_ids=["q1", "q2"],
        items={"ndcg@10": [0.5, math.nan]},
        fingerprint=Fingerprint("m", {"weights": "abc"}),
        data={"sha256": {"corpus": "0"}, "documents": 2},
        settings={"k": 10},
        run_digest="d",
        costs={"seconds": 1.0},
        versions={"torch": "2"},
        notes=["a note."],
        created="2026-01-01",
    )


def test_a_result_is_read_or_refused(result, tmp_path):
    path = write_result(tmp_path, result)
    assert survive(path, lambda: read_result(path), MillpondError) == []


def test_the_hits_of_a_result_are_read_or_refused(result, tmp_path):
    hits = [QueryHits("q1", "what", [TopHit("d", 0.5, 1, "title", "text")])]
    write_result(tmp_path, result, hits)
    path = result_path(tmp_path, "m", "t").with_suffix(".hits.jsonl")
    assert survive(path, lambda: list(read_hits(tmp_path, "m", "t")), MillpondError) == []
    assert list(read_hits(tmp_path, "m", "t")) == [
        QueryHits("q1", "what", [TopHit("d", 0.5, 1, "title", "text")])
    ]


def test_a_cache_counts_as_absent_where_it_is_damaged(tmp_path):
    path = tmp_path / "work.json"
    path.write_text(json.dumps(vars(Work(3, 1.0, 2.0, 4))))
    assert survive(path, lambda: _read_work(path), ()) == []
    path.write_text(json.dumps(vars(Work(3, 1.0, 2.0, 4)) | {"seconds": "long"}))
    assert _read_work(path) is None


def test_what_is_remembered_of_models_is_used_or_forgotten(tmp_path):
    now = Remembered(tmp_path)._now()
    path = tmp_path / "models.json"
    entry = {
        "circumstances": now,
        "sources": [str(tmp_path)],
        "stamp": [],
        "fingerprint": Fingerprint("m", {"weights": "abc"}).to_json(),
    }
    path.write_text(json.dumps({"m": entry}))
    (tmp_path / "files.json").write_text("{}")
    assert survive(path, lambda: Remembered(tmp_path).find_fingerprint("m"), ()) == []


@pytest.mark.parametrize("content", ["{}", '{"format": 1, "documents": 3}'])
def test_a_file_of_another_program_is_left_alone(tmp_path, content):
    (tmp_path / "my-index").mkdir()
    (tmp_path / "my-index" / "manifest.json").write_text(content)
    with pytest.raises(RecordError, match="it is no result of 'millpond bench'") as caught:
        read_results(tmp_path)
    assert "Delete" not in str(caught.value)
