"""Every operation on an index, killed at any moment of its work, and then gone on with."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lab.attack.common import (
    BACKENDS,
    MODEL,
    Attack,
    Moments,
    Tally,
    make_documents,
    run_child,
)
from indexes import Index, IndexConfig
from retrieval.errors import IndexCorruptError, SourceNotFoundError

State = dict[str, str]
KEEP = IndexConfig(compact_share=1.0)
LEFTOVERS = (".building", ".lock")
KILLED = "killed by signal 9"


@dataclass(frozen=True)
class Operation:
    """A change, and what the index holds before and after it; ``before`` is None for no index."""

    run: Callable[[Path, str], object]
    before: State | None
    after: State


def _state(*parts: tuple[int, str, str]) -> State:
    return {
        one.doc_id: one.text
        for count, prefix, version in parts
        for one in make_documents(count, prefix, version)
    }


FIRST = _state((25, "d", "text"))
KEPT = {doc_id: text for doc_id, text in FIRST.items() if doc_id != "d3"}
GONE = [f"d{number}" for number in range(4, 16)]


def _open(folder: Path) -> Index:
    return Index.open(folder, MODEL)


def _index(folder: Path, backend: str) -> object:
    config = IndexConfig(backend=backend, language="english", batch_documents=5)
    return Index.create(folder, MODEL, make_documents(25), config)


def _overwrite(folder: Path, backend: str) -> object:
    config = IndexConfig(backend=backend, language="english", overwrite=True, batch_documents=5)
    return Index.create(folder, MODEL, make_documents(9, "o"), config)


OPERATIONS = {
    "index": Operation(_index, None, FIRST),
    "index --overwrite": Operation(_overwrite, KEPT, _state((9, "o", "text"))),
    "add": Operation(
        lambda folder, backend: _open(folder).add(make_documents(7, "e"), KEEP),
        KEPT,
        KEPT | _state((7, "e", "text")),
    ),
    "update": Operation(
        lambda folder, backend: _open(folder).update(
            make_documents(10, "d", "new"), delete_missing=True
        ),
        KEPT,
        _state((10, "d", "new")),
    ),
    "delete": Operation(
        lambda folder, backend: _open(folder).delete(GONE),
        KEPT,
        {doc_id: text for doc_id, text in KEPT.items() if doc_id not in GONE},
    ),
    "compact": Operation(lambda folder, backend: _open(folder).compact(), KEPT, KEPT),
    "reindex": Operation(
        lambda folder, backend: _open(folder).reindex(
            factory="HNSW8" if backend == "faiss" else "HNSW"
        ),
        KEPT,
        KEPT,
    ),
}


def attack_by_kills(attack: Attack) -> Tally:
    """Kill each operation on each backend in turn, at a moment that is drawn."""
    tally = Tally()
    draw = random.Random(attack.seed)
    with tempfile.TemporaryDirectory(prefix="millpond-kill-") as scratch:
        home = Path(scratch)
        bases = {backend: _make_base(home / backend, backend) for backend in BACKENDS}
        kinds = [(backend, name) for backend in BACKENDS for name in OPERATIONS]
        moments = {kind: _count_moments(bases[kind[0]], home, *kind) for kind in kinds}
        number = 0
        while attack.goes_on(number):
            backend, name = kinds[number % len(kinds)]
            files_only = draw.random() < 0.5
            at = draw.randint(1, moments[backend, name][files_only])
            folder = _prepare(bases[backend], home / "i", name)
            _, ended = run_child(_run_watched, str(folder), backend, name, at, files_only)
            failure = f"it ended otherwise: {ended}" if ended not in ("", KILLED) else ""
            if not failure:
                fault, ended_badly = run_child(_examine, str(folder), backend, name)
                failure = str(fault or ended_badly)
            what = f"at {'file ' if files_only else ''}moment {at}: {failure}"
            row = f"{name}, {backend}" if ended == KILLED or failure else "ended before its moment"
            tally.add(row, failure and what)
            shutil.rmtree(folder, ignore_errors=True)
            number += 1
    return tally


def _make_base(folder: Path, backend: str) -> Path:
    _, failure = run_child(_build_base, str(folder), backend)
    if failure:
        raise RuntimeError(failure)
    return folder


def _build_base(folder: str, backend: str) -> None:
    _index(Path(folder), backend)
    Index.open(folder).delete(["d3"], KEEP)


def _prepare(base: Path, folder: Path, name: str) -> Path:
    if OPERATIONS[name].before is not None:
        shutil.copytree(base, folder)
    return folder


def _count_moments(base: Path, home: Path, backend: str, name: str) -> dict[bool, int]:
    folder = _prepare(base, home / "i", name)
    counts, failure = run_child(_run_watched, str(folder), backend, name, None, False)
    shutil.rmtree(folder)
    if failure:
        raise RuntimeError(f"{name} on {backend} fails without a kill: {failure}")
    found: dict[bool, int] = counts
    return found


def _run_watched(
    folder: str, backend: str, name: str, kill_at: int | None, files_only: bool
) -> dict[bool, int]:
    moments = Moments(kill_at, files_only)
    moments.watch()
    try:
        OPERATIONS[name].run(Path(folder), backend)
    finally:
        moments.end()
    return moments.counts


def _examine(folder: str, backend: str, name: str) -> str:
    """Return what a kill broke; "" where all is as promised."""
    operation, path = OPERATIONS[name], Path(folder)
    found = _read(path)
    if found not in (operation.before, operation.after):
        return f"the index holds {found}, neither the old state nor the new one"
    if found != operation.after:
        operation.run(path, backend)
    index = _open(path)
    index.compact()
    index.check()
    if _read(path) != operation.after:
        return f"after going on, the index holds {_read(path)}"
    left = [leftover for leftover in LEFTOVERS if (path / leftover).exists()]
    return f"{', '.join(left)} stayed behind" if left else ""


def _read(path: Path) -> State | None:
    """Return text by id as both arms find them; None where there is no index."""
    try:
        index = Index.open(path)
    except (SourceNotFoundError, IndexCorruptError):
        if (path / "manifest.json").exists():
            raise
        return None
    vectors = MODEL.encode_queries(["any"])
    found = {hit.doc_id: hit.text for hit in index.search(vectors, 100)[0]}
    for doc_id, text in found.items():
        best = index.search(MODEL.encode_queries([text]), 1)[0][0]
        if (best.doc_id, round(best.score, 4)) != (doc_id, 1.0):
            raise AssertionError(f"{text!r} finds {best}")
    words = index.search(["text new"], 100, mode="lexical")[0]
    if {hit.doc_id for hit in words} != set(found):
        raise AssertionError("the lexical arm finds other documents")
    return found
