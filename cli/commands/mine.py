"""``millpond mine``: training pairs get hard negatives."""

from __future__ import annotations

import json as json_format
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Literal, cast

from cli.console import format_seconds, message, print_json, progress, warn
from cli.models import ReportingEncoder, instruct, load_encoder, note_untrained, warn_skipped
from cli.options import (
    DeviceOption,
    InstructionOption,
    SkipBadOption,
    SpeedOption,
    TrustOption,
    argument,
    flag,
    option,
)
from cli.output import atomic_output, check_output
from embedder.environment import keep_freed_memory
from retrieval.errors import SourceNotFoundError, UnknownNameError, UsageError, count_noun

if TYPE_CHECKING:
    from benchmarks.mining.candidates import Candidates, Ranker
    from benchmarks.mining.mining import MiningConfig, MiningSummary
    from embedder.loading import LoadedEncoder
    from embedder.training.data import PairSource

BM25 = "bm25"
"""The value of --by that is no model; a model folder of this name is ./bm25."""

_GUARD_WORDS = {
    "positive": "positives of the query",
    "query": "equal to the query",
    "present": "present already",
    "score": "scored too near the positive",
}


def mine(
    pairs: Annotated[
        Path,
        argument(
            "PAIRS",
            "A .jsonl, .csv, .tsv or .parquet file of query, positive and negatives, or a "
            "BEIR folder with qrels/train.tsv.",
        ),
    ],
    out: Annotated[Path, option("FILE", "The .jsonl file to write.", "--out", "-o")],
    by: Annotated[str, option("bm25|MODEL", "What ranks the candidates: BM25, or a model.")] = BM25,
    instruction: InstructionOption = None,
    corpus: Annotated[
        str | None,
        option(
            "CORPUS",
            "Where negatives are drawn from: anything that 'millpond index' reads.",
            shown="the positives of all pairs",
        ),
    ] = None,
    negatives: Annotated[int, option("N", "Maximum negatives added per pair.")] = 4,
    from_rank: Annotated[int, option("R", "The first rank of the window.")] = 10,
    to_rank: Annotated[int, option("R", "The last rank of the window.")] = 100,
    max_relative_score: Annotated[
        float,
        option("X", "Leave out what scores above X times the positive; inf leaves out nothing."),
    ] = 0.95,
    min_gap: Annotated[
        float | None, option("G", "Leave out what scores less than G below the positive.")
    ] = None,
    pick: Annotated[
        str, option("top|random", "Take the best of what is left, or a sample.")
    ] = "top",
    seed: Annotated[int, option("S", "Seed of the sample.")] = 0,
    replace: Annotated[
        bool, flag("--replace", "Replace the negatives that the pairs already have.")
    ] = False,
    skip_bad: SkipBadOption = False,
    json: Annotated[bool, flag("--json", "Print the summary as JSON.")] = False,
    device: DeviceOption = None,
    speed: SpeedOption = "exact",
    trust_remote_code: TrustOption = False,
) -> None:
    """Add hard negatives to training pairs.

    A hard negative ranks high for the query but does not answer it: it lies in a window of ranks,
    scores clearly below the positive, and is not a known positive of the query.

    \b
    Examples:
      millpond mine pairs.jsonl --out mined.jsonl
      millpond mine pairs.jsonl --out mined.jsonl --by my-model --negatives 8
    """
    from benchmarks.mining.mining import MiningConfig, check_window

    if instruction is not None and by == BM25:
        raise UsageError(
            "--instruction goes with --by MODEL; BM25 takes none. Name a model, or leave it out."
        )
    config = MiningConfig(
        negatives=negatives,
        from_rank=from_rank,
        to_rank=to_rank,
        max_relative_score=max_relative_score,
        min_gap=min_gap,
        pick=cast("Literal['top', 'random']", pick),
        seed=seed,
        replace=replace,
    )
    _check_out(out, pairs, corpus)
    source = _read_pairs(pairs, skip_bad)
    candidates = _collect(source, corpus, skip_bad)
    check_window(config, candidates)
    started = time.monotonic()
    load = partial(_load, by, instruction, device, speed, trust=trust_remote_code)
    with _ranker(by, candidates, load) as ranker:
        summary = _write(source, ranker, candidates, config, out)
    _report(summary, out, time.monotonic() - started)
    if json:
        print_json(summary.to_json())


def _check_out(out: Path, pairs: Path, corpus: str | None) -> None:
    """Raise UsageError if the output would replace an input or have an unsuitable name."""
    if not pairs.exists():
        raise SourceNotFoundError(f"{pairs}: there is no such file or folder.")
    if out.suffix.lower() != ".jsonl":
        raise UsageError(f"{out}: expected a name that ends in .jsonl, for 'millpond train'.")
    check_output(out, pairs, *([corpus] if corpus else []))


def _read_pairs(path: Path, skip_bad: bool) -> PairSource:
    from embedder.training.config import DataSource
    from embedder.training.data import PairSource

    with progress("Checking", None, "pairs") as advance:
        source = PairSource(DataSource(path=path), advance, skip_bad=skip_bad)
    for note in source.notes:
        warn(note)
    return source


def _collect(source: PairSource, corpus: str | None, skip_bad: bool) -> Candidates:
    """Return the candidates; what of the corpus is none is said."""
    from benchmarks.mining.candidates import Candidates
    from retrieval import read_corpus

    if corpus is None:
        return Candidates.collect(source)
    documents = read_corpus(corpus, skip_bad=skip_bad)
    candidates = Candidates.collect(source, documents)
    warn_skipped(documents)
    if candidates.empty:
        empty = count_noun(candidates.empty, "empty document", "empty documents")
        message(f"{empty} of {corpus} cannot be a negative.")
    return candidates


@contextmanager
def _ranker(by: str, candidates: Candidates, load: Callable[[], LoadedEncoder]) -> Iterator[Ranker]:
    """Give the ranker of the candidates; a model's index is temporary."""
    from benchmarks.mining.candidates import BM25Ranker, ModelRanker, index_candidates

    if by == BM25:
        message(f"Indexing {count_noun(candidates.count, 'candidate')} by BM25.")
        yield BM25Ranker(candidates)
        return
    encoder = load()
    with TemporaryDirectory(prefix="millpond-mine-") as folder:
        index = Path(folder) / "index"
        with progress("Indexing", candidates.count, "candidates") as advance:
            index_candidates(candidates, ReportingEncoder(encoder, advance), index)
        note_untrained(encoder)
        yield ModelRanker(candidates, encoder, index)


def _load(
    model: str, instruction: str | None, device: str | None, speed: str, *, trust: bool
) -> LoadedEncoder:
    """Return the model; the error for an unknown name lists bm25 too."""
    keep_freed_memory()
    try:
        name = instruct(model, instruction)
        return load_encoder(name, device, speed, trust_remote_code=trust)
    except UnknownNameError as error:
        raise UnknownNameError(error.kind, error.name, (BM25, *error.known)) from None


def _write(
    source: PairSource, ranker: Ranker, candidates: Candidates, config: MiningConfig, out: Path
) -> MiningSummary:
    """Write every pair with its negatives, in the order of the input; return a summary."""
    from benchmarks.mining.mining import MiningSummary, mine
    from embedder.training.data import KnownPairs

    summary = MiningSummary(candidates.count)
    with (
        atomic_output(out) as path,
        path.open("w", encoding="utf-8", newline="\n") as stream,
        progress("Mining", len(source), "pairs") as advance,
    ):
        for mined in mine(source, KnownPairs(source.keys), candidates, ranker, config):
            pair = mined.pair
            record = {"query": pair.query, "positive": pair.positive, "negatives": pair.negatives}
            stream.write(json_format.dumps(record, ensure_ascii=False) + "\n")
            summary.add(mined)
            advance(1)
    return summary


def _report(summary: MiningSummary, out: Path, seconds: float) -> None:
    """Report on stderr what was mined, what was left out and why."""
    rate = summary.pairs / seconds if seconds else 0.0
    message(
        f"Mined {count_noun(summary.negatives, 'negative')} for "
        f"{count_noun(summary.pairs, 'pair')} in {format_seconds(seconds)} "
        f"({rate:,.{0 if rate >= 10 else 1}f} pairs/s): {out}"
    )
    counts = sorted(summary.by_negatives.items(), reverse=True)
    listing = "; ".join(f"{number}: {count_noun(pairs, 'pair')}" for number, pairs in counts)
    message(f"Negatives per pair: {listing}.")
    if summary.mean_rank is not None:
        candidates = count_noun(summary.candidates, "candidate")
        message(f"Mean rank {summary.mean_rank:.1f} of {candidates}.")
    left_out = ", ".join(f"{summary.dropped[g]:,} {words}" for g, words in _GUARD_WORDS.items())
    message(f"Left out of the windows: {left_out}.")
    without = summary.by_negatives[0]
    if without:
        warn(
            f"{count_noun(without, 'pair')} got no negative. A higher --max-relative-score, a "
            f"lower --from-rank or a higher --to-rank leaves more."
        )
    message(f"Next: name {shlex.quote(str(out))} as data.path in the config of 'millpond train'.")
