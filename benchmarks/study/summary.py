"""Everything that a study's report says, as plain values; kept as summary.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean, median
from typing import Any

from benchmarks.report.collect import rounded
from benchmarks.scoring.results import Result, read_results
from benchmarks.study.claims import CLAIMS, RULE, claim_pairs, judge_claim, paper_variants
from benchmarks.study.config import StudyConfig
from benchmarks.study.runs import RunRecord, StudyFolder, StudyRun, list_runs
from benchmarks.study.scores import BaseScores, TaskTypeScore, TaskTypeTest, correct_tests
from benchmarks.study.words import describe_gaps, describe_method, list_departures
from embedder.attention import ATTENTIONS
from retrieval.errors import UsageError
from retrieval.typed import plain_data, without_folders

__all__ = ["late_gain", "summarise"]

_COSTS = ("parameters", "pooling_flops", "tokens_per_second", "peak_memory_bytes")
_TRAINING = (
    "seconds",
    "tokens",
    "tokens_per_second",
    "peak_memory_bytes",
    "adapter_parameters",
    "pooling_parameters",
)

Tests = Mapping[tuple[str, str, str], TaskTypeTest]
Records = Mapping[str, RunRecord]


def summarise(
    config: StudyConfig, folder: StudyFolder, version: str, created: str
) -> dict[str, Any]:
    """Return the report's content from all runs that are done; JSON can hold it.

    Parameters
    ----------
    version, created : of millpond, and UTC in ISO 8601.

    Raises
    ------
    UsageError : no run is done.
    FailureError, RecordError : a file of the study is damaged.
    """
    runs = list_runs(config)
    records = _records(folder, runs)
    done = [run for run in runs if run.name in records and records[run.name].status == "done"]
    if not done:
        raise UsageError(f"{folder.path} holds no finished run, so there is nothing to report.")
    results: dict[str, list[Result]] = {}
    for result in read_results(folder.results):
        results.setdefault(result.model, []).append(result)
    bases = [
        BaseScores(base.name, config, own, results)
        for base in config.bases
        if (own := [run for run in done if run.base == base.name])
    ]
    against, claimed = _test(config, bases)
    return {
        "title": config.title,
        "created": created,
        "version": version,
        "alpha": config.alpha,
        "margin": config.margin,
        "baseline": config.baseline,
        "seeds": list(config.seeds),
        "runs": len(runs),
        "done": len(done),
        "failed": _failed(records),
        "cautions": [*config.cautions, *describe_gaps(runs, done)],
        "departures": list_departures(config),
        "method": describe_method(config),
        "rule": list(RULE),
        "config": without_folders(plain_data(config)),
        "bases": [
            _base(config, folder, scores, done, records, against[scores.base], claimed[scores.base])
            for scores in bases
        ],
    }


def _records(folder: StudyFolder, runs: Sequence[StudyRun]) -> dict[str, RunRecord]:
    found = {run.name: folder.read_record(run) for run in runs}
    return {name: record for name, record in found.items() if record is not None}


def _failed(records: Records) -> dict[str, str]:
    return {
        name: f"{record.stage}: {record.error}"
        for name, record in records.items()
        if record.status == "failed"
    }


def _test(
    config: StudyConfig, bases: Sequence[BaseScores]
) -> tuple[dict[str, Tests], dict[str, Tests]]:
    """Return the tests against the baseline and those of the claims, each corrected together."""
    tables = {
        scores.base: [
            (name, config.baseline, task_type)
            for name in scores.variants
            for task_type in scores.task_types
            if name != config.baseline and config.baseline in scores.variants
        ]
        for scores in bases
    }
    claims = {
        scores.base: [
            (first, second, task_type)
            for first, second, task_type in claim_pairs(config)
            if {first, second} <= set(scores.variants)
        ]
        for scores in bases
    }
    return _correct(bases, tables), _correct(bases, claims)


def _correct(
    bases: Sequence[BaseScores], wanted: Mapping[str, Sequence[tuple[str, str, str]]]
) -> dict[str, Tests]:
    raw = [
        test
        for scores in bases
        for asked in wanted[scores.base]
        if (test := scores.compare(*asked)) is not None
    ]
    corrected = correct_tests(raw)
    return {
        scores.base: {
            (one.first, one.second, one.task_type): one
            for one in corrected
            if one.base == scores.base
        }
        for scores in bases
    }


def _base(
    config: StudyConfig,
    folder: StudyFolder,
    scores: BaseScores,
    done: Sequence[StudyRun],
    records: Records,
    against: Tests,
    claimed: Tests,
) -> dict[str, Any]:
    own = [run for run in done if run.base == scores.base]
    size = _base_parameters(scores, own, records)
    verdicts = [
        judge_claim(claim, scores.base, paper_variants(config), claimed, config, size)
        for claim in CLAIMS
    ]
    return {
        "name": scores.base,
        "parameters": rounded(size, 0),
        "task_types": scores.task_types,
        "tasks": {
            task_type: [{"task": task, "metric": scores.metric(task)} for task in tasks]
            for task_type, tasks in scores.tasks.items()
        },
        "variants": [
            _variant(config, scores, name, own, records, against) for name in scores.variants
        ],
        "claims": [
            {
                "number": verdict.claim.number,
                "text": verdict.claim.text,
                "kind": verdict.claim.kind,
                "word": verdict.word,
                "judgements": [asdict(one) for one in verdict.judgements],
            }
            for verdict in verdicts
        ],
        "heatmaps": _heatmaps(config, folder, own, records),
    }


def _base_parameters(scores: BaseScores, own: Sequence[StudyRun], records: Records) -> float:
    """Return the size of the base alone: of the whole model, less the pooling.

    An adapter is folded into the weights when a model is loaded or counted beside them, and is
    small either way.
    """
    for run in own:
        whole = scores.cost(run.variant, "parameters")
        if math.isfinite(whole):
            return whole - float(records[run.name].training.get("pooling_parameters", 0))
    return math.nan


def _variant(
    config: StudyConfig,
    scores: BaseScores,
    name: str,
    own: Sequence[StudyRun],
    records: Records,
    against: Tests,
) -> dict[str, Any]:
    runs = [run for run in own if run.variant == name]
    trained = [records[run.name].training for run in runs]
    analyses = [records[run.name].analysis for run in runs]
    entry = next(variant for variant in config.variants if variant.name == name)
    spec = runs[0].train.model
    rows = {task_type: scores.task_type_score(name, task_type) for task_type in scores.task_types}
    costs = {f"score_{cost}": scores.cost(name, cost) for cost in _COSTS}
    costs |= {f"train_{cost}": _median(trained, cost) for cost in _TRAINING}
    costs["flops"] = _median(analyses, "flops")
    gains = [gain for one in trained if (gain := late_gain(one.get("curve", []))) is not None]
    return {
        "name": name,
        "design": f"{spec.pooling}+{spec.attention}",
        "ablation": entry.ablation,
        "seeds": [run.seed for run in runs],
        "scores": {task_type: _score(row) for task_type, row in rows.items() if row is not None},
        "tests": {
            task_type: _shown(test, config.alpha)
            for (first, _, task_type), test in against.items()
            if first == name
        },
        "tasks": {
            task: rounded(scores.task_score(name, task))
            for tasks in scores.tasks.values()
            for task in tasks
        },
        "costs": {cost: float(f"{v:.4g}") for cost, v in costs.items() if math.isfinite(v)},
        "curves": [[list(point) for point in one.get("curve", [])] for one in trained],
        "late_gain": rounded(fmean(gains)) if gains else None,
        "reading": _mean_reading([one["reading"] for one in analyses if "reading" in one]),
        "attention": next((one["attention"] for one in analyses if "attention" in one), None),
    }


def _score(row: TaskTypeScore) -> dict[str, float | None]:
    return {
        name: rounded(getattr(row, name)) for name in ("score", "low", "high", "seed_deviation")
    }


def _shown(test: TaskTypeTest, alpha: float) -> dict[str, Any]:
    return {
        "difference": rounded(test.difference),
        "low": rounded(test.low),
        "high": rounded(test.high),
        "p": rounded(test.p, 6),
        "p_corrected": rounded(test.p_corrected, 6),
        "significant": test.is_significant(alpha),
    }


def _mean_reading(readings: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the layers that are read, and the mean over seeds of how much of each."""
    if not readings:
        return None
    shares = [fmean(row) for row in zip(*(one["shares"] for one in readings), strict=True)]
    return {"layers": readings[0]["layers"], "shares": [round(share, 4) for share in shares]}


def _heatmaps(
    config: StudyConfig, folder: StudyFolder, own: Sequence[StudyRun], records: Records
) -> list[dict[str, Any]]:
    """Return layer correlations: of the untrained base, then of the paper's models."""
    found = []
    for attention in ATTENTIONS:
        run = next((one for one in own if one.train.model.attention == attention), None)
        if run is not None and folder.read_base(run):
            matrix = folder.read_base(run)["correlation"]
            found.append({"title": f"before training, {attention}", "matrix": _short(matrix)})
    for name in paper_variants(config).values():
        run = next((one for one in own if one.variant == name), None)
        if run is not None and "correlation" in records[run.name].analysis:
            matrix = records[run.name].analysis["correlation"]
            found.append(
                {"title": f"{name} after training, seed {run.seed}", "matrix": _short(matrix)}
            )
    return found


def _short(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[round(value, 2) for value in row] for row in matrix]


def _median(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    values = [float(row[name]) for row in rows if row.get(name) is not None]
    return median(values) if values else math.nan


def late_gain(curve: Sequence[Sequence[float]]) -> float | None:
    """Return by which share the loss still fell from the fourth to the last fifth of a run.

    Near 0 where training has converged; None where the curve has fewer than ten points.
    """
    fifth = len(curve) // 5
    if fifth < 2:
        return None
    fourth, last = curve[-2 * fifth : -fifth], curve[-fifth:]
    return 1 - fmean(loss for _, loss in last) / fmean(loss for _, loss in fourth)
