"""Debian package descriptions: what a package is in one line, and then at length."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from zlib import crc32

from benchmarks.lab.builtin.pairs import Pair, first_and_rest, squeeze, text_key
from benchmarks.lab.builtin.sources.apt import Workplace, read_descriptions

_FAMILY = re.compile(
    r"-(?:dev|doc|docs|dbg|dbgsym|common|data|bin|utils|tools|examples|headers|l10n.*|locale.*|"
    r"i18n.*|help.*|lang.*)$"
)
_EMPTY = re.compile(
    r"transitional|dummy|metapackage|meta-package|meta package|virtual package", re.I
)
_TEMPLATED = re.compile(
    r"^(?:task-|librust-|hunspell-|aspell-|myspell-|education-|linux-(?:image|headers))"
)
_TAIL = re.compile(
    r"\s*[-(,:]+\s*(?:development|documentation|debug\w*|runtime|shared|static|common|data|header|"
    r"architecture|client|server|example|translation|library|libraries|files?|tools?|utilit\w+|"
    r"python ?3?|perl|ruby|doc|api|html)\b[^-()]*\)?$",
    re.I,
)
_BOILERPLATE = re.compile(
    r"^(?:this (?:meta)?package (?:contains|provides|includes|ships|installs|is (?:a |the )?"
    r"(?:part|trans|dummy|meta))|this is (?:the|a) (?:python|documentation|common|debug)|"
    r"it (?:contains|provides) the|see also|homepage|for more information|author)",
    re.I,
)


@dataclass(frozen=True)
class Description:
    """One package: its name, its one-line description, and the paragraphs of the long one."""

    package: str
    short: str
    paragraphs: tuple[str, ...]


def parse_descriptions(text: str) -> Iterator[Description]:
    """Every stanza of an apt Translation-en list that has a long description."""
    for stanza in re.split(r"\n\s*\n", text):
        name = re.search(r"^Package: (\S+)", stanza, re.M)
        body = re.search(r"^Description-en: (.*(?:\n .*)*)", stanza, re.M)
        if not name or not body:
            continue
        short, *lines = body.group(1).split("\n")
        paragraphs = tuple(_paragraphs(lines))
        if paragraphs:
            yield Description(name.group(1), short.strip(), paragraphs)


def _paragraphs(lines: list[str]) -> Iterator[str]:
    """Running text between the `` .`` lines; indented lists and code become one run of text."""
    held: list[str] = []
    for line in [*lines, " ."]:
        if line.strip() == ".":
            if held:
                yield squeeze(" ".join(held))
            held = []
        elif "://" not in line:
            held.append(re.sub(r"^\s+[*+o-]\s+", " ", line))


def distinct_descriptions(descriptions: Iterable[Description]) -> Iterator[Description]:
    """One package of each family, less transitional packages, templates and boilerplate.

    A family shares a first paragraph, or a one-line description up to its tail ("- development
    files"). The package without a family suffix stands for it, else the shortest name.
    """
    ordered = sorted(descriptions, key=lambda d: (bool(_FAMILY.search(d.package)), d.package))
    seen: set[str] = set()
    for description in ordered:
        if _EMPTY.search(description.short) or _TEMPLATED.match(description.package):
            continue
        prose = tuple(text for text in description.paragraphs if not _BOILERPLATE.match(text))
        if not prose:
            continue
        short = tidy_short(description.short)
        keys = {text_key(prose[0]), text_key(short)}
        if not keys & seen:
            yield Description(description.package, short, prose)
        seen |= keys


def tidy_short(short: str) -> str:
    """The one-line description without the tail that tells family members apart."""
    return _TAIL.sub("", short).strip() or short


def packages(workplace: Workplace) -> Iterator[Pair]:
    """One line -> the long description; for one package in four the line names the package."""
    for description in distinct_descriptions(parse_descriptions(read_descriptions())):
        query = description.short
        if crc32(description.package.encode()) % 4 == 0:
            query = f"{description.package}: {query}"
        yield Pair(query, " ".join(description.paragraphs))


def first_sentences(workplace: Workplace) -> Iterator[Pair]:
    """The first sentence of the long description -> the rest of it."""
    for description in distinct_descriptions(parse_descriptions(read_descriptions())):
        yield from first_and_rest(" ".join(description.paragraphs))
