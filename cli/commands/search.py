"""``millpond search``: hits for a text, for a file of queries, or for what is typed at a prompt."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.console import message, print_line, warn
from cli.options import (
    DeviceOption,
    IndexModelOption,
    IndexSpeedOption,
    InstructionOption,
    JsonOption,
    SkipBadOption,
    TrustOption,
    argument,
    flag,
    option,
)
from cli.output import check_output
from cli.prompt import run_prompt
from cli.searching import (
    CANDIDATES,
    Choices,
    Search,
    print_answers,
    print_hits,
    write_run,
)
from cli.store import StoredKeyOption, StoredUrlOption, use_stored_servers
from retrieval.errors import UsageError, count_noun
from retrieval.types import Fusion, Mode

HITS_FOR_TEXT = 10
HITS_FOR_QUERIES = 100
STDIN = "-"


def search(
    places: Annotated[
        list[str],
        argument(
            "DIR... [TEXT]",
            "Index folders of one model, and what to look for; - reads a text a line from "
            "stdin. Without TEXT, a terminal gets a prompt.",
        ),
    ],
    k: Annotated[
        int | None,
        option(
            "K",
            "The number of hits.",
            "-k",
            min=1,
            shown=f"{HITS_FOR_TEXT}, or {HITS_FOR_QUERIES} with --queries",
        ),
    ] = None,
    mode: Annotated[
        Mode | None,
        typer.Option(
            "--mode",
            help="Search by meaning (dense), by words (lexical, which loads no model) or both.",
            show_default="hybrid where the index has both arms",
        ),
    ] = None,
    fusion: Annotated[
        Fusion,
        typer.Option("--fusion", help="How hybrid joins both: a mean of scores, or of ranks."),
    ] = "convex",
    weight: Annotated[
        float | None,
        option(
            "W",
            "The share of meaning in a convex fusion, 0 to 1.",
            "--weight",
            shown="what 'millpond tune' found, else the default of docs/hybrid.md",
        ),
    ] = None,
    distinct: Annotated[
        bool,
        flag(
            "--distinct",
            "Of documents that are nearly the same ('millpond duplicates' lists them), show "
            "only the best.",
        ),
    ] = False,
    json: JsonOption = False,
    queries: Annotated[
        str | None, option("FILE", "Answer every query of a .jsonl or .tsv file.", "--queries")
    ] = None,
    run: Annotated[
        str | None, option("OUT", "The TREC run to write; - for stdout.", "--run")
    ] = None,
    model: IndexModelOption = None,
    rerank: Annotated[
        str | None,
        option(
            "MODEL",
            "A CrossEncoder that reads the best hits again, each with the text.",
            "--rerank",
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        option(
            "N",
            "With --rerank: how many hits it reads.",
            "--candidates",
            min=1,
            shown=str(CANDIDATES),
        ),
    ] = None,
    instruction: InstructionOption = None,
    where: Annotated[
        str | None,
        option(
            "FILTER",
            "Search only the documents whose fields match; 'millpond info' lists the fields.",
            "--filter",
        ),
    ] = None,
    skip_bad: SkipBadOption = False,
    device: DeviceOption = None,
    url: StoredUrlOption = None,
    ask_key: StoredKeyOption = False,
    speed: IndexSpeedOption = None,
    trust_remote_code: TrustOption = False,
) -> None:
    """Find the documents that answer a text best.

    Documents are compared by meaning and by words, or with --mode by one of them. On a terminal
    each hit says why it is one: the score and rank of both, and the words that matched. With
    --json, one object per hit: rank, doc_id, score, title, text; and, where there are any,
    metadata, arms, matched, first_stage and index. With --queries, a TREC run: query id, Q0,
    document id, rank from 1, score and tag per line; or with --json, the objects with the query's
    id. A filter compares fields with ==, !=, <, <=, >, >=, in, not in and contains, joined by
    and, or, not and parentheses. At the prompt, :help lists commands such as :k 20.

    \b
    Examples:
      millpond search demo-index "delete a folder and everything in it"
      millpond search demo-index
      millpond search my-index "error E-4711" --mode lexical
      millpond search my-index "dams and fish" --rerank cross-encoder/ms-marco-MiniLM-L6-v2
      millpond search part-1 part-2 "dams and fish" --filter 'year >= 2020 and lang == "en"'
      millpond search my-index --queries queries.jsonl --run run.trec
    """
    from retrieval.retriever import Retriever

    folders, text = _read_places(places, queries, run, json)
    if url is not None or ask_key:
        use_stored_servers(folders, url, ask_key)
    total = None
    if queries is not None:
        total = _check_queries(queries, skip_bad)
        if run is not None and run != "-":
            check_output(Path(run), queries, *folders, option="--run")
    choices = Choices(
        k or (HITS_FOR_TEXT if queries is None else HITS_FOR_QUERIES),
        where,
        mode,
        fusion,
        weight,
        distinct,
    )
    if candidates is not None and rerank is None:
        raise UsageError("--candidates goes with --rerank MODEL. Leave it out, or type both.")
    retriever = Retriever.open(
        folders[0] if len(folders) == 1 else folders,
        model,
        speed,
        device,
        one_text=queries is None and rerank is None,  # a reranker needs torch anyway
        mode="lexical",
        trust_remote_code=trust_remote_code,
        instruction=instruction,
        reranker=rerank,
        candidates=candidates or CANDIDATES,
        notify=message,
    )
    opened = Search(retriever, " and ".join(map(str, folders)), choices)
    if queries is not None:
        if run is None:
            print_answers(opened, queries, skip_bad)
        else:
            write_run(opened, queries, run, skip_bad, total)
    elif text is None:
        run_prompt(opened)
    elif text == STDIN:
        _answer_lines(opened, json)
    else:
        print_hits(opened.answer(text), as_json=json)


def _read_places(
    places: list[str], queries: str | None, run: str | None, json: bool
) -> tuple[list[Path], str | None]:
    """Return the indexes and the text, the last of several places if that is not an index.

    The text is "-" for those of stdin, None for queries of a file and for a prompt.

    Raises
    ------
    UsageError : what was typed does not fit together.
    """
    folders = [Path(one) for one in places]
    text = None if len(places) == 1 or _is_index(places[-1]) else places[-1]
    if text is not None:
        folders.pop()
    if queries is not None:
        if text is not None:
            raise UsageError(
                "A search needs a text or --queries FILE, and both were given. Leave one out."
            )
        if json == (run is not None):
            problem = "both were given" if json else "neither was given"
            raise UsageError(
                f"--queries needs --run OUT, the file to write (- for stdout), or --json; and "
                f"{problem}."
            )
        return folders, None
    if run is not None:
        raise UsageError("--run goes with --queries FILE. Leave it out, or add --queries.")
    if text is None:
        _check_prompt(places, json)
    else:
        from indexes.search.modes import check_questions

        check_questions([text])
    return folders, text


def _check_queries(source: str, skip_bad: bool) -> int | None:
    """Read the queries before a model is loaded; return their number, None for stdin."""
    if source == "-":
        return None
    from retrieval import read_queries

    queries = read_queries(source, skip_bad=skip_bad)
    total = sum(1 for _ in queries)
    if queries.skipped:
        count = count_noun(queries.skipped, "bad query is", "bad queries are")
        warn(f"{count} skipped. The first: {queries.first_skipped[0]}")
    return total


def _check_prompt(places: list[str], json: bool) -> None:
    """Raise UsageError where nobody can type at a prompt."""
    several = (
        f' {places[-1]} is an index; to look for that word, type it with a blank: "{places[-1]} ".'
        if len(places) > 1
        else ""
    )
    if json:
        raise UsageError(f"--json needs a text or --queries FILE, and neither was given.{several}")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "A search needs a text or --queries FILE, and neither was given; a prompt needs a "
            'terminal. Type: millpond search DIR "TEXT", or: millpond search DIR - for a text a '
            f"line from stdin.{several}"
        )


def _is_index(place: str) -> bool:
    from indexes.storage.manifest import MANIFEST_NAME

    try:
        return (Path(place) / MANIFEST_NAME).is_file()
    except OSError:  # a text that is too long for a name
        return False


def _answer_lines(search: Search, as_json: bool) -> None:
    """Answer each line of stdin when it arrives; blank ones are passed over."""
    for line in sys.stdin:
        text = line.strip()
        if not text:
            continue
        if not as_json:
            print_line(f"> {text}")
        print_hits(search.answer(text), as_json=as_json, query={"query": text})
        sys.stdout.flush()
