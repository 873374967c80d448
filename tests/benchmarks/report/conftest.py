"""A results folder such as 'millpond bench' leaves: 6 models, 4 task types, 10 tasks, seeded."""

import math
from itertools import combinations
from statistics import fmean, stdev

import numpy as np
import pytest

from benchmarks.report import collect
from benchmarks.scoring.results import QueryHits, Result, TopHit, read_results, write_result
from benchmarks.significance.comparison import (
    CompareConfig,
    Comparison,
    Difference,
    TaskTypeDifference,
)
from retrieval import Fingerprint

MODELS = {
    "bm25": 0.62,
    "smollm2-135m:prompt_eos+causal": 0.47,
    "smollm2-135m:mean+causal": 0.38,
    "smollm2-135m:mean+bidirectional,base_layers=12": 0.37,
    "smollm2-135m:latent_attention+bidirectional,base_layers=12": 0.55,
    "millpond-135m": 0.66,
}
TASKS = {
    "scifact": ("retrieval", "ndcg@10", 300),
    "cranfield": ("retrieval", "ndcg@10", 225),
    "cisi": ("retrieval", "ndcg@10", 76),
    "medline": ("retrieval", "ndcg@10", 30),
    "sts-benchmark": ("sts", "spearman", 400),
    "sick-relatedness": ("sts", "spearman", 200),
    "banking77": ("classification", "accuracy", 10),
    "trec-questions": ("classification", "accuracy", 10),
    "twenty-newsgroups": ("clustering", "v_measure", 10),
    "arxiv-titles": ("clustering", "v_measure", 10),
}
MISSING = ("smollm2-135m:mean+causal", "cisi")
UNDEFINED = ("smollm2-135m:mean+bidirectional,base_layers=12", "sick-relatedness")
LAST_QUERY = "</script><script>alert(\"query\")</script> & 'quoted' <b>bold</b>"
TITLE_OF_LAST = '</script><script>alert("title")</script> "quotes" <img src=x onerror=alert(1)>'
CREATED = "2026-11-21T08:00:00+00:00"
GRAINS = ("lift", "drag", "boundary layer", "pressure", "heat transfer", "flutter", "shock wave")


def ranks(values):
    order = np.argsort(np.argsort(values))
    return order.astype(float)


def item_scores(rng, task_type, level, hard):
    if task_type == "retrieval":
        found = rng.random(len(hard)) < level * 1.3 * (1 - 0.6 * hard)
        return np.where(found, 1 / np.log2(1 + rng.integers(1, 8, len(hard))), 0.0)
    return np.clip(level + 0.1 * hard + 0.02 * rng.standard_normal(len(hard)), 0, 1)


def hits_of(rng, task, ids, scores):
    for number, (query_id, score) in enumerate(zip(ids, scores, strict=True)):
        last = number == len(ids) - 1
        topic = GRAINS[number % len(GRAINS)]
        query = (
            f"what is known about {topic} of {task} case {number} in a slender body of revolution"
        )
        hits = []
        for rank in range(10):
            doc = int(rng.integers(0, 900))
            title = (
                "" if doc % 9 == 0 else f"{GRAINS[doc % len(GRAINS)].title()} of bodies, part {doc}"
            )
            if last:
                title = TITLE_OF_LAST
            text = (
                f"This note gives {topic} measured in tunnel {doc} and compares it with theory. "
                * 4
            )
            hits.append(
                TopHit(
                    f"{task}-{doc}",
                    1 - rank / 20,
                    int(rank == 0 and score > 0.5),
                    title,
                    text[:300],
                )
            )
        yield QueryHits(query_id, LAST_QUERY if last else query, hits)


def make_result(rng, model, task, level, hard, gold):
    task_type, metric, size = TASKS[task]
    notes = []
    if task_type == "sts":
        cosines = level * gold / 5 + (1 - level) * rng.random(size)
        items = {"cosine": list(cosines), "gold": list(gold)}
        score = float(np.corrcoef(ranks(cosines), ranks(gold))[0, 1])
        if (model, task) == UNDEFINED:
            items["cosine"] = [0.5] * size
            score = math.nan
            notes.append("Spearman's correlation is undefined: every cosine is 0.5.")
    else:
        scores = item_scores(rng, task_type, level, hard)
        items = {metric: [float(value) for value in scores]}
        score = float(scores.mean())
    if task_type == "retrieval" and task == "cranfield":
        notes.append("2 of 227 queries have no relevant document and are left out.")
    costs = {"seconds": 100 * level + len(model), "peak_memory_bytes": 2.1e9}
    if model != "bm25":
        costs |= {"tokens_per_second": 9000 / len(model), "parameters": 1.345e8 + len(model)}
    if task_type == "retrieval":
        costs |= {"query_p50_seconds": 0.001 * len(model), "query_p95_seconds": 0.0015 * len(model)}
        costs["index_bytes"] = 1.2e7
    return Result(
        model=model,
        task=task,
        task_type=task_type,
        main_metric=metric,
        metrics={metric: score, "other": 0.5},
        item_ids=[str(number + (task_type == "retrieval")) for number in range(size)],
        items=items,
        fingerprint=Fingerprint(model, {"model": model}),
        data={"sha256": task.encode().hex(), "items": size},
        settings={"k": 100, "protocol": 1},
        run_digest=f"{model} {task}",
        costs=costs,
        versions={"millpond": "0.1.0", "torch": "2.9.0" if model != "bm25" else "2.8.0"},
        notes=notes,
        created=CREATED,
    )


def write_results(folder, models=MODELS, tasks=TASKS, rename=lambda name: name):
    for task in tasks:
        task_type, _, size = TASKS[task]
        shared = np.random.default_rng(sum(map(ord, task)))
        hard, gold = shared.random(size), np.round(shared.random(size) * 5, 1)
        for number, (model, level) in enumerate(models.items()):
            if (model, task) == MISSING or (model == "bm25" and task_type != "retrieval"):
                continue
            rng = np.random.default_rng([number, sum(map(ord, task))])
            result = make_result(rng, rename(model), task, level, hard, gold)
            hits = None
            if task_type == "retrieval":
                scores = result.items[result.main_metric]
                hits = hits_of(rng, task, result.item_ids, scores)
            write_result(folder, result, hits)
    return folder


def z_test(gaps):
    """A two-sided normal test of the mean: a stand-in for the real tests."""
    spread = stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0
    return math.erfc(abs(fmean(gaps)) / spread / math.sqrt(2)) if spread else 1.0


def difference_of(task, one, other, count, alpha):
    metric = one.main_metric
    gap = one.main_score - other.main_score
    key = "cosine" if one.task_type == "sts" else metric
    gaps = [a - b for a, b in zip(one.items[key], other.items[key], strict=True)]
    half = 2 * stdev(gaps) / math.sqrt(len(gaps))
    p = math.nan if math.isnan(gap) else max(1e-4, z_test(gaps))
    corrected = min(1.0, p * count) if p == p else p
    return Difference(
        task, one.task_type, metric, one.model, other.model, one.main_score, other.main_score, gap,
        gap - half, gap + half, math.nan if key == "cosine" else fmean(gaps) / (stdev(gaps) or 1),
        len(gaps), p, corrected, bool(corrected < alpha), "" if p == p else "A score is undefined.",
    )  # fmt: skip


def compare_simply(results, baseline="", alpha=0.05):
    """Return a Comparison with normal tests and Bonferroni's correction."""
    models = list(dict.fromkeys(result.model for result in results))
    tasks = list(dict.fromkeys(result.task for result in results))
    pairs = [
        (task, one, other)
        for task in tasks
        for one, other in combinations([r for r in results if r.task == task], 2)
        if not baseline or baseline in (one.model, other.model)
    ]
    differences = [difference_of(*pair, len(pairs), alpha) for pair in pairs]
    task_types = []
    for task_type in dict.fromkeys(result.task_type for result in results):
        scores = {}
        for result in results:
            if result.task_type == task_type and not math.isnan(result.main_score):
                scores.setdefault(result.model, {})[result.task] = result.main_score
        for one, other in combinations(scores, 2):
            if baseline and baseline not in (one, other):
                continue
            both = sorted(set(scores[one]) & set(scores[other]))
            means = [fmean(scores[name][task] for task in both) for name in (one, other)]
            low = 2 / 2 ** len(both)
            note = f"{len(both)} tasks cannot give a p below {low:g}."
            task_types.append(
                TaskTypeDifference(
                    task_type,
                    one,
                    other,
                    both,
                    *means,
                    means[0] - means[1],
                    low,
                    1.0,
                    low,
                    False,
                    note,
                )
            )
    return Comparison(
        CompareConfig(alpha=alpha, baseline=baseline or None, resamples=10_000, seed=7),
        models,
        tasks,
        differences,
        task_types,
        ("bm25 was not run on the tasks of STS, classification and clustering.",),
    )


@pytest.fixture(scope="session")
def results_folder(tmp_path_factory):
    return write_results(tmp_path_factory.mktemp("report") / "results")


@pytest.fixture(scope="session")
def results(results_folder):
    return read_results(results_folder)


@pytest.fixture(scope="session")
def comparison(results):
    return compare_simply(results)


@pytest.fixture(scope="session")
def report(results_folder, results, comparison):
    return collect(results_folder, results, comparison, "0.1.0", CREATED)


@pytest.fixture(scope="session")
def compare():
    return compare_simply


@pytest.fixture
def write_bench():
    """Write a small folder whose model names are made by a function; return it and its results."""

    def write(folder, rename):
        models = dict(list(MODELS.items())[:3])
        write_results(folder, models, ("medline", "sts-benchmark"), rename)
        return folder, read_results(folder)

    return write
