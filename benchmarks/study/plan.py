"""What a study will cost: tokens, time and disk, from a few steps and a few texts of real runs."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.study.config import StudyConfig
from benchmarks.study.runner import check_runs
from benchmarks.study.runs import StudyFolder, StudyRun, list_runs
from benchmarks.study.tasks import LoadedTask, embedded_texts, load_tasks, sample_texts
from embedder.pooling import POOLINGS
from embedder.training.config import CheckpointConfig
from embedder.training.data import Pair, check_data
from retrieval.protocols import Notify, silent

if TYPE_CHECKING:
    from embedder.training import StepReport

CALIBRATION_STEPS = 3

Count = Callable[[Sequence[str]], list[float]]
"""Texts to the number of tokens of each."""

_SAMPLED = 64
_CHARACTERS_A_TOKEN = 4.0
_CHECKPOINT_PARTS = 3
"""Weights and the two moments of AdamW."""


@dataclass(frozen=True)
class BaseRates:
    """What one real run of a base took.

    Attributes
    ----------
    tokens_a_pair : of training; an estimate from characters where nothing was run.
    tokens_a_text : of scoring, the mean over all texts of all tasks.
    step_seconds, encode_tokens_per_second, fixed_seconds : NaN where nothing was run. Fixed is
        what a run takes beside steps and texts: loading, checking, saving.
    model_bytes : of a trained model; 0 where not known.
    width : of the vectors; 0 where not known.
    """

    tokens_a_pair: float
    tokens_a_text: float
    step_seconds: float = math.nan
    encode_tokens_per_second: float = math.nan
    fixed_seconds: float = math.nan
    model_bytes: int = 0
    width: int = 0


@dataclass(frozen=True)
class PlanRow:
    """A variant on a base, over the seeds that are not done yet."""

    base: str
    variant: str
    runs: int
    train_tokens: int
    score_tokens: int
    seconds: float
    kept_bytes: int


@dataclass(frozen=True)
class Plan:
    """A study before it is run.

    Attributes
    ----------
    done : runs that are finished already; the rows are of the others.
    disk_bytes : at most, at any time: what stays, and one run's checkpoints, vectors and index.
    calibrated : whether times and bytes come from real runs.
    texts : that each run embeds to be scored.
    """

    rows: Sequence[PlanRow]
    done: int
    disk_bytes: int
    calibrated: bool
    texts: int

    @property
    def seconds(self) -> float:
        """Of all rows together."""
        return sum(row.seconds for row in self.rows)


def plan_study(
    config: StudyConfig,
    out: Path | None,
    *,
    calibrate: bool = True,
    device: str | None = None,
    notify: Notify = silent,
) -> Plan:
    """Return what is left to do and an estimate of what it takes; nothing of it is kept.

    One run of each base is run for three steps, with a pooling that has weights where there is
    one, so the estimate is rather too high for the others.

    Parameters
    ----------
    out : the study's folder, whose finished runs are left out.
    calibrate : whether to run anything; else tokens are guessed at four characters each, and
        times are NaN.

    Raises
    ------
    UsageError, RecordError : as ``run_study``, whose checks are all made.
    """
    runs = list_runs(config)
    folder = StudyFolder(out) if out is not None else None
    records = {run: folder.read_record(run) if folder else None for run in runs}
    left = [run for run, record in records.items() if record is None or record.status != "done"]
    check_runs(left, config.bench)
    with tempfile.TemporaryDirectory() as scratch:
        tasks = load_tasks(config, Path(scratch) / "tasks", notify)
        rates = {}
        for base in dict.fromkeys(run.base for run in left):
            chosen = _choose([run for run in left if run.base == base])
            if calibrate:
                notify(f"Calibrating on {chosen.name}: {CALIBRATION_STEPS} steps, a few texts")
                rates[base] = _calibrate(chosen, tasks, Path(scratch), device, notify)
            else:
                rates[base] = _guess(chosen, tasks)
        texts = sum(len(embedded_texts(one.data)) for one in tasks)
    rows = _rows(config, left, rates, texts)
    # One run needs checkpoints, vectors and an index while it runs.
    copies = 1 + _CHECKPOINT_PARTS * (config.train.checkpoint.keep + 1)
    passing = (copies * one.model_bytes + 8 * texts * one.width for one in rates.values())
    disk = sum(row.kept_bytes for row in rows) + max(passing, default=0)
    return Plan(rows, len(runs) - len(left), disk, calibrate, texts)


def _choose(runs: Sequence[StudyRun]) -> StudyRun:
    """Return the last run whose pooling has weights, or the last one."""
    heavy = [run for run in runs if POOLINGS[run.train.model.pooling].trainable]
    return (heavy or list(runs))[-1]


def _rows(
    config: StudyConfig, left: Sequence[StudyRun], rates: dict[str, BaseRates], texts: int
) -> list[PlanRow]:
    rows = []
    for base, variant in dict.fromkeys((run.base, run.variant) for run in left):
        rate = rates[base]
        count = sum((run.base, run.variant) == (base, variant) for run in left)
        pairs = config.train.steps * config.train.batch_pairs
        seconds = (
            rate.fixed_seconds
            + config.train.steps * rate.step_seconds
            + texts * rate.tokens_a_text / rate.encode_tokens_per_second
        )
        rows.append(
            PlanRow(
                base,
                variant,
                count,
                round(count * pairs * rate.tokens_a_pair),
                round(count * texts * rate.tokens_a_text),
                count * seconds,
                count * rate.model_bytes * config.keep_adapters,
            )
        )
    return rows


def _guess(run: StudyRun, tasks: Sequence[LoadedTask]) -> BaseRates:
    """Return tokens guessed from characters."""
    data = check_data(run.train)
    most = run.train.model.max_tokens
    pairs: list[Pair] = [
        source[place]
        for source in data.sources
        for place in range(0, len(source), max(1, len(source) // _SAMPLED))
    ]
    negatives = run.train.loss.hard_negatives
    sides = [[pair.query, pair.positive, *pair.negatives[:negatives]] for pair in pairs]
    tokens = sum(_guess_tokens(text, most) for side in sides for text in side)
    return BaseRates(
        tokens / len(pairs),
        _mean_tokens(tasks, lambda texts: [_guess_tokens(text, most) for text in texts]),
    )


def _guess_tokens(text: str, most: int) -> float:
    return min(most, 2 + len(text) / _CHARACTERS_A_TOKEN)


def _mean_tokens(tasks: Sequence[LoadedTask], count: Count) -> float:
    """Return the mean tokens of a text over all tasks, from a sample of each."""
    total = tokens = 0.0
    for one in tasks:
        texts = embedded_texts(one.data)
        counted = count(sample_texts(texts, _SAMPLED))
        total += len(texts)
        tokens += len(texts) * sum(counted) / max(1, len(counted))
    return tokens / max(1.0, total)


def _calibrate(
    run: StudyRun,
    tasks: Sequence[LoadedTask],
    scratch: Path,
    device: str | None,
    notify: Notify,
) -> BaseRates:
    """Train a run for a few steps, load what came out, and embed a few texts."""
    from embedder import Embedder
    from embedder.training import train

    short = replace(
        run.train,
        steps=CALIBRATION_STEPS,
        log_every_steps=1,
        checkpoint=CheckpointConfig(every_steps=0),
    )
    reports: list[StepReport] = []
    folder = scratch / run.folder_name
    started = time.monotonic()
    train(short, folder, device=device, notify=notify, progress=reports.append)
    trained = time.monotonic() - started
    warm = reports[1:]  # the first step is slow everywhere
    steps = [run.train.batch_pairs / report.pairs_per_second for report in reports]
    embedder = Embedder.load(str(folder), device=device, notify=notify)
    prompt = embedder.spec.query_prompt

    def count(texts: Sequence[str]) -> list[float]:
        return [float(len(row)) for row in embedder.tokenize(texts, prompt)]

    texts = sample_texts([t for one in tasks for t in embedded_texts(one.data)], _SAMPLED)
    embedder.encode_queries(texts[:2])
    began = time.monotonic()
    embedder.encode_queries(texts)
    took = time.monotonic() - began
    return BaseRates(
        tokens_a_pair=sum(r.tokens_per_second / r.pairs_per_second for r in warm) / len(warm),
        tokens_a_text=_mean_tokens(tasks, count),
        step_seconds=sum(steps[1:]) / len(warm),
        encode_tokens_per_second=sum(count(texts)) / took,
        fixed_seconds=trained - sum(steps),
        model_bytes=sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        width=embedder.dimension,
    )
