"""Malformed input of every kind: it is read, or refused in one line."""

from __future__ import annotations

import gzip
import json
import random
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.lab.attack.common import MODEL, Attack, Tally, make_documents
from benchmarks.lab.attack.flip import DAMAGES
from embedder.training import example_config
from embedder.training.config import load_config
from embedder.variants import parse_model_name
from indexes import Index, IndexConfig, read_manifest
from indexes.storage.manifest import MANIFEST_NAME
from retrieval.corpus import read_corpus, read_queries
from retrieval.errors import MillpondError
from retrieval.filters import parse_filter

RECORDS = (
    {"_id": "a", "text": "mills", "title": None, "year": 2020, "tags": ["x", "y"], "open": True},
    {"_id": "b", "text": "ponds", "year": None, "score": 1e308, "day": "2020-02-29"},
)
TABLE = b'id,title,text,year\na,"A ""quoted"" one",mills,2020\nb,,"two\nlines",\n'
CORPORA = {
    "c.jsonl": "\n".join(map(json.dumps, RECORDS)).encode(),
    "c.csv": TABLE,
    "c.jsonl.gz": gzip.compress("\n".join(map(json.dumps, RECORDS)).encode()),
    "c.tsv": "id\ttext\na\tmills\nb\tÄpfel\n".encode(),
    "c.txt": "# Title\n\nA text with ümläuts.\n".encode(),
}
QUERIES = {"q.jsonl": b'{"_id": "1", "text": "who mills?"}\n', "q.tsv": b"1\twho mills?\n"}
FILTERS = (
    'n >= 3 and (n != 5 or not n in [1, 2.5, "x"])',
    "n == null or n < -1e300 or (((n > 2)))",
    'lang in ["en", "de"] and tags contains "x"',
)
CONFIG = example_config()
ODD_TOML = ("-1", "0", "1e400", "nan", '""', '"x"', "[]", "{}", "[[1]]", "true", "2020-01-01", "")
NAMES = ("smollm2-135m:mean+causal,max_tokens=64", "org/name@main:eos+causal", "./folder:model1")
BODIES = {
    "/v1/embeddings": {"input": ["a", "b"], "model": "hash", "encoding_format": "base64"},
    "/v1/search": {"query": "mills", "k": 3, "filter": "n > 2", "mode": "hybrid", "weight": 0.5},
    "/embed": {"inputs": ["a", "b"], "truncate": True, "normalize": True},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}},
    "/tokenize": {"inputs": "a b", "add_special_tokens": False},
    "/api/embed": {"model": "hash", "input": "a"},
}
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, 1e308, float("nan")),
    *("", "\x00", "\ud800", "x" * 999, [], {}, [[]]),
)


_KEY = re.compile(r"(# )?\w+ = ")


def damage(content: bytes, draw: random.Random) -> bytes:
    """Return bytes that were damaged once to three times."""
    changed = bytearray(content)
    for _ in range(draw.randint(1, 3)):
        if changed:
            draw.choice(DAMAGES)(changed, draw)
    return bytes(changed)


def distort(value: Any, draw: random.Random) -> Any:
    """Return a JSON value of which one part was exchanged, dropped or renamed."""
    if not isinstance(value, dict | list) or not value or draw.random() < 0.2:
        return draw.choice(ODD)
    if isinstance(value, list):
        place = draw.randrange(len(value))
        return [*value[:place], distort(value[place], draw), *value[place + 1 :]]
    key = draw.choice(list(value))
    rest = {name: one for name, one in value.items() if name != key}
    if draw.random() < 0.2:
        return rest
    if draw.random() < 0.1:
        return {**rest, draw.choice(["", "x", key.upper(), "\ud800"]): value[key]}
    return {**value, key: distort(value[key], draw)}


class _Range:
    """One folder with an index, and a case for each kind of input."""

    def __init__(self, home: Path, draw: random.Random) -> None:
        self.home, self.draw = home, draw
        self.index = Index.create(home / "i", MODEL, make_documents(12))
        self.manifest = (home / "i" / MANIFEST_NAME).read_bytes()
        self.copy = home / "copy"
        shutil.copytree(home / "i", self.copy)

    def try_corpus(self) -> None:
        """Read, and sometimes index, a corpus that was damaged, or of odd values."""
        name = self.draw.choice(list(CORPORA))
        content = damage(CORPORA[name], self.draw)
        if name == "c.jsonl" and self.draw.random() < 0.7:
            records = [distort(record, self.draw) for record in RECORDS]
            content = "\n".join(map(json.dumps, records)).encode()
        place = self.home / name
        place.write_bytes(content)
        corpus = read_corpus(place, skip_bad=self.draw.random() < 0.5)
        if self.draw.random() < 0.3:
            config = IndexConfig(overwrite=True, restart=True, language="english")
            made = Index.create(self.home / "new", MODEL, corpus, config)
            made.search(MODEL.encode_queries(["x"]), 3)
        for _ in corpus:
            pass

    def try_queries(self) -> None:
        """Read damaged queries."""
        name = self.draw.choice(list(QUERIES))
        place = self.home / name
        place.write_bytes(damage(QUERIES[name], self.draw))
        for _ in read_queries(place, skip_bad=self.draw.random() < 0.5):
            pass

    def try_filter(self) -> None:
        """Count what a damaged filter lets through."""
        text = damage(self.draw.choice(FILTERS).encode(), self.draw).decode("utf-8", "replace")
        parse_filter(text)
        self.index.count(text)

    def try_config(self) -> None:
        """Read a training config that was damaged, or of odd values."""
        content = damage(CONFIG.encode(), self.draw)
        if self.draw.random() < 0.7:
            lines = CONFIG.splitlines()
            keys = [number for number, line in enumerate(lines) if _KEY.match(line)]
            number = self.draw.choice(keys)
            key, _, _ = lines[number].partition("=")
            lines[number] = f"{key.lstrip('# ')}= {self.draw.choice(ODD_TOML)}"
            content = "\n".join(lines).encode()
        place = self.home / "train.toml"
        place.write_bytes(content)
        load_config(place)

    def try_manifest(self) -> None:
        """Open an index whose manifest was damaged, or changed where it stays JSON."""
        if self.draw.random() < 0.5:
            content = damage(self.manifest, self.draw)
        else:
            content = json.dumps(distort(json.loads(self.manifest), self.draw)).encode()
        (self.copy / MANIFEST_NAME).write_bytes(content)
        read_manifest(self.copy)
        Index.open(self.copy).search(MODEL.encode_queries(["x"]), 3)

    def try_name(self) -> None:
        """Read a damaged name of a model."""
        name = damage(self.draw.choice(NAMES).encode(), self.draw).decode("utf-8", "replace")
        parse_model_name(name, "model1")


def attack_by_input(attack: Attack) -> Tally:
    """Try every kind of input in turn."""
    tally, draw = Tally(), random.Random(attack.seed)
    with tempfile.TemporaryDirectory(prefix="millpond-fuzz-") as scratch:
        ground = _Range(Path(scratch), draw)
        from benchmarks.lab.attack.serve import serving

        with serving(ground.index) as post:

            def try_body() -> None:
                path = draw.choice(list(BODIES))
                body = json.dumps(distort(BODIES[path], draw)).encode()
                if draw.random() < 0.4:
                    body = damage(body, draw)
                status, answer = post(path, body)
                if status >= 500 or not isinstance(json.loads(answer), dict | list):
                    raise AssertionError(f"{path} {body[:200]!r} is answered with {status}")

            cases: dict[str, Callable[[], None]] = {
                "corpora": ground.try_corpus,
                "queries": ground.try_queries,
                "filters": ground.try_filter,
                "configs": ground.try_config,
                "manifests": ground.try_manifest,
                "model names": ground.try_name,
                "HTTP bodies": try_body,
            }
            number = 0
            while attack.goes_on(number):
                kind = list(cases)[number % len(cases)]
                tally.add(kind, _try(cases[kind]))
                number += 1
    return tally


def _try(case: Callable[[], None]) -> str:
    """Return what went wrong other than a refusal in one line."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            case()
    except MillpondError as error:
        return "" if "\n" not in str(error).strip() else f"several lines: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return ""
