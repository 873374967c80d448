"""Runs a recorded score again, and says what differs."""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.integrations.mteb_meta import import_mteb
from benchmarks.scoring.cache import ShowProgress, show_nothing
from benchmarks.scoring.config import BenchConfig
from benchmarks.scoring.metrics import score_run
from benchmarks.scoring.models import Load, load_model
from benchmarks.scoring.results import QueryHits, Result, read_hits, read_result
from benchmarks.scoring.runner import run_benchmark
from benchmarks.study.config import read_study
from benchmarks.study.runs import StudyFolder, list_runs
from benchmarks.tasks.datasets import BEIR_NAMES, BEIR_PREFIX
from benchmarks.tasks.instructions import Instructions
from benchmarks.tasks.mteb import MTEB_PREFIX
from retrieval.errors import MissingDependencyError, UsageError, count_noun
from retrieval.protocols import Notify, silent
from retrieval.typed import find_differences

_OUR_METRICS = {
    "cosine_spearman": "spearman",
    "cosine_pearson": "pearson",
    "f1": "macro_f1",
}
_TOLD = ("query_prompt", "document_prompt", "max_tokens", "normalize", "dtype", "pooling")
_SAME = 1e-6


@dataclass(frozen=True)
class Reproduction:
    """A recorded result and the same computed now.

    Attributes
    ----------
    metric : the recorded main metric, under our name.
    recorded, now : its values.
    changed_items : how many queries, texts or pairs have another score; None where the record
        has none.
    differences : a sentence on each thing that differs or that the record does not say.
    """

    before: Result
    after: Result
    metric: str
    recorded: float
    now: float
    changed_items: int | None
    differences: Sequence[str]

    @property
    def gap(self) -> float:
        """Now minus recorded."""
        return self.now - self.recorded


def reproduce(
    path: Path,
    *,
    model: str | None = None,
    task: str | None = None,
    device: str | None = None,
    notify: Notify = silent,
    progress: ShowProgress = show_nothing,
    load: Load = load_model,
) -> Reproduction:
    """Return a recorded result beside what the same model scores on the same task now.

    Parameters
    ----------
    path : a result's file, of ``bench`` or imported.
    model, task : where the model or the data lie elsewhere than when the result was made.
    device : as in ``BenchConfig``; the recorded one by default.

    Raises
    ------
    UsageError : the record does not say how it was made, or has a metric that is not computed
        here.
    RecordError, SourceNotFoundError : as ``read_result``.
    MillpondError : as ``run_benchmark``.
    """
    before = read_result(path)
    recipe = dict(_find_recipe(before, path, task))
    recipe["model"] = model or _find_model(before, recipe["model"], path)
    with tempfile.TemporaryDirectory(prefix="millpond-reproduce-") as scratch:
        config = _configure(recipe, Path(scratch), task, device)
        [after] = run_benchmark(config, notify=notify, progress=progress, load=load)
        hits = list(read_hits(Path(scratch), after.model, after.task))
    metric = before.main_metric
    if before.source and metric not in after.metrics:
        metric = _OUR_METRICS.get(metric, metric.replace("_at_", "@"))
    if metric not in after.metrics:
        raise UsageError(
            f"{path} has {before.main_metric}, which is not computed here for a "
            f"{after.task_type} task; expected one of {', '.join(after.metrics)}."
        )
    differences = [*_compare_records(before, after), *_describe_ties(hits, after, metric)]
    recorded = before.metrics[before.main_metric]
    return Reproduction(
        before, after, metric, recorded, after.metrics[metric], _count(before, after), differences
    )


def _find_recipe(before: Result, path: Path, task: str | None) -> Mapping[str, Any]:
    if before.recipe:
        return before.recipe
    if not before.source:
        raise UsageError(
            f"{path} was made before results held their recipe. Run 'millpond bench' for it once "
            f"more, with another --out, and compare the two."
        )
    if task is None:
        task = _find_source(before.source)
    if task is None:
        raise UsageError(
            f"Where are the data of {before.task!r}? An imported score does not say. Type: "
            f"millpond reproduce {shlex.quote(str(path))} --task FOLDER"
        )
    return {"model": before.model, "task": task, "split": before.source.get("split", "test")}


def _find_model(before: Result, name: str, path: Path) -> str:
    """Return what loads the model; a study names its models after their runs."""
    for place in path.resolve().parents[2:3]:  # of STUDY/results/MODEL/TASK.json
        if not (place / "study.json").is_file():
            continue
        folder = StudyFolder(place)
        for run in list_runs(read_study(folder.config(), place)):
            if run.name == name and folder.model(run).is_dir():
                return str(folder.model(run))
        raise UsageError(
            f"{before.model!r} is a run of a study, which deletes its model once it is scored "
            f"unless keep_adapters is true. Type, with a model that was trained in the same way: "
            f"millpond reproduce {shlex.quote(str(path))} --model DIR"
        )
    return name


def _find_source(source: Mapping[str, str]) -> str | None:
    """Return what names the data of an imported score, of mteb or of BEIR; None for neither."""
    name = source.get("task", "")
    if source.get("format") == "mteb":
        with suppress(KeyError, MissingDependencyError):
            known = import_mteb("mteb").get_task(name).metadata.hf_subsets
            scored = source.get("subsets", "").split(", ")
            some = "" if set(scored) == set(known) else f"[{','.join(scored)}]"
            return f"{MTEB_PREFIX}{name}{some}"
    plain = re.sub("[^a-z0-9]", "", name.lower())
    same = [one for one in BEIR_NAMES if re.sub("[^a-z0-9]", "", one) == plain]
    return f"{BEIR_PREFIX}{same[0]}" if same else None


def _configure(
    recipe: Mapping[str, Any], out: Path, task: str | None, device: str | None
) -> BenchConfig:
    names = ("split", "k", "backend", "factory", "speed", "skip_bad", "trust_remote_code")
    chosen = {name: recipe[name] for name in names if recipe.get(name) is not None}
    if recipe.get("instruction") is not None:
        chosen["instructions"] = Instructions.of_all(recipe["instruction"])
    where = device or recipe.get("device")
    return BenchConfig(
        models=[recipe["model"]], tasks=[task or recipe["task"]], out=out, device=where, **chosen
    )


def _compare_records(before: Result, after: Result) -> Iterator[str]:
    """Yield a sentence on each difference that the two records show."""
    if before.source:
        revision = before.source.get("dataset_revision")
        sizes = ", ".join(f"{value:,} {name}" for name, value in after.data.items()
                          if isinstance(value, int))  # fmt: skip
        yield f"The record is of data revision {revision or 'unknown'}; here there are {sizes}."
        known = {name: after.fingerprint.settings.get(name) for name in _TOLD}
        used = ", ".join(f"{name} {value!r}" for name, value in known.items() if value is not None)
        used = used or "as the model does"
        yield f"The record does not say how texts were prepared; here: {used}."
    else:
        for what, one, other in (
            ("model", before.fingerprint.settings, after.fingerprint.settings),
            ("settings", before.settings, after.settings),
        ):
            for key, old, new in find_differences(dict(one), dict(other)):
                yield f"{what}: {key} was {_short(old)} and is {_short(new)}."
        if before.data.get("sha256") != after.data.get("sha256"):
            changes = [f"{key} {_short(old)} and now {_short(new)}"
                     for key, old, new in find_differences(dict(before.data), dict(after.data))
                     if key != "sha256"]  # fmt: skip
            yield f"The data are others: {', '.join(changes) or 'of the same sizes'}."
        for key, old, new in find_differences(dict(before.versions), dict(after.versions)):
            yield f"{key} was {old or 'absent'} and is {new or 'absent'}."
        for note in before.notes:
            if note not in after.notes:
                yield f"Then, not now: {note}"
    for note in after.notes:
        if before.source or note not in before.notes:
            yield f"{'Here' if before.source else 'Now, not then'}: {note}"


def _describe_ties(hits: Sequence[QueryHits], after: Result, metric: str) -> Iterator[str]:
    """Yield how far the order of equal scores can move a score of a ranking."""
    tied = [one for one in hits if len(set(one.scores.values())) < len(one.scores)]
    if not tied or after.task_type != "retrieval":
        return
    k = int(after.settings.get("k", 10))
    ends = []
    for sign in (1, -1):
        run = {one.query_id: _break_ties(one, sign) for one in hits}
        rows = score_run({one.query_id: one.judged for one in hits}, run, k)
        if metric not in rows:
            return
        ends.append(sum(rows[metric].values()) / len(hits))
    if ends[0] - ends[1] > _SAME:
        yield (
            f"{count_noun(len(tied), 'query has', 'queries have')} documents with equal scores: by "
            f"their order alone {metric} can be {ends[1]:.4f} to {ends[0]:.4f}."
        )


def _break_ties(one: QueryHits, sign: int) -> dict[str, float]:
    """Return falling scores in the same order, equal ones by relevance, times ``sign``."""

    def place(document: str) -> tuple[float, int]:
        return -one.scores[document], -sign * one.judged.get(document, 0)

    return {document: -float(rank) for rank, document in enumerate(sorted(one.scores, key=place))}


def _count(before: Result, after: Result) -> int | None:
    """Return how many items of both have another score."""
    name = "cosine" if after.task_type == "sts" else after.main_metric
    if name not in before.items or name not in after.items:
        return None
    now = dict(zip(after.item_ids, after.items[name], strict=True))
    pairs = zip(before.item_ids, before.items[name], strict=True)
    return sum(abs(now.get(item, score + 1) - score) > _SAME for item, score in pairs)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
