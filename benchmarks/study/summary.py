"""Everything that a study's report says, as plain values; kept as summary.json."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from benchmarks.report.collect import rounded
from benchmarks.scoring.results import Result, read_results
from benchmarks.study.claims import CLAIMS, RULE, claim_pairs, judge_claim, paper_variants
from benchmarks.study.config import StudyConfig
from benchmarks.study.runs import RunRecord, StudyFolder, StudyRun, list_runs
from benchmarks.study.scores import BaseScores, TaskTypeScore, TaskTypeTest, correct_tests
from benchmarks.study.words import describe_gaps, describe_method, list_departures
from embedder.variants import ATTENTIONS
from retrieval.errors import UsageError
from retrieval.typed import plain_data, without_folders

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
"""(first, second, task type) to the corrected test on one base."""


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
    records = {run.name: folder.read_record(run) for run in runs}
    done = {
        run: record
        for run in runs
        if (record := records[run.name]) is not None and record.status == "done"
    }
    if not done:
        raise UsageError(f"{folder.path} holds no finished run, so there is nothing to report.")
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
        "failed": {
            name: f"{record.stage}: {record.error}"
            for name, record in records.items()
            if record is not None and record.status == "failed"
        },
        "cautions": [*config.cautions, *describe_gaps(runs, list(done))],
        "departures": list_departures(config),
        "method": describe_method(config),
        "rule": list(RULE),
        "config": without_folders(plain_data(config)),
        "bases": [base.summarise() for base in _score_bases(config, folder, done)],
    }


def _score_bases(
    config: StudyConfig, folder: StudyFolder, done: Mapping[StudyRun, RunRecord]
) -> list[_Base]:
    """Return the bases that have a finished run, their tests corrected together."""
    results: dict[str, list[Result]] = {}
    for result in read_results(folder.results):
        results.setdefault(result.model, []).append(result)
    bases = [
        BaseScores(base.name, config, own, results)
        for base in config.bases
        if (own := [run for run in done if run.base == base.name])
    ]
    against = _test(bases, lambda scores: _baseline_pairs(scores, config.baseline))
    claimed = _test(bases, lambda scores: claim_pairs(config))
    return [
        _Base(
            config,
            folder,
            scores,
            {run: record for run, record in done.items() if run.base == scores.base},
            against[scores.base],
            claimed[scores.base],
        )
        for scores in bases
    ]


def _baseline_pairs(scores: BaseScores, baseline: str) -> list[tuple[str, str, str]]:
    return [
        (name, baseline, task_type)
        for name in scores.variants
        for task_type in scores.task_types
        if name != baseline
    ]


def _test(
    bases: Sequence[BaseScores], list_pairs: Callable[[BaseScores], Sequence[tuple[str, str, str]]]
) -> dict[str, Tests]:
    """Return the tests of each base, all of them corrected together."""
    raw = [
        test
        for scores in bases
        for first, second, task_type in list_pairs(scores)
        if {first, second} <= set(scores.variants)
        and (test := scores.compare(first, second, task_type)) is not None
    ]
    found: dict[str, dict[tuple[str, str, str], TaskTypeTest]] = {one.base: {} for one in bases}
    for one in correct_tests(raw):
        found[one.base][one.first, one.second, one.task_type] = one
    return dict(found)


@dataclass(frozen=True)
class _Base:
    """What a report says of one base.

    Attributes
    ----------
    done : its finished runs, with their records.
    against : tests against the baseline.
    claimed : tests that the claims need.
    """

    config: StudyConfig
    folder: StudyFolder
    scores: BaseScores
    done: Mapping[StudyRun, RunRecord]
    against: Tests
    claimed: Tests

    def summarise(self) -> dict[str, Any]:
        scores, size = self.scores, self._parameters()
        names = paper_variants(self.config)
        verdicts = [
            (claim, *judge_claim(claim, names, self.claimed, self.config, size)) for claim in CLAIMS
        ]
        return {
            "name": scores.base,
            "parameters": rounded(size, 0),
            "task_types": scores.task_types,
            "tasks": {
                task_type: [{"task": task, "metric": scores.metric(task)} for task in tasks]
                for task_type, tasks in scores.tasks.items()
            },
            "variants": [self._variant(name) for name in scores.variants],
            "claims": [
                {
                    "number": claim.number,
                    "text": claim.text,
                    "kind": claim.kind,
                    "word": word,
                    "judgements": [asdict(one) for one in judgements],
                }
                for claim, word, judgements in verdicts
            ],
            "heatmaps": list(self._heatmaps()),
        }

    def _parameters(self) -> float:
        """Return the size of the base alone: of the whole model, less the pooling.

        An adapter is folded into the weights when a model is loaded or counted beside them, and
        is small either way.
        """
        for run, record in self.done.items():
            whole = self.scores.cost(run.variant, "parameters")
            if math.isfinite(whole):
                return whole - float(record.training.get("pooling_parameters", 0))
        return math.nan

    def _variant(self, name: str) -> dict[str, Any]:
        scores = self.scores
        own = {run: record for run, record in self.done.items() if run.variant == name}
        trained = [record.training for record in own.values()]
        analyses = [record.analysis for record in own.values()]
        entry = next(variant for variant in self.config.variants if variant.name == name)
        spec = next(iter(own)).train.model
        rows = {one: scores.task_type_score(name, one) for one in scores.task_types}
        costs = {f"score_{cost}": scores.cost(name, cost) for cost in _COSTS}
        costs |= {f"train_{cost}": _median(trained, cost) for cost in _TRAINING}
        costs["flops"] = _median(analyses, "flops")
        gains = [gain for one in trained if (gain := late_gain(one.get("curve", []))) is not None]
        return {
            "name": name,
            "design": f"{spec.pooling}+{spec.attention}",
            "ablation": entry.ablation,
            "seeds": [run.seed for run in own],
            "scores": {one: _score(row) for one, row in rows.items() if row is not None},
            "tests": {
                task_type: _shown(test, self.config.alpha)
                for (first, _, task_type), test in self.against.items()
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

    def _heatmaps(self) -> Iterator[dict[str, Any]]:
        """Yield layer correlations: of the untrained base, then of the paper's models."""
        for attention in ATTENTIONS:
            run = next((one for one in self.done if one.train.model.attention == attention), None)
            if run is not None and (untrained := self.folder.read_base(run)):
                yield _heatmap(f"before training, {attention}", untrained)
        for name in paper_variants(self.config).values():
            run = next((one for one in self.done if one.variant == name), None)
            if run is not None and "correlation" in self.done[run].analysis:
                title = f"{name} after training, seed {run.seed}"
                yield _heatmap(title, self.done[run].analysis)


def _heatmap(title: str, analysis: Mapping[str, Any]) -> dict[str, Any]:
    matrix = [[round(value, 2) for value in row] for row in analysis["correlation"]]
    return {"title": title, "matrix": matrix}


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


def _median(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    values = [float(row[name]) for row in rows if row.get(name) is not None]
    return median(values) if values else math.nan


def late_gain(curve: Sequence[Sequence[float]]) -> float | None:
    """Return the share by which the loss still fell from the fourth to the last fifth of a run.

    Near 0 where training has converged; None where the curve has fewer than ten points.
    """
    fifth = len(curve) // 5
    if fifth < 2:
        return None
    fourth, last = curve[-2 * fifth : -fifth], curve[-fifth:]
    return 1 - fmean(loss for _, loss in last) / fmean(loss for _, loss in fourth)
