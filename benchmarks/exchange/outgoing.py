"""Results as mteb's folder, TREC runs, metadata of a model card, or CSV."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.exchange.trec import format_qrels, format_run
from benchmarks.integrations.mteb_meta import (
    ModelFacts,
    describe_fingerprint,
    import_mteb,
    mteb_model_name,
)
from benchmarks.integrations.mteb_tasks import TASK_TYPE_OF, find_mteb_task, rename_cuts, same_data
from benchmarks.optional import import_optional
from benchmarks.report.markdown import render_csv
from benchmarks.scoring.results import (
    QueryHits,
    Result,
    file_name,
    null_for_nan,
    read_hits,
    read_results,
)
from embedder.environment import first_line
from embedder.models.names import PREFIX
from retrieval.disk import make_folder, replace_file
from retrieval.errors import SourceNotFoundError, StorageError, UnknownNameError, UsageError
from retrieval.protocols import Notify, silent
from retrieval.runs import RunIds

_CUTS = (1, 3, 5, 10, 20, 100, 1000)
"""mteb's; those beyond the depth of a run are left out."""


@dataclass(frozen=True)
class _Export:
    folder: Path
    results: Sequence[Result]
    out: Path
    names: Mapping[str, str] = field(default_factory=dict)
    notify: Notify = silent


def export_results(
    folder: Path,
    out: Path,
    form: str,
    *,
    names: Mapping[str, str] | None = None,
    notify: Notify = silent,
) -> list[Path]:
    """Write the results of a folder in another format, and return the files.

    Parameters
    ----------
    folder : as ``read_results`` takes it.
    out : a folder, made if need be; what it holds under the same names is replaced.
    form : one of ``FORMATS``.
    names : task names of ours to mteb's, where they cannot be told.
    notify : receives a line for each result that is left out, and for what differs from mteb's.

    Raises
    ------
    UnknownNameError : no such format, or a name that is no task of mteb.
    UsageError : nothing could be written.
    MissingDependencyError : mteb 2 is not installed and the format is "mteb".
    RecordError, SourceNotFoundError, StorageError : as ``read_results``; a full disk.
    """
    if form not in FORMATS:
        raise UnknownNameError("format", form, list(FORMATS))
    export = _Export(folder, read_results(folder), out, names or {}, notify)
    unknown = [name for name in export.names if name not in {one.task for one in export.results}]
    if unknown:
        raise UnknownNameError("task", unknown[0], sorted({one.task for one in export.results}))
    try:
        written = list(FORMATS[form](export))
    except OSError as error:
        raise StorageError(f"{out}: cannot be written ({error.strerror}).") from error
    if not written:
        raise UsageError(f"No result of {folder} can be written as {form}; see the lines above.")
    return written


def _write_mteb(export: _Export) -> Iterator[Path]:
    """Write results/MODEL/REVISION/TASK.json by mteb's own classes."""
    mteb = import_mteb("mteb")
    cache = mteb.ResultCache(export.out)
    for result in export.results:
        task = find_mteb_task(result.task, export.names)
        where = f"{result.model} on {result.task}"
        if task is None:
            export.notify(
                f"Left out: {where}. mteb has no task of that name; if it has it by another, "
                f"type: --task-name {result.task}=NAME"
            )
            continue
        found = _mteb_scores(export, result)
        main = task.metadata.main_score
        if found.get(main) is None or not math.isfinite(found[main]):
            export.notify(f"Left out: {where}. There is no {main}, the main score in mteb.")
            continue
        subsets, splits = list(task.metadata.hf_subsets), list(task.metadata.eval_splits)
        if len(subsets) != 1:
            export.notify(f"Left out: {where}. {task.metadata.name} has {len(subsets)} subsets.")
            continue
        split = _find_split(result, splits)
        written = import_mteb("mteb.results").TaskResult.from_task_results(
            task,
            {split: {subsets[0]: {**found, "main_score": found[main]}}},
            evaluation_time=result.costs.get("seconds"),
            date=datetime.fromisoformat(result.created) if result.created else None,
        )
        if not same_data(result, task, split):
            revision = f"millpond-{str(result.data.get('sha256', 'unknown'))[:12]}"
            written = written.model_copy(update={"dataset_revision": revision})
            export.notify(
                f"{where}: the data have other sizes than mteb's {task.metadata.name}, so the "
                f"revision is written as {revision}."
            )
        meta = _describe(result)
        path = cache.get_task_result_path(written.task_name, meta)
        make_folder(path.parent)
        written.to_disk(path)
        text = json.dumps(meta.to_dict(), default=str, indent=4)
        replace_file(path.parent / "model_meta.json", text.encode())
        yield path


def _find_split(result: Result, splits: Sequence[str]) -> str:
    """Return mteb's name of what was scored: as the result says, or its name, or the usual one."""
    if "split" in result.data:
        return str(result.data["split"])
    named = [split for split in splits if result.task.endswith(f"-{split}")]
    return (named or ["test"] * ("test" in splits) or list(splits))[0]


def _describe(result: Result) -> Any:
    """Return what mteb is told about the model: what the result knows, None elsewhere."""
    parameters = result.costs.get("parameters")
    facts = ModelFacts(None if parameters is None else int(parameters))
    dimension = result.fingerprint.settings.get("dimension")
    width = dimension if isinstance(dimension, int) else None
    name = result.model if result.source else mteb_model_name(result.model)
    return describe_fingerprint(result.fingerprint, facts, width, name)


def _mteb_scores(export: _Export, result: Result) -> dict[str, Any]:
    """Return the scores under mteb's names; those of a run by mteb's own function."""
    if result.source or "revision" in result.data:  # mteb's own
        return rename_cuts(result.metrics)
    found: dict[str, Any] = {}
    if result.task_type == "retrieval":
        found = _rescore(result, list(read_hits(export.folder, result.model, result.task)), export)
        depth = int(result.settings.get("depth", 0))
        own = rename_cuts(result.metrics)
        own[f"map_at_{depth}"] = own.pop("map", math.nan)
    elif result.task_type == "sts":
        own = {name: result.metrics[name] for name in ("spearman", "pearson")}
        own |= {f"cosine_{name}": score for name, score in own.items()}
    elif result.task_type == "classification":
        own = {"accuracy": result.metrics["accuracy"], "f1": result.metrics["macro_f1"]}
        rows = zip(*(result.draws.get(name, ()) for name in ("accuracy", "macro_f1")), strict=True)
        found["scores_per_experiment"] = [{"accuracy": a, "f1": f} for a, f in rows]
    else:
        own = {"v_measure": result.metrics["v_measure"]}
        found["v_measures"] = {"Level 0": list(result.items["v_measure"])}
        own["v_measure_std"] = float(np.std(result.items["v_measure"]))
    known = {name: score for name, score in own.items() if math.isfinite(score)}
    return {**found, **known}


def _rescore(result: Result, hits: Sequence[QueryHits], export: _Export) -> dict[str, Any]:
    """Return all of mteb's scores of a run, up to the depth that the run has."""
    if not any(one.scores for one in hits):
        export.notify(
            f"{result.model} on {result.task}: no run was kept, so only its own scores are "
            f"written. Delete the result and run 'millpond bench' again for all of mteb's."
        )
        return {}
    module = import_mteb("mteb._evaluators.retrieval_metrics")
    run = {one.query_id: dict(one.scores) for one in hits}
    qrels = {one.query_id: dict(one.judged) for one in hits}
    cuts = [cut for cut in _CUTS if cut <= int(result.settings.get("depth", 0))]
    scored = module.calculate_retrieval_scores(run, qrels, cuts)
    parts = {
        "ndcg": scored.ndcg,
        "_map": scored.map,
        "recall": scored.recall,
        "precision": scored.precision,
        "mrr": scored.mrr,
        "naucs": scored.naucs,
        "naucs_mrr": scored.naucs_mrr,
        "hit_rate": scored.hit_rate,
    }
    found: dict[str, Any] = null_for_nan(module.make_score_dict(**parts, task_scores={}))
    return found


def _write_trec(export: _Export) -> Iterator[Path]:
    """Write TASK/qrels.txt and TASK/MODEL.run for every retrieval result that kept its run."""
    ids = RunIds()
    for result in export.results:
        where = f"{result.model} on {result.task}"
        if result.task_type != "retrieval" or result.source:
            what = "Imported scores" if result.source else f"Tasks of type {result.task_type}"
            export.notify(f"Left out: {where}. {what} have no run.")
            continue
        hits = list(read_hits(export.folder, result.model, result.task))
        if not any(one.scores for one in hits):
            export.notify(
                f"Left out: {where}. No run was kept: delete the result and run 'millpond bench' "
                f"again."
            )
            continue
        folder = export.out / file_name(result.task)
        lines = format_run({one.query_id: one.scores for one in hits}, result.model, ids)
        yield _write(folder / f"{file_name(result.model)}.run", "".join(lines))
        qrels = "".join(format_qrels({one.query_id: one.judged for one in hits}, ids))
        if not (folder / "qrels.txt").is_file():
            yield _write(folder / "qrels.txt", qrels)
        elif (folder / "qrels.txt").read_text(encoding="utf-8") != qrels:
            _write(folder / "qrels.txt", qrels)
    if ids.first is not None:
        export.notify(ids.describe())


def _write_model_index(export: _Export) -> Iterator[Path]:
    """Write MODEL.md: the metadata of a model card, which a hub reads at the top of README.md."""
    for model in dict.fromkeys(result.model for result in export.results):
        own = [result for result in export.results if result.model == model]
        yield _write(export.out / f"{file_name(model)}.md", render_metadata(model, own))


def _write(path: Path, text: str) -> Path:
    make_folder(path.parent)
    replace_file(path, text.encode())
    return path


FORMATS: Mapping[str, Callable[[_Export], Iterator[Path]]] = {
    "mteb": _write_mteb,
    "trec": _write_trec,
    "model-index": _write_model_index,
    "csv": lambda export: iter([_write(export.out / "results.csv", render_csv(export.results))]),
}
"""By name, what writes it."""


_PURPOSE = "Writing a model card"
_CARD = "README.md"
_TYPES = {ours: theirs for theirs, ours in reversed(TASK_TYPE_OF.items())}


def render_metadata(model: str, results: Sequence[Result]) -> str:
    """Return the metadata for the top of a model's card, with the scores of its results."""
    cards = import_optional("huggingface_hub.repocard_data", _PURPOSE)
    name = re.split(r"[/\\]", model.rstrip("/\\"))[-1] or model
    data = cards.ModelCardData(model_name=name, eval_results=_evaluations(results))
    return f"---\n{data.to_yaml()}\n---\n"


def write_card(folder: Path, model: Path) -> tuple[Path, int]:
    """Put a model's scores into the card of its folder; return the card, and how many tasks.

    Scores that the card has of other tasks stay.

    Parameters
    ----------
    folder : of results, as ``read_results`` takes it.
    model : its folder, with a README.md.

    Raises
    ------
    SourceNotFoundError : there is no such folder or card.
    UsageError : no result is of this folder, or the card's metadata cannot be read.
    RecordError, StorageError : as ``read_results``; a full disk.
    """
    path = model / _CARD
    if not path.is_file():
        raise SourceNotFoundError(
            f"{model} holds no {_CARD}. Name a model's folder, such as 'millpond train' writes."
        )
    found = read_results(folder)
    own = [one for one in found if _is_of(one, model) and not one.source]
    if not own:
        models = ", ".join(dict.fromkeys(one.model for one in found if not one.source))
        raise UsageError(
            f"No result of {folder} is of {model}; there are those of {models or 'none'}. Type: "
            f"millpond bench --model {model} --task TASK --out {folder}"
        )
    module, yaml = (import_optional(one, _PURPOSE) for one in ("huggingface_hub.repocard", "yaml"))
    try:
        card = module.ModelCard(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: its metadata cannot be read ({first_line(error)}).") from error
    rows = _evaluations(own)
    new = {row.unique_identifier for row in rows}
    kept = [one for one in card.data.eval_results or [] if one.unique_identifier not in new]
    card.data.eval_results = [*kept, *rows]
    card.data.model_name = card.data.model_name or model.resolve().name
    replace_file(path, str(card).encode())
    return path, len({one.task for one in own})


def _is_of(result: Result, model: Path) -> bool:
    name = str(result.recipe.get("model", result.model)).removeprefix(PREFIX)
    return Path(name).expanduser().resolve() == model.expanduser().resolve()


def _evaluations(results: Sequence[Result]) -> list[Any]:
    cards = import_optional("huggingface_hub.repocard_data", _PURPOSE)
    return [
        cards.EvalResult(
            task_type=_TYPES.get(result.task_type, "Other"),
            dataset_type=result.source.get("task", result.task),
            dataset_name=result.task,
            dataset_split=result.data.get("split"),
            dataset_revision=result.source.get("dataset_revision", result.data.get("revision")),
            metric_type=name,
            metric_value=round(100 * score, 4),
        )
        for result in results
        for name, score in rename_cuts(result.metrics).items()
        if math.isfinite(score)
    ]
