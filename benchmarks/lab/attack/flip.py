"""Every file of an index, damaged: a search gives the right hits or names the file."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.lab.attack.common import MODEL, Attack, Tally, make_documents, run_child
from indexes import Index, IndexConfig, read_manifest
from indexes.storage.manifest import MANIFEST_NAME
from retrieval import Document
from retrieval.errors import IndexCorruptError

KINDS = (("faiss", "Flat"), ("faiss", "HNSW8"), ("faiss", "IVF4,Flat"), ("qdrant", "HNSW"))
KEEP = IndexConfig(compact_share=1.0)
FILTERS = (None, "n >= 7 and n != 12")

Damage = Callable[[bytearray, random.Random], None]


def flip(content: bytearray, chosen: random.Random) -> None:
    """Change one bit."""
    content[chosen.randrange(len(content))] ^= 1 << chosen.randrange(8)


def zero(content: bytearray, chosen: random.Random) -> None:
    """Write zeros over 4 kB."""
    start = chosen.randrange(len(content))
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))


def randomise(content: bytearray, chosen: random.Random) -> None:
    """Write noise over 512 bytes."""
    start = chosen.randrange(len(content))
    content[start : start + 512] = chosen.randbytes(len(content[start : start + 512]))


def truncate(content: bytearray, chosen: random.Random) -> None:
    """Cut the end off."""
    del content[chosen.randrange(len(content)) :]


def swap(content: bytearray, chosen: random.Random) -> None:
    """Exchange two parts, so that no byte is lost."""
    half = len(content) // 2
    content[:half], content[half : 2 * half] = content[half : 2 * half], content[:half]


DAMAGES: tuple[Damage, ...] = (flip, zero, randomise, truncate, swap)


def attack_by_damage(attack: Attack) -> Tally:
    """Damage one file of one index after the other, in a way that is drawn."""
    tally = Tally()
    draw = random.Random(attack.seed)
    with tempfile.TemporaryDirectory(prefix="millpond-flip-") as scratch:
        home, made = Path(scratch), {}
        for backend, factory in KINDS:
            folder = home / f"{backend}-{factory}"
            expected, failure = run_child(_build, str(folder), backend, factory)
            if failure:
                raise RuntimeError(failure)
            made[backend, factory] = expected
        number = 0
        while attack.goes_on(number):
            kind = KINDS[number % len(KINDS)]
            test, failure = _damage_one(home / "-".join(kind), made[kind], draw)
            tally.add(f"{test}, {' '.join(kind)}", failure)
            number += 1
    return tally


def _build(folder: str, backend: str, factory: str) -> Any:
    """Write an index of two shards with fields, a deleted row, a blank one and both arms."""
    config = IndexConfig(backend=backend, factory=factory, language="english")
    documents = [*make_documents(25), Document("b", "-")]
    index = Index.create(Path(folder), MODEL, documents, config)
    index.add(make_documents(5, "e"), KEEP)
    index.delete(["d3"], KEEP)
    return _search(Path(folder))


def _search(folder: Path) -> Any:
    index = Index.open(folder)
    queries = MODEL.encode_queries(["one", "two", "text 5 of d"])
    return [index.search(queries, 10, where=where) for where in FILTERS]


def _damage_one(base: Path, expected: Any, draw: random.Random) -> tuple[str, str]:
    """Return what was done, and what is wrong with what came of it."""
    manifest = read_manifest(base)
    names = {entry.name: role for role, entry in manifest.files.items() if entry.bytes}
    name = draw.choice([*names, MANIFEST_NAME])
    change = draw.choice(DAMAGES)
    folder = base.with_name("damaged")
    shutil.copytree(base, folder)
    content = bytearray((folder / name).read_bytes())
    whole = bytes(content)
    change(content, draw)
    (folder / name).write_bytes(content)
    found, ended = run_child(_examine, str(folder))
    fault = ended or _judge(folder / name, bytes(content) == whole, expected, *found)
    shutil.rmtree(folder)
    return change.__name__, fault and f"{name}: {fault}"


def _examine(folder: str) -> tuple[Any, str, str]:
    """Return the hits, why there are none, and what a check says."""
    hits, refused, checked = None, "", ""
    try:
        hits = _search(Path(folder))
    except IndexCorruptError as error:
        refused = str(error)
    try:
        Index.open(folder).check()
    except IndexCorruptError as error:
        checked = str(error)
    return hits, refused, checked


def _judge(file: Path, is_whole: bool, expected: Any, hits: Any, refused: str, checked: str) -> str:
    if is_whole:
        return "" if hits == expected and not checked else "a whole file is called damaged"
    if not checked:
        return "check calls the index whole"
    wrong = [message for message in (refused, checked) if message and str(file) not in message]
    if wrong:
        return f"the message does not name the file: {wrong[0]}"
    return "" if refused or hits == expected else "wrong hits"
