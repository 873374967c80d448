"""``millpond tune``: find the weight of hybrid search on judged queries, and keep it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cli.console import message, print_json, print_table, progress, warn
from cli.models import note_untrained
from cli.options import (
    DeviceOption,
    FolderArgument,
    JsonOption,
    SkipBadOption,
    TrustOption,
    flag,
    option,
)
from cli.store import StoredKeyOption, StoredUrlOption, use_stored_server
from embedder.environment import keep_freed_memory
from retrieval.errors import UsageError, count_noun
from retrieval.types import DEFAULT_WEIGHT, Blend

if TYPE_CHECKING:
    from benchmarks.tuning import Tuning
    from indexes import Index
    from retrieval import Query


def tune(
    folder: FolderArgument,
    queries: Annotated[
        str | None, option("FILE", "Queries: a .jsonl or .tsv file.", "--queries")
    ] = None,
    qrels: Annotated[
        Path | None, option("FILE", "Judgements: BEIR's three columns or TREC's four.", "--qrels")
    ] = None,
    dry_run: Annotated[bool, flag("--dry-run", "Print what was found and keep nothing.")] = False,
    forget: Annotated[bool, flag("--forget", "Go back to the default weight.")] = False,
    skip_bad: SkipBadOption = False,
    json: JsonOption = False,
    device: DeviceOption = None,
    url: StoredUrlOption = None,
    ask_key: StoredKeyOption = False,
    trust_remote_code: TrustOption = False,
) -> None:
    """Find how much meaning and words should count in an index.

    Scores weights from 0 (words alone) to 1 (meaning alone) by nDCG@10 on queries whose relevant
    documents are known. The best one is kept in the index, where every search finds it, if weights
    that are chosen on four fifths of the queries beat the default on the last fifth.

    \b
    Examples:
      millpond tune my-index --queries queries.jsonl --qrels qrels/dev.tsv
      millpond tune my-index --forget
    """
    from indexes import Index

    use_stored_server(folder, url, ask_key)
    if forget:
        _forget(Index.open(folder), folder)
        return
    if queries is None or qrels is None:
        index = Index.open(folder)
        raise UsageError(
            "A weight is found on judged queries: type --queries FILE and --qrels FILE. "
            f"Without them the weight of {folder} stays {_describe_weight(index)}."
        )
    keep_freed_memory()
    found = _tune(folder, queries, qrels, skip_bad, device, trust_remote_code)
    index, tuning = found
    kept = tuning.helps and not dry_run
    if kept:
        index.keep_weight(tuning.weight)
    if json:
        print_json(_to_json(tuning, kept))
        return
    _report(tuning, folder, kept, index)


def _tune(
    folder: Path, queries: str, qrels: Path, skip_bad: bool, device: str | None, trust: bool
) -> tuple[Index, Tuning]:
    from benchmarks.tuning import tune_weight
    from indexes import Index
    from retrieval.retriever import Retriever

    index = Index.open(folder)
    index.choose(Blend("hybrid"))  # before a model is loaded
    asked, judged = _read_judged(queries, qrels, skip_bad)
    _check_documents(index, judged, qrels)
    retriever = Retriever.open(index, device=device, trust_remote_code=trust, notify=message)
    note_untrained(retriever.encoder)
    with progress("Tuning", None, "queries") as advance:
        return index, tune_weight(index, retriever.encoder, asked, judged, progress=advance)


def _read_judged(
    queries: str, qrels: Path, skip_bad: bool
) -> tuple[list[Query], dict[str, dict[str, int]]]:
    from retrieval import read_queries
    from retrieval.corpus.qrels import read_qrels

    read = read_qrels(qrels, skip_bad=skip_bad)
    for note in read.notes:
        warn(note)
    judged: dict[str, dict[str, int]] = {}
    for one in read.judgements:
        judged.setdefault(one.query_id, {})[one.doc_id] = one.score
    source = read_queries(queries, skip_bad=skip_bad)
    asked = [query for query in source if query.query_id in judged]
    missing = len(judged) - len({query.query_id for query in asked})
    if missing:
        verb = "is" if missing == 1 else "are"
        asked_for = count_noun(len(judged), "judged query", "judged queries")
        warn(f"{missing:,} of {asked_for} {verb} not in {queries}.")
    return asked, judged


def _check_documents(index: Index, judged: Mapping[str, Mapping[str, int]], qrels: Path) -> None:
    """Warn of judged documents that the index lacks; raise UsageError where it lacks all."""
    from indexes.search.ids import IdLookup

    wanted = list({doc_id for row in judged.values() for doc_id in row})
    missing = set(wanted) - IdLookup(index.snapshot).find(wanted).keys()
    if not missing:
        return
    if len(missing) == len(wanted):
        raise UsageError(
            f"No judged document of {qrels} is in {index.folder}, such as {min(missing)!r}. Name "
            "the judgements of this corpus."
        )
    verb = "is" if len(missing) == 1 else "are"
    count = count_noun(len(wanted), "judged document")
    warn(f"{len(missing):,} of {count} {verb} not in {index.folder}, such as {min(missing)!r}.")


def _forget(index: Index, folder: Path) -> None:
    had = index.manifest.weight
    if had is None:
        message(f"{folder} keeps no weight; it has {_describe_weight(index)}.")
        return
    index.keep_weight(None)
    message(f"{folder} has {_describe_weight(index)} again; it was {had:g}.")


def _describe_weight(index: Index) -> str:
    kept = index.manifest.weight
    return f"the default, {DEFAULT_WEIGHT:g}" if kept is None else f"{kept:g}, which tune found"


def _to_json(tuning: Tuning, kept: bool) -> dict[str, object]:
    return {
        "weight": tuning.weight,
        "kept": kept,
        "queries": tuning.queries,
        "held_out": tuning.held_out,
        "default": tuning.before,
        "interval": [tuning.low, tuning.high],
        "curve": {f"{weight:g}": score for weight, score in tuning.curve.items()},
    }


def _report(tuning: Tuning, folder: Path, kept: bool, index: Index) -> None:
    rows = []
    for weight, score in tuning.curve.items():
        notes = {0.0: "words alone", 1.0: "meaning alone", DEFAULT_WEIGHT: "default"}
        note = [notes[weight]] if weight in notes else []
        note += ["best"] if weight == tuning.weight else []
        rows.append((f"{weight:.2f}", f"{score:.4f}", ", ".join(note)))
    print_table(rows, ("WEIGHT", "NDCG@10", ""))
    asked = count_noun(tuning.queries, "query", "queries")
    message(
        f"Chosen on other queries, weights score {tuning.held_out:.4f} and the default "
        f"{tuning.before:.4f}: {tuning.held_out - tuning.before:+.4f}, 95% interval "
        f"{tuning.low:+.4f} to {tuning.high:+.4f}, {asked}."
    )
    if kept:
        message(
            f"Kept weight {tuning.weight:g} in {folder}; 'millpond tune DIR --forget' undoes it."
        )
    elif tuning.helps:
        message(f"Nothing was kept; the weight of {folder} stays {_describe_weight(index)}.")
    else:
        message(
            f"That is no gain, so nothing was kept; the weight of {folder} stays "
            f"{_describe_weight(index)}."
        )
