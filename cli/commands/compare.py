"""``millpond compare``: which differences between models are significant."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from cli.console import (
    clean,
    format_table,
    message,
    print_json,
    print_line,
    progress,
    stdout_width,
    warn,
    wrap,
)
from cli.options import JsonOption, ResultsArgument, flag, option
from retrieval.errors import UsageError, count_noun

if TYPE_CHECKING:
    from benchmarks.significance.comparison import (
        Comparison,
        Difference,
        Ranking,
        TaskTest,
        TaskTypeDifference,
    )
    from benchmarks.significance.power import PowerRow

_Row = TypeVar("_Row", bound="Difference | TaskTypeDifference")

_WIDTH = 80
_TESTS = {
    "randomisation": "Fisher's randomisation test with {resamples:,} random signs",
    "wilcoxon": "Wilcoxon's signed-rank test",
    "t": "Student's t-test of pairs",
}
_CORRECTIONS = {"holm": "Holm", "benjamini-hochberg": "BH"}
_LISTED = {"pairs": "all pairs", "neighbours": "each model and the next", "baseline": "baseline"}
_ITEMS = {
    "retrieval": ("query", "queries"),
    "sts": ("pair of texts", "pairs of texts"),
    "classification": ("text",),
    "clustering": ("split",),
}


def compare(
    results: ResultsArgument,
    metric: Annotated[
        str | None, option("NAME", "The metric to compare by.", shown="each task's main metric")
    ] = None,
    alpha: Annotated[float, option("P", "The significance level, after correction.")] = 0.05,
    baseline: Annotated[
        str | None, option("MODEL", "Compare the others with this one.", shown="all pairs")
    ] = None,
    adjacent: Annotated[
        bool, flag("--adjacent", "Over all tasks, test each model against the next one.")
    ] = False,
    test: Annotated[str, option("NAME", "randomisation, wilcoxon or t.")] = "randomisation",
    correction: Annotated[str, option("NAME", "holm or benjamini-hochberg.")] = "holm",
    family: Annotated[
        str, option("NAME", "Correct over task-type or all tests together.")
    ] = "task-type",
    resamples: Annotated[
        int, option("N", "Random sign flips of the randomisation test.")
    ] = 100_000,
    bootstrap_resamples: Annotated[
        int, option("N", "Resamples for the intervals, and for STS tasks.")
    ] = 10_000,
    seed: Annotated[int, option("N", "Seed of everything random.")] = 0,
    power: Annotated[
        bool, flag("--power", "Say how many queries or tasks --difference would need.")
    ] = False,
    difference: Annotated[float, option("D", "The difference that --power plans for.")] = 0.01,
    json: JsonOption = False,
) -> None:
    """Test which differences between models are significant.

    Compares every pair of models on every task, over each task type, and over all tasks, where the
    models are ranked in groups that cannot be told apart. Imported scores without items are
    compared over all tasks alone.

    \b
    Examples:
      millpond compare results
      millpond compare results --baseline bm25 --metric recall@100 --json
      millpond compare leaderboard --adjacent
    """
    from benchmarks.scoring.results import null_for_nan, read_results
    from benchmarks.significance.compare import compare as compare_results
    from benchmarks.significance.comparison import CompareConfig
    from benchmarks.significance.power import plan_power

    config = CompareConfig(
        metric=metric,
        alpha=alpha,
        baseline=baseline,
        adjacent=adjacent,
        test=test,
        correction=correction,
        family=family,
        resamples=resamples,
        bootstrap_resamples=bootstrap_resamples,
        seed=seed,
    )
    if power and not 0 < difference < 1:
        raise UsageError(f"--difference is {difference:g}; expected one between 0 and 1, as 0.01.")
    with progress("Comparing", None, "pairs") as advance:
        found = compare_results(read_results(results), config, progress=advance)
    if json:
        ranking = found.ranking
        tables: tuple[tuple[str, Sequence[Any]], ...] = (
            ("difference", found.differences),
            ("task_type", found.task_types),
            ("ranked", ranking.rows if ranking else ()),
            ("over_tasks", ranking.tests if ranking else ()),
            ("power", plan_power(found, difference) if power else ()),
        )
        for kind, rows in tables:
            for row in rows:
                print_json(null_for_nan({"type": kind, **asdict(row)}))
    else:
        _Report(found).show()
        if power:
            _print_power(plan_power(found, difference), difference, found.config.alpha)
    ranking = _shown_ranking(found)
    for note in (*found.notes, *(ranking.notes if ranking else ())):
        warn(f"{note}.")
    for line in _summarise(found):
        (message if json else print_line)(line)


class _Report:
    """Prints a comparison in tables that fit 80 columns."""

    def __init__(self, found: Comparison) -> None:
        self._found, self._config = found, found.config
        self._letters = {model: _letter(number) for number, model in enumerate(found.models)}
        self._correction = _CORRECTIONS[found.config.correction]
        self._level = f"{100 * (1 - found.config.alpha):g}%"

    def show(self) -> None:
        found, ranking = self._found, _shown_ranking(self._found)
        if ranking is not None:
            self._show_ranking(ranking)
        if not found.differences:
            return
        if ranking is not None:
            print_line()
        print_line("Models")
        _print_rows([(f"  {letter}", clean(m)) for m, letter in self._letters.items()])
        for task in found.tasks:
            if rows := [one for one in found.differences if one.task == task]:
                self._show_task(rows)
        for task_type in dict.fromkeys(one.task_type for one in found.task_types):
            self._show_task_type([one for one in found.task_types if one.task_type == task_type])
        print_line()
        _print_prose(_explain(found))
        print_line()

    def _show_ranking(self, ranking: Ranking) -> None:
        """Print the models in groups, and under them the tests over all tasks."""
        print_line(
            f"Ranking over {count_noun(len(ranking.tasks), 'task')}, mean of the main scores"
        )
        table = [("  group", "rank", f"{self._level} of rank", "mean", "model")]
        for row in ranking.rows:
            group = str(row.group) if ranking.grouped else "-"
            ends = f"{row.low} to {row.high}"
            name = clean(row.model) + (" (imported)" if row.imported else "")
            table.append((f"  {group}", str(row.rank), ends, _score(row.mean), name))
        _print_rows(table)
        print_line()
        grouping = (
            f"A group starts with its best model and ends before the first model that Wilcoxon's "
            f"signed-rank test over tasks, corrected by {self._correction} for all pairs, tells "
            f"apart from it. "
            if ranking.grouped
            else ""
        )
        stage = "tasks, and items within them" if ranking.hierarchical else "tasks"
        _print_prose(
            f"{grouping}Intervals: bootstrap of the {stage}. The smallest possible p of Wilcoxon's "
            f"test over {len(ranking.tasks)} tasks is {ranking.smallest_p:.2g}."
        )
        if ranking.listed != "pairs" or not self._found.differences:
            self._show_task_tests(ranking)

    def _show_task_tests(self, ranking: Ranking) -> None:
        print_line()
        print_line(f"Tests over all tasks: {_LISTED[ranking.listed]}, by rank")
        rank = {row.model: row.rank for row in ranking.rows}
        corrected = f"{self._correction} p"
        level = f"{self._level} interval"
        table = [("  ranks", "difference", level, "p", corrected, "perm. p", corrected)]
        for one in ranking.tests:
            tests = (*_p_values(one), _p_value(one.p_permutation))
            more = _p_value(one.p_permutation_corrected)
            table.append((f"  {rank[one.first]}-{rank[one.second]}", *_gap(one), *tests, more))
        _print_rows(table)
        print_line()
        real = sum(one.significant for one in ranking.tests)
        _print_prose(
            f"{_count_real(real, len(ranking.tests), ' over all tasks')} at "
            f"{self._config.alpha:g}. "
            f"p: Wilcoxon; perm.: permutation of the mean."
        )

    def _show_task(self, rows: Sequence[Difference]) -> None:
        counts = sorted({one.items for one in rows})
        items = count_noun(counts[-1], *_ITEMS[rows[0].task_type])
        if len(counts) > 1:
            items = f"{counts[0]:,} to {items}"
        metrics = ", ".join(dict.fromkeys(one.metric for one in rows))
        self._show_pairs(
            f"{clean(rows[0].task)}: {clean(metrics)}, {items}",
            ("scores", "difference", f"{self._level} interval", "effect", "p"),
            rows,
            lambda one: (
                f"{_score(one.first_score)} {_score(one.second_score)}",
                *_gap(one),
                "-" if math.isnan(one.effect_size) else f"{one.effect_size:+.2f}",
                *_p_values(one, "  "),
            ),
        )

    def _show_task_type(self, rows: Sequence[TaskTypeDifference]) -> None:
        self._show_pairs(
            f"{rows[0].task_type}, all tasks that both models have",
            ("tasks", "mean scores", "difference", "p"),
            rows,
            lambda one: (
                str(len(one.tasks)),
                f"{_score(one.first_mean)} {_score(one.second_mean)}",
                _score(one.difference, "+"),
                *_p_values(one, "  "),
            ),
        )

    def _show_pairs(
        self,
        title: str,
        head: Sequence[str],
        rows: Sequence[_Row],
        cells: Callable[[_Row], Sequence[str]],
    ) -> None:
        """Print one line a pair, the largest difference first, and then the notes on pairs."""
        print_line()
        print_line(title)
        rows = sorted(rows, key=lambda one: (math.isnan(one.difference), -abs(one.difference)))
        pairs = [f"{self._letters[one.first]}-{self._letters[one.second]}" for one in rows]
        table = [["", *head, f"{self._correction} p"]]
        table += [[pair, *cells(one)] for pair, one in zip(pairs, rows, strict=True)]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for first, *rest in table:
            padded = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
            print_line("  ".join([f"  {first}".ljust(widths[0] + 2), *padded]).rstrip())
        noted: dict[str, list[str]] = {}
        for pair, one in zip(pairs, rows, strict=True):
            if one.note:
                noted.setdefault(one.note, []).append(pair)
        for note, about in noted.items():
            of_all = len(about) == len(rows) > 1
            _print_prose(f"{'All pairs' if of_all else ', '.join(about)}: {note}.", "  ")


def _shown_ranking(found: Comparison) -> Ranking | None:
    """Return the ranking over all tasks where it says something, or was asked for."""
    ranking = found.ranking
    shown = ranking is not None and (ranking.is_telling or found.config.adjacent)
    return ranking if shown else None


def _print_power(rows: Sequence[PowerRow], difference: float, alpha: float) -> None:
    """Print what can be found now, and how much it takes to find the wanted difference."""
    print_line()
    print_line(f"Power: to find a difference of {difference:g} four times in five at {alpha:g}")
    table = [("  task", "items", "spread", "found now", "needed", "corrected for")]
    for row in rows:
        table.append(
            (
                f"  {clean(row.where) or 'over all tasks'}",
                f"{row.items:,}",
                _score(row.deviation),
                _score(row.detectable),
                f"{row.needed:,}",
                f"{row.tests:,}: {row.needed_corrected:,}",
            )
        )
    _print_rows(table)
    print_line()
    if not rows:
        _print_prose("No two models differ on a task, so no spread is known.")
    _print_prose(
        "Spread: standard deviation of the paired differences, median over the pairs. Found now: "
        "the smallest difference that so many items find four times in five, after correction. "
        "Needed: items for one test alone, and after correction for so many tests."
    )


def _explain(found: Comparison) -> str:
    rows: list[Difference | TaskTypeDifference] = [*found.differences, *found.task_types]
    tests = Counter(one.task_type for one in rows if not math.isnan(one.p_corrected))
    together = (
        ", ".join(f"{count:,} of {task_type}" for task_type, count in tests.items())
        if found.config.family == "task-type" and len(tests) > 1
        else count_noun(tests.total(), "test")
    )
    kinds = {one.task_type for one in found.differences}
    usual = _TESTS[found.config.test].format(resamples=found.config.resamples)
    parts = [usual] if kinds - {"sts", "classification"} else []
    if "sts" in kinds:
        parts.append(
            f"for STS a paired bootstrap with {found.config.bootstrap_resamples:,} resamples"
        )
    if "classification" in kinds:
        parts.append("for classification a t-test over texts and draws")
    if found.task_types:
        parts.append("for all tasks Wilcoxon's signed-rank test")
    return (
        f"p, two-sided: {'; '.join(parts)}. "
        f"{_CORRECTIONS[found.config.correction]} p: corrected for {together}; "
        f"* is below {found.config.alpha:g}. Difference: first minus second, "
        f"with a paired bootstrap interval that is not corrected. Effect: Cohen's d for pairs."
    )


def _count_real(real: int, total: int, where: str = "") -> str:
    """Return such as "2 of 3 differences are significant"."""
    verb = "is" if 1 in (real, total) else "are"
    return f"{real:,} of {count_noun(total, 'difference')}{where} {verb} significant"


def _summarise(found: Comparison) -> list[str]:
    """Return the counts of significant differences, on tasks and over task types."""
    name = "Holm" if found.config.correction == "holm" else "Benjamini-Hochberg"
    real = sum(one.significant for one in found.differences)
    total = len(found.differences)
    if not total:
        return []
    untested = sum(math.isnan(one.p) for one in found.differences)
    lines = [
        f"{_count_real(real, total)} at {found.config.alpha:g} after "
        f"{name}{f'; {untested:,} could not be tested' if untested else ''}."
    ]
    if found.task_types:
        real = sum(one.significant for one in found.task_types)
        lines.append(f"Over whole task types: {real:,} of {len(found.task_types):,}.")
    return lines


def _print_rows(table: Sequence[Sequence[str]]) -> None:
    for line in format_table(table, None):
        print_line(line)


def _print_prose(text: str, indent: str = "") -> None:
    width = min(_WIDTH, stdout_width() or _WIDTH)
    for line in wrap(clean(text), width - len(indent), len(text)):
        print_line(indent + line)


def _letter(number: int) -> str:
    """Return A to Z, then AA, AB and so on."""
    before, last = divmod(number, 26)
    return (_letter(before - 1) if before else "") + chr(ord("A") + last)


def _score(value: float, sign: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:{sign}.4f}"


def _gap(one: Difference | TaskTest) -> tuple[str, str]:
    """Return the difference and its interval."""
    return _score(one.difference, "+"), f"{_score(one.low, '+')} {_score(one.high, '+')}"


def _p_values(one: Difference | TaskTypeDifference | TaskTest, blank: str = "") -> tuple[str, str]:
    """Return p, and the corrected one with a star where it is significant."""
    return _p_value(one.p), _p_value(one.p_corrected) + (" *" if one.significant else blank)


def _p_value(p: float) -> str:
    if math.isnan(p):
        return "-"
    return f"{p:.4f}" if p >= 0.0001 else "<0.0001"
