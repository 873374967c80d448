"""The scores that the docs quote, made again: ``make regressions``; with UPDATE=1 they are written.

    python -m benchmarks.lab.regressions DATA [--model NAME ...] [--out FOLDER] [--update]

scores every model of regressions.toml on its sets, which lie under DATA, and exits with 1 where a
score is further from the expected one than its tolerance. ``--update`` writes what was found into
regressions.toml and docs/regressions.md instead. Finished scores are kept in FOLDER.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from benchmarks import BenchConfig, run_benchmark
from benchmarks.scoring.models import Load, load_model
from retrieval.errors import MillpondError, UnknownNameError, UsageError

TABLE = Path(__file__).with_name("regressions.toml")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "regressions.md"

_HEAD = """\
# Scores

What `millpond bench` scores today. Every quality score that the other pages quote is one of these.

"""
_FOOT = """
Written by `make regressions UPDATE=1` from
[benchmarks/lab/regressions.toml](../benchmarks/lab/regressions.toml), which says what each column
is called in a command, and how far a score may be off. `make regressions` scores all of it again,
on a folder of your own data (`DATA=FOLDER`) with the sets of
[the built-in model](builtin-model.md#scores), and fails where one is further off. Models are run
with `--speed fast`.
"""


@dataclass(frozen=True)
class Expected:
    """What a model scores on a set by the main metric, and how far it may be from that."""

    model: str
    set: str
    score: float
    tolerance: float


@dataclass(frozen=True)
class Plan:
    """What is scored.

    Attributes
    ----------
    models : how the docs call a model to what ``bench`` calls it.
    sets : name to its main metric and its place in the data folder.
    rows : in the order of the file.
    """

    models: Mapping[str, str]
    sets: Mapping[str, tuple[str, str]]
    rows: Sequence[Expected]

    def score(self, model: str, name: str) -> float | None:
        """Return what a model is expected to score on a set, None where it is not scored."""
        found = [row.score for row in self.rows if (row.model, row.set) == (model, name)]
        return found[0] if found else None

    def render(self) -> str:
        """Return the page: a row for each set, a column for each model."""
        models = list(self.models)
        lines = [f"| set | metric | {' | '.join(models)} |", f"|---|---|{'---:|' * len(models)}"]
        for name, (metric, _) in self.sets.items():
            scores = [self.score(model, name) for model in models]
            cells = ["" if score is None else f"{score:g}" for score in scores]
            lines.append(f"| {name} | {metric} | {' | '.join(cells)} |")
        return _HEAD + "\n".join(lines) + "\n" + _FOOT


def read_plan(text: str) -> Plan:
    """Return the plan in a text of TOML."""
    data = tomllib.loads(text)
    sets = {name: (one["metric"], one["path"]) for name, one in data["sets"].items()}
    rows = [Expected(one["model"], one["set"], one["score"], one["tolerance"])
            for one in data["scores"]]  # fmt: skip
    return Plan(data["models"], sets, rows)


def measure(
    plan: Plan, label: str, data: Path, out: Path, *, load: Load = load_model
) -> list[Expected]:
    """Return the rows of one model with the scores found now.

    Raises
    ------
    MillpondError : as ``run_benchmark``.
    """
    rows = [row for row in plan.rows if row.model == label]
    config = BenchConfig(
        models=[plan.models[label]],
        tasks=[str(data / plan.sets[row.set][1]) for row in rows],
        out=out,
        speed="fast",
    )
    results = run_benchmark(config, notify=partial(print, file=sys.stderr), load=load)
    for row, result in zip(rows, results, strict=True):
        metric = plan.sets[row.set][0]
        if result.main_metric != metric:
            raise UsageError(f"{row.set}: bench scores {result.main_metric}, not {metric}.")
    return [
        replace(row, score=result.main_score) for row, result in zip(rows, results, strict=True)
    ]


def main(arguments: Sequence[str] | None = None, *, load: Load = load_model) -> None:
    """Score, and compare with the table or write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, help="the folder that the paths of the sets begin in")
    parser.add_argument("--model", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--out", type=Path, default=Path("build/regressions"))
    parser.add_argument("--update", action="store_true", help="write the scores found")
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--page", type=Path, default=PAGE)
    asked = parser.parse_args(arguments)
    text = asked.table.read_text(encoding="utf-8")
    plan = read_plan(text)
    for name in asked.model:
        if name not in plan.models:
            raise UnknownNameError("model of the table", name, plan.models)
    off = failed = 0
    for label in asked.model or plan.models:
        try:
            found = measure(plan, label, asked.data, asked.out, load=load)
        except MillpondError as error:
            print(f"FAILED  {label}: {error}")
            failed += 1
            continue
        for row in found:
            off += _compare(row, plan.score(row.model, row.set))
            text = _write_score(text, row)
    if asked.update:
        asked.table.write_text(text, encoding="utf-8")
        asked.page.write_text(read_plan(text).render(), encoding="utf-8")
    raise SystemExit(int(failed > 0 or (off > 0 and not asked.update)))


def _compare(now: Expected, expected: float | None) -> bool:
    """Print a score beside what was expected, and return whether it is too far off."""
    assert expected is not None
    far = not abs(now.score - expected) <= now.tolerance
    print(
        f"{'DIFFERS' if far else 'ok':<8}{now.model} on {now.set}: {now.score:.4f}, "
        f"expected {expected:g} within {now.tolerance:g}",
        flush=True,
    )
    return far


def _write_score(text: str, row: Expected) -> str:
    """Return the table with the score of one row replaced."""
    begin = f'{{ model = "{row.model}", set = "{row.set}", score = '
    return re.sub(re.escape(begin) + r"[\d.eE+-]+", lambda _: f"{begin}{row.score:.4f}", text)


if __name__ == "__main__":
    main()
