"""``millpond export-results`` and ``import-results``: scores in the field's own files."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cli.console import message, warn
from cli.options import ResultsArgument, argument, option
from retrieval.errors import UsageError, count_noun


def export_results(
    results: ResultsArgument,
    out: Annotated[Path | None, option("DIR", "Where the files go.", "--out", "-o")] = None,
    form: Annotated[str, option("NAME", "mteb, trec, model-index or csv.", "--format")] = "mteb",
    task_name: Annotated[
        list[str] | None,
        option(
            "OURS=THEIRS",
            "What mteb calls a task, where it cannot be told; may be repeated.",
            "--task-name",
        ),
    ] = None,
    card: Annotated[
        Path | None,
        option("MODEL_DIR", "Put this model's scores into the card in its folder instead."),
    ] = None,
) -> None:
    """Write results for mteb, TREC, cards or CSV.

    \b
    Examples:
      millpond export-results results --format mteb --out mteb-cache
      millpond export-results results --format trec --out runs
      millpond export-results results --card my-model
    """
    from benchmarks.exchange import export_results as export
    from benchmarks.exchange import write_card

    if (out is None) == (card is None):
        raise UsageError("Expected one of --out DIR and --card MODEL_DIR.")
    if card is not None:
        path, tasks = write_card(results, card)
        message(f"Wrote the scores of {count_noun(tasks, 'task')} into {path}")
        return
    assert out is not None
    names = {}
    for pair in task_name or ():
        ours, sign, theirs = pair.partition("=")
        if not (ours and sign and theirs):
            raise UsageError(
                f"--task-name is {pair!r}; expected OURS=THEIRS, such as my-scifact=SciFact."
            )
        names[ours] = theirs
    written = export(results, out, form, names=names, notify=warn)
    message(f"Wrote {count_noun(len(written), 'file')} to {out}")
    if form == "mteb":
        message(f'Next: python -c "import mteb; print(mteb.ResultCache({str(out)!r})'
                f'.load_results().to_dataframe())"')  # fmt: skip


def import_results(
    folder: Annotated[Path, argument("DIR", "Looked through for results, at any depth.")],
    out: Annotated[Path, option("RESULTS", "The results folder to add to.", "--out", "-o")],
    qrels: Annotated[
        Path | None,
        option("FILE", "Judgements of TREC runs.", shown="the qrels file beside each run"),
    ] = None,
) -> None:
    """Read results of mteb, TREC runs with qrels, and beir's JSON.

    mteb's are RESULTS/MODEL/REVISION/TASK.json, of any mteb from version 1 on. A run (.run, .trec)
    is scored with the qrels file beside it, and its folder names the task. Imported results carry
    where they came from, and compare and report mark them.

    \b
    Examples:
      millpond import-results ~/.cache/mteb --out results
      millpond import-results runs --out results --qrels qrels.txt
    """
    from benchmarks.exchange import import_results as read

    found = read(folder, out, qrels=qrels, notify=warn)
    models = count_noun(len({one.model for one in found.results}), "model")
    tasks = count_noun(len({one.task for one in found.results}), "task")
    message(
        f"Imported {count_noun(len(found.results), 'result')} of {models} on {tasks} into {out}"
        + (f"; {found.left_out:,} not imported" if found.left_out else "")
    )
    message(f"Next: millpond compare {shlex.quote(str(out))}")
