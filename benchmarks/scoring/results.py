"""What one model scored on one task, and the folder that keeps such results.

A results folder holds one JSON file for each model and task, and beside the file of a retrieval
task the hits that its scores come from::

    RESULTS/
      <model>-<digest>/
        <task>.json          a ``Result``
        <task>.hits.jsonl    a ``QueryHits`` a line
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from retrieval import Fingerprint
from retrieval.disk import make_folder, replace_file
from retrieval.errors import RecordError, SourceNotFoundError, StorageError, UsageError
from retrieval.typed import load_json, read_stored

FORMAT = 1

BEIR_PARTS = ("cqadupstack", "CQADupstackRetrieval")
"""Sets of several parts, scored one by one and averaged, each weighing the same."""

TASK_TYPES = (
    "retrieval",
    "reranking",
    "sts",
    "pair_classification",
    "classification",
    "multilabel_classification",
    "clustering",
    "bitext_mining",
    "summarization",
    "other",
)
"""Files are retrieval, sts, classification or clustering; the others are mteb's or imported."""


@dataclass(frozen=True)
class Result:
    """The scores of one model on one task. Scores go from 0 to 1, correlations from -1.

    Attributes
    ----------
    model : the name that was typed, such as "bm25" or "smollm2-135m:mean+causal".
    task : the task's name, such as "scifact".
    task_type : one of ``TASK_TYPES``.
    main_metric : the key of ``metrics`` that is reported first.
    metrics : over the whole task; NaN where a score is undefined (see ``notes``).
    item_ids : what was scored one by one: query ids, or numbers from 0 of pairs, texts or splits.
    items : metric to one value per item, in the order of ``item_ids``. An STS task has
        "cosine" and "gold" instead, since Spearman's correlation has no value for one pair.
    draws : of classification, metric to one value per draw of training examples, each the mean over
        all test texts; the items are means over the draws. Empty in results of millpond 0.1, whose
        items are the draws.
    fingerprint : of the model; equal digests are the same model under any name.
    data : what was scored on: "sha256" of everything that decides the scores, and counts; of mteb's
        tasks also "revision", "split" and "subsets".
    settings : how: backend, factory, k, protocol version, ...
    run_digest : digest of fingerprint, data and settings; a result is up to date while it is equal.
    costs : "seconds", "tokens_per_second", "query_p50_seconds", "query_p95_seconds",
        "peak_memory_bytes", "index_bytes", "parameters", "pooling_flops", those that apply.
    versions : of the libraries that took part.
    notes : one sentence each on what a reader has to know, such as queries left out.
    created : UTC, ISO 8601.
    recipe : what ``bench`` was asked for: "model", "task", "split", "k", "backend", "factory",
        "speed", "device", "skip_bad", "trust_remote_code", "instruction". Prompts, longest input,
        normalisation and the like are in ``fingerprint.settings``.
    source : where an imported result comes from: "format", "file", "model_revision",
        "dataset_revision", "split", what of these is known; empty for one that ``bench`` made.
    """

    model: str
    task: str
    task_type: str
    main_metric: str
    metrics: Mapping[str, float]
    item_ids: Sequence[str]
    items: Mapping[str, Sequence[float]]
    fingerprint: Fingerprint
    data: Mapping[str, Any]
    settings: Mapping[str, Any]
    run_digest: str
    costs: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    created: str = ""
    draws: Mapping[str, Sequence[float]] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise ValueError if the parts do not belong together."""
        if self.task_type not in TASK_TYPES:
            raise ValueError(f"task type is {self.task_type!r}; expected {', '.join(TASK_TYPES)}")
        if self.main_metric not in self.metrics:
            raise ValueError(f"metrics has no {self.main_metric!r}, the main metric")
        for name, values in self.items.items():
            if len(values) != len(self.item_ids):
                raise ValueError(
                    f"items[{name!r}] has {len(values)} values for {len(self.item_ids)} items"
                )

    @property
    def main_score(self) -> float:
        """The value of the main metric; NaN where it is undefined."""
        return self.metrics[self.main_metric]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary that ``from_json`` reads; NaN becomes null."""
        data = {name: getattr(self, name) for name in self.__dataclass_fields__}
        data["fingerprint"] = self.fingerprint.to_json()
        plain: dict[str, Any] = null_for_nan(data)
        return {
            "millpond_result": FORMAT,
            **plain,
            "main_score": plain["metrics"][self.main_metric],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Result:
        """Read what ``to_json`` wrote.

        Raises
        ------
        ValueError : a key is missing or unknown, or of another format.
        """
        if not isinstance(data, dict) or data.get("millpond_result") != FORMAT:
            found = data.get("millpond_result") if isinstance(data, dict) else data
            raise ValueError(f"'millpond_result' is {str(found)[:40]!r}, not {FORMAT}")
        values = {k: v for k, v in data.items() if k not in ("millpond_result", "main_score")}
        if isinstance(values.get("fingerprint"), dict):
            values["fingerprint"] = Fingerprint.from_json(values["fingerprint"])
        found = read_stored(
            cls,
            values,
            metrics=Mapping[str, float | None],
            items=Mapping[str, Sequence[float | None]],
            costs=Mapping[str, float | None],
        )
        items = {name: _nan_for_null(row) for name, row in found.items.items()}
        metrics = dict(zip(found.metrics, _nan_for_null(found.metrics.values()), strict=True))
        return replace(found, metrics=metrics, items=items)


@dataclass(frozen=True)
class TopHit:
    """One document of a ranking: ``relevance`` is its judgement, 0 where there is none."""

    doc_id: str
    score: float
    relevance: int
    title: str
    snippet: str


@dataclass(frozen=True)
class QueryHits:
    """The best documents that a model found for one judged query, best first.

    Attributes
    ----------
    hits : the first ten, to be shown.
    scores : document id to score of all that were scored; empty in files that kept ten only.
    judged : document id to judgement, of the query's qrels.
    """

    query_id: str
    query: str
    hits: Sequence[TopHit]
    scores: Mapping[str, float] = field(default_factory=dict)
    judged: Mapping[str, int] = field(default_factory=dict)


def result_path(folder: Path, model: str, task: str) -> Path:
    """Return where the result of a model and a task is kept.

    That of a part, SET/PART, lies in a folder of its set, where ``read_results`` does not look.

    Names that differ get files that differ, also where only characters differ that no file name
    can hold.
    """
    *whole, part = task.split("/", 1) if task.partition("/")[0] in BEIR_PARTS else (task,)
    return Path(folder / file_name(model), *map(file_name, whole), f"{file_name(part)}.json")


def write_result(folder: Path, result: Result, hits: Iterable[QueryHits] | None = None) -> Path:
    """Write the hits of a result, then the result; return its path.

    Raises
    ------
    StorageError : the disk is full or not writable; what was there is as it was.
    """
    path = result_path(folder, result.model, result.task)
    make_folder(path.parent)
    if hits is not None:
        lines = (json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in hits)
        replace_file(_hits_path(path), "".join(lines).encode())
    text = json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False, indent=1)
    replace_file(path, f"{text}\n".encode())
    return path


def read_results(folder: Path) -> list[Result]:
    """Return every result of a folder, ordered by model and task.

    Raises
    ------
    SourceNotFoundError : there is no such folder, or no result in it.
    RecordError : a file is damaged, or of another version of millpond.
    UsageError : two results of one task were made on different data.
    """
    if not folder.is_dir():
        raise SourceNotFoundError(f"{folder}: there is no such folder. 'millpond bench' makes it.")
    paths = (path for path in folder.glob("*/*.json") if not path.parent.name.startswith("."))
    found = [read_result(path) for path in sorted(paths)]
    if not found:
        raise SourceNotFoundError(
            f"{folder} holds no results. Type: millpond bench --model M --task T --out {folder}"
        )
    found.sort(key=lambda result: (result.model, result.task))
    _check_same_data(found)
    return found


def read_result(path: Path) -> Result:
    """Return the result in a file; raises as ``read_results``."""
    try:
        data = load_json(path)
        if isinstance(data, dict) and "millpond_result" not in data:
            raise RecordError(
                str(path),
                None,
                "it is no result of 'millpond bench'. Name the folder that --out of bench named, "
                "or move the file out of it",
            )
        return Result.from_json(data)
    except FileNotFoundError:
        raise SourceNotFoundError(f"{path}: there is no such file.") from None
    except ValueError as error:
        advice = "If it is a result of 'millpond bench', move it away and run that again"
        raise RecordError(str(path), None, f"{error}. {advice}") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}).") from error


def group_notes(results: Iterable[Result]) -> dict[tuple[str, str], list[str]]:
    """Return the models that each note is about, by task and note."""
    about: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for note in result.notes:
            about.setdefault((result.task, note), []).append(result.model)
    return about


def read_hits(folder: Path, model: str, task: str) -> Iterator[QueryHits]:
    """Yield the hits of a retrieval result, one query at a time; nothing if none are kept."""
    path = _hits_path(result_path(folder, model, task))
    if not path.is_file():
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield read_stored(QueryHits, json.loads(line))
            except (ValueError, RecursionError) as error:
                raise RecordError(str(path), number, f"not a query's hits: {error}") from error


def _hits_path(path: Path) -> Path:
    return path.with_suffix(".hits.jsonl")


def file_name(name: str) -> str:
    """Return a readable file name, different for every name."""
    plain = re.sub(r"[^A-Za-z0-9.+=_-]+", "_", name).strip("._")[:80]
    return plain if plain == name else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _check_same_data(results: Sequence[Result]) -> None:
    """Raise UsageError where results of one task were made on different data."""
    first: dict[str, Result] = {}
    for result in results:
        other = first.setdefault(result.task, result)
        if other.data.get("sha256") != result.data.get("sha256"):
            raise UsageError(
                f"{other.model!r} and {result.model!r} were scored on different data under the "
                f"task name {result.task!r}, so they cannot be compared. Run 'millpond bench' "
                f"again for both on the same data, or with another --out."
            )


def null_for_nan(value: Any) -> Any:
    """Return the value with NaN and infinity as None, which JSON can hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: null_for_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [null_for_nan(one) for one in value]
    return value


def _nan_for_null(values: Iterable[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
