"""Results of others: mteb's folders, TREC runs with qrels, and what beir saves."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.exchange.trec import read_run
from benchmarks.integrations.mteb_meta import import_mteb
from benchmarks.integrations.mteb_tasks import (
    TASK_TYPE_OF,
    average_subsets,
    describe_data,
    get_mteb_task,
    name_split,
    numbers_of,
)
from benchmarks.scoring.metrics import retrieval_metrics, score_run
from benchmarks.scoring.remembered import digest
from benchmarks.scoring.results import Result, read_results, write_result
from embedder.environment import first_line
from indexes.storage.manifest import now_utc
from retrieval import Fingerprint
from retrieval.corpus.qrels import read_qrels
from retrieval.errors import MillpondError, SourceNotFoundError, UsageError, count_noun
from retrieval.protocols import Notify, silent
from retrieval.typed import load_json

_K = 10
_RUNS = (".run", ".trec", ".run.gz", ".trec.gz")
_NO_RESULTS = ("model_meta.json", "run_settings.jsonl", "run_settings.json")
_LOWER_IS_BETTER = re.compile(r"loss|error|perplexity|distance|(^|_)(mse|mae|rmse)($|_)")
_EXPECTED = (
    "mteb's MODEL/REVISION/TASK.json, TREC runs (.run) beside a qrels file, or what beir's "
    "save_results wrote"
)


@dataclass(frozen=True)
class Imported:
    """What an import did: the results written, and how many files were not imported."""

    results: Sequence[Result]
    left_out: int


class _LeftOutError(Exception):
    """A file, or a part of it, is not imported; the text says why."""


def import_results(
    folder: Path, out: Path, *, qrels: Path | None = None, notify: Notify = silent
) -> Imported:
    """Read the results of other programs and write them into a results folder.

    A score of another revision, split or set of languages than the one that a task already has
    becomes a task of its own, named after what differs. A result that ``bench`` made is never
    replaced.

    Parameters
    ----------
    folder : looked through at any depth.
    out : the results folder, made if need be.
    qrels : for runs that have no qrels file in their own folder.
    notify : receives a line for each file that is not imported, and for each renamed task.

    Raises
    ------
    SourceNotFoundError : there is no such folder, or nothing in it is a result.
    UsageError : results were found, and not one could be imported.
    RecordError, StorageError : as ``read_results`` of ``out``; a full disk.
    """
    if not folder.is_dir():
        raise SourceNotFoundError(f"{folder}: there is no such folder. Expected {_EXPECTED}.")
    present = read_results(out) if out.is_dir() and any(out.glob("*/*.json")) else []
    reader = _Reader(folder, qrels, notify)
    found = reader.read()
    if not reader.seen:
        raise SourceNotFoundError(f"{folder} holds no results. Expected {_EXPECTED}.")
    kept = _without_conflicts(_name_apart(found, present, notify), present, reader.leave_out)
    if not kept:
        raise UsageError(f"Nothing in {folder} could be imported; see the lines above.")
    for result in kept:
        write_result(out, result)
    return Imported(kept, reader.left_out)


class _Reader:
    """Goes through a folder and turns every file into results, or into a line that says why not."""

    def __init__(self, folder: Path, qrels: Path | None, notify: Notify) -> None:
        self._folder, self._qrels, self._notify = folder, qrels, notify
        self._metas: dict[Path, dict[str, Any]] = {}
        self.seen = self.left_out = 0

    def read(self) -> list[Result]:
        """Return the results of all files."""
        logging.getLogger("mteb").setLevel(logging.ERROR)
        found: list[Result] = []
        for path in sorted(self._folder.rglob("*")):
            hidden = any(p.startswith(".") for p in path.relative_to(self._folder).parts)
            if hidden or not path.is_file() or path.name in _NO_RESULTS:
                continue
            if path.name.endswith(_RUNS):
                read = self._read_trec
            elif path.suffix == ".json":
                read = self._read_json
            else:
                continue
            self.seen += 1
            try:
                found += read(path)
            except (_LeftOutError, MillpondError) as error:
                self.leave_out(path, str(error).removeprefix(f"{path}: "))
        return found

    def leave_out(self, path: Path | str, reason: str) -> None:
        """Say in one line why something is not imported."""
        self.left_out += 1
        self._notify(f"Not imported: {path}: {' '.join(reason.split())[:300]}")

    def _read_json(self, path: Path) -> list[Result]:
        try:
            data = load_json(path)
        except (ValueError, OSError) as error:
            raise _LeftOutError(f"not JSON ({error})") from error
        if isinstance(data, dict) and {"task_name", "mteb_dataset_name"} & set(data):
            return list(self._read_mteb(path))
        if isinstance(data, dict) and isinstance(data.get("ndcg"), dict):
            return [self._read_beir(path, data)]
        if isinstance(data, dict) and "millpond_result" in data:
            raise _LeftOutError("a result of millpond; name its folder as RESULTS instead")
        raise _LeftOutError(f"of no layout that is known; expected {_EXPECTED}")

    def _read_mteb(self, path: Path) -> Iterator[Result]:
        """Yield a result for each split of a file of mteb, old layouts through its own reader."""
        reader = import_mteb("mteb.results").TaskResult
        try:
            read = reader.from_disk(path)
        except Exception as error:  # whatever mteb's reader stumbles over
            version = import_mteb("mteb").__version__
            raise _LeftOutError(
                f"mteb {version} cannot read its layout ({first_line(error)})"
            ) from error
        if not read.scores:
            raise _LeftOutError("it has no scores")
        model, revision = self._find_model(path)
        for split, subsets in read.scores.items():
            try:
                yield _result_of_split(read, split, subsets, model, revision, self._name(path))
            except _LeftOutError as error:
                self.leave_out(path, f"split {split}: {error}")

    def _find_model(self, path: Path) -> tuple[str, str]:
        """Return name and revision: of model_meta.json, else of MODEL/REVISION/ or MODEL/."""
        meta = path.parent / "model_meta.json"
        if meta.is_file():
            if path.parent not in self._metas:
                try:
                    found = load_json(meta)
                except ValueError as error:
                    raise _LeftOutError(f"{meta.name} beside it is not JSON") from error
                self._metas[path.parent] = found if isinstance(found, dict) else {}
            found = self._metas[path.parent]
            if isinstance(found.get("name"), str):
                return found["name"], str(found.get("revision") or "")
        parts = path.relative_to(self._folder).parts[:-1]
        if not parts:
            raise _LeftOutError(
                "which model? Expected MODEL/REVISION/TASK.json, or model_meta.json"
            )
        model, revision = (parts[-2], parts[-1]) if len(parts) > 1 else (parts[0], "")
        if revision and model in ("results", "remote"):
            model, revision = revision, ""
        return model.replace("__", "/"), revision

    def _read_beir(self, path: Path, data: Mapping[str, Any]) -> Result:
        """Return the result of a file of beir's save_results; MODEL/TASK.json names both."""
        metrics = {
            f"{name}@{str(cut).rpartition('@')[2]}": float(score)
            for name, scores in data.items()
            if isinstance(scores, dict)
            for cut, score in scores.items()
            if isinstance(score, (int, float))
        }
        if f"ndcg@{_K}" not in metrics:
            raise _LeftOutError(f"beir's scores without NDCG@{_K}")
        _check_scores({f"ndcg@{_K}": metrics[f"ndcg@{_K}"]})
        model, task = path.parent.name, path.stem
        if path.parent == self._folder:
            raise _LeftOutError("which model? Expected MODEL/TASK.json, since beir writes neither")
        return _make(
            model, task, "retrieval", f"ndcg@{_K}", metrics, {"format": "beir", "task": task,
            "file": self._name(path)}, {"task": task, "from": "beir"},
        )  # fmt: skip

    def _read_trec(self, path: Path) -> list[Result]:
        """Return the result of a run by the qrels beside it; the folder names the task."""
        qrels_file = self._qrels or _find_qrels(path)
        run, tags = read_run(path)
        if not run:
            raise _LeftOutError("it is empty")
        judged: dict[str, dict[str, int]] = {}
        for row in read_qrels(qrels_file).judgements:
            judged.setdefault(row.query_id, {})[row.doc_id] = max(row.score, 0)
        relevant = {query: row for query, row in judged.items() if any(row.values())}
        unknown = [query for query in run if query not in relevant]
        if len(unknown) == len(run):
            raise _LeftOutError(f"none of its {len(run)} queries is in {qrels_file.name}")
        task = path.parent.resolve().name
        model = tags[0] if len(tags) == 1 else path.name.partition(".")[0]
        notes = []
        if unknown:
            count = count_noun(len(unknown), "query", "queries")
            notes.append(
                f"{count} of the run without a relevant document in the qrels had to be left out, "
                f"such as {unknown[0]!r}."
            )
        if missing := len(set(relevant) - set(run)):
            count = count_noun(missing, "query", "queries")
            notes.append(f"{count} of the qrels without a line in the run scored 0.")
        for note in notes:
            self._notify(f"{path}: {note}")
        scores = score_run(relevant, run, _K)
        ids = list(relevant)
        items = {name: [scores[name][query] for query in ids] for name in retrieval_metrics(_K)}
        means = {name: fmean(row) for name, row in items.items()}
        source = {"format": "trec", "file": self._name(path), "task": task}
        made = _make(model, task, "retrieval", f"ndcg@{_K}", means, source, {"qrels": relevant})
        return [replace(made, item_ids=ids, items=items, notes=notes)]

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._folder))


def _find_qrels(path: Path) -> Path:
    """Return the one qrels file beside a run."""
    near = [
        one
        for one in sorted(path.parent.iterdir())
        if one.is_file() and (one.name.startswith("qrels") or ".qrels" in one.name)
    ]
    if len(near) != 1:
        names = ", ".join(one.name for one in near) or "none"
        raise _LeftOutError(
            f"{len(near)} qrels files beside it ({names}); expected one, such as qrels.txt, or "
            f"--qrels FILE"
        )
    return near[0]


def _result_of_split(
    read: Any,
    split: str,
    subsets: Sequence[Mapping[str, Any]],
    model: str,
    revision: str,
    file: str,
) -> Result:
    """Return the result of a split: the mean over its subsets, as mteb has it."""
    task = get_mteb_task(read.task_name)
    subsets = sorted(subsets, key=lambda one: str(one["hf_subset"]))
    names = [str(one["hf_subset"]) for one in subsets]
    if len(set(names)) < len(names):
        raise _LeftOutError("a subset is there twice")
    main = task.metadata.main_score if task else _guess_main(subsets[0])
    scores = [one.get("main_score") for one in subsets]
    for name, score in zip(names, scores, strict=True):
        _check_scores({main if len(names) == 1 else f"{main} of {name}": score})
    splits = list(task.metadata.eval_splits) if task else [split]
    return _make(
        model,
        name_split(read.task_name, split, splits),
        TASK_TYPE_OF.get(task.metadata.type, "other") if task else "other",
        main,
        average_subsets(main, subsets),
        {
            "format": "mteb",
            "file": file,
            "task": read.task_name,
            "model_revision": revision,
            "dataset_revision": read.dataset_revision,
            "split": split,
            "subsets": ", ".join(names),
            "mteb_version": str(read.mteb_version),
        },
        describe_data(read.task_name, read.dataset_revision, split, names),
    )


def _make(
    model: str,
    task: str,
    task_type: str,
    main: str,
    metrics: Mapping[str, float],
    source: Mapping[str, str],
    data: Mapping[str, Any],
) -> Result:
    revision = source.get("model_revision", "")
    fingerprint = Fingerprint(model, {"imported": True, "name": model, "revision": revision})
    return Result(
        model=model,
        task=task,
        task_type=task_type,
        main_metric=main,
        metrics=metrics,
        item_ids=[],
        items={},
        fingerprint=fingerprint,
        data={"sha256": digest(dict(data))},
        settings={},
        run_digest="",
        created=now_utc(),
        source={name: text for name, text in source.items() if text},
    )


def _check_scores(scores: Mapping[str, Any]) -> None:
    """Refuse a main score that is none, is out of range, or is the better the lower it is."""
    for name, score in scores.items():
        if isinstance(score, bool) or not isinstance(score, (int, float)) or math.isnan(score):
            raise _LeftOutError(f"{name} is {score}, no number")
        if _LOWER_IS_BETTER.search(name):
            raise _LeftOutError(f"of {name} the lower is the better; scores here are the reverse")
        if not -1 <= score <= 1:
            raise _LeftOutError(f"{name} is {score:g}; expected -1 to 1 (a percentage?)")


def _guess_main(scores: Mapping[str, Any]) -> str:
    """Return the name of the metric that equals the main score, for a task that mteb lacks."""
    main = scores.get("main_score")
    same = sorted(name for name in numbers_of(scores) if scores[name] == main)
    lower = [name for name in same if _LOWER_IS_BETTER.search(name)]
    return (lower or same or ["main_score"])[0]


def _name_apart(found: Sequence[Result], present: Sequence[Result], notify: Notify) -> list[Result]:
    """Return the results, each task name standing for one set of data, each model for one revision.

    The data that a task already has in the results folder keep the name, else those that most
    models have.
    """
    revisions: dict[str, dict[str, None]] = {}
    for one in found:
        revisions.setdefault(one.model, {})[one.source.get("model_revision", "")] = None
    named = []
    for one in found:
        revision = one.source.get("model_revision", "")
        if len(revisions[one.model]) > 1 and revision:
            one = replace(one, model=f"{one.model}@{revision[:8]}")
        named.append(one)
    for model, several in revisions.items():
        if len(several) > 1:
            notify(
                f"{model}: {len(several)} revisions; each is a model of its own, MODEL@REVISION."
            )
    owners = {one.task: one.data.get("sha256") for one in present}
    for task in dict.fromkeys(one.task for one in named):
        digests = [one.data["sha256"] for one in named if one.task == task]
        owners.setdefault(task, max(dict.fromkeys(digests), key=digests.count))
    told: dict[str, str] = {}
    for place, one in enumerate(named):
        if one.data["sha256"] != owners[one.task]:
            label = (
                f"{one.task}@{one.source.get('dataset_revision', '')[:8] or one.data['sha256'][:8]}"
            )
            if owners.setdefault(label, one.data["sha256"]) != one.data["sha256"]:
                label = f"{label}-{one.data['sha256'][:6]}"
                owners[label] = one.data["sha256"]
            told[label] = one.task
            named[place] = replace(one, task=label)
    for label, task in told.items():
        notify(
            f"{label}: another revision, split or set of languages than {task} has; it is a task "
            f"of its own, and never compared with {task}."
        )
    return named


def _without_conflicts(
    found: Sequence[Result], present: Sequence[Result], leave_out: Any
) -> list[Result]:
    """Return one result for each model and task; what disagrees is left out with a line."""
    own = {(one.model, one.task) for one in present if not one.source}
    groups: dict[tuple[str, str], list[Result]] = {}
    for one in found:
        groups.setdefault((one.model, one.task), []).append(one)
    kept = []
    for (model, task), rows in groups.items():
        files = " and ".join(dict.fromkeys(one.source["file"] for one in rows))
        if (model, task) in own:
            leave_out(files, f"{model} has a result of 'millpond bench' for {task}, which stays")
        elif any(abs(one.main_score - rows[0].main_score) > 1e-6 for one in rows):
            scores = " and ".join(f"{one.main_score:.4f}" for one in rows)
            leave_out(files, f"{model} on {task}: they disagree ({scores}). Delete the wrong one")
        else:
            kept.append(rows[0])
    return kept
