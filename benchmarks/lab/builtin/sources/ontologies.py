"""Life-science ontologies in OBO files: terms to definitions, and terms to their synonyms."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from zlib import crc32

from benchmarks.lab.builtin.pairs import Pair
from benchmarks.lab.builtin.sources.apt import Workplace

FILES = ("go.obo", "chebi.obo", "so.obo", "pathway.obo")
"""CC BY or public domain by Debian's copyright file; eco.obo beside them is GPL, so left out."""

_SYNONYM = re.compile(r'^synonym: "((?:[^"\\]|\\.)*)" EXACT(?: (\w+))?')
_DEFINITION = re.compile(r'^def: "((?:[^"\\]|\\.)*)"')
_CODES = {"FORMULA", "SMILES", "InChI", "InChIKey", "aa1", "aa3"}
_TEMPLATE = re.compile(
    r"that has formula|^OBSOLETE|^An? .{0,40}compound having|^Catalysis of the re"
)
_REGULATION = re.compile(r"^(?:(?:positive|negative) )?(?:regulation|activation|inhibition) of ")
_REGISTRY = re.compile(r"^[A-Z]{2,8}:\d+|^\W|EC \d")


@dataclass(frozen=True)
class Term:
    """One ontology term; ``synonyms`` mean exactly the same."""

    name: str
    definition: str
    synonyms: tuple[str, ...]
    parents: tuple[str, ...]


def parse_terms(text: str) -> Iterator[Term]:
    """Every term of an OBO file that is not obsolete; the definition may be empty."""
    for stanza in text.split("\n\n"):
        if stanza.lstrip().startswith("[Term]") and "\nis_obsolete: true" not in stanza:
            yield _parse_term(stanza.splitlines())


def _parse_term(lines: list[str]) -> Term:
    """One stanza's lines as a term."""
    name = next((line[6:] for line in lines if line.startswith("name: ")), "")
    definitions = [found.group(1) for line in lines if (found := _DEFINITION.match(line))]
    synonyms = [
        found.group(1)
        for line in lines
        if (found := _SYNONYM.match(line)) and found.group(2) not in _CODES
    ]
    parents = tuple(line[6:].split(" ")[0] for line in lines if line.startswith("is_a: "))
    definition = _unescape(definitions[0]) if definitions else ""
    return Term(_unescape(name), definition, tuple(map(_unescape, synonyms)), parents)


def _unescape(text: str) -> str:
    """OBO text without its backslashes and its underscores for spaces."""
    return re.sub(r"\\(.)", r"\1", text).replace("_", " ").strip()


def is_worded(name: str) -> bool:
    """Whether the name is made of words, not of a systematic formula ("2-methyl-1,3-...")."""
    letters = sum(character.isalpha() or character == " " for character in name)
    return (
        letters >= 0.88 * len(name)
        and max(map(len, name.split()), default=0) <= 22
        and re.search(r"[a-z]{4}", name) is not None
    )


def is_taken(term: Term) -> bool:
    """All worded terms, but one in three of the "regulation of X" series, which is one template."""
    regular = _REGULATION.match(term.name) is None or crc32(term.name.encode()) % 3 == 0
    return is_worded(term.name) and regular


def readable_synonyms(term: Term) -> list[str]:
    """Synonyms in words: no formula, no registry code, no variant of the name in case alone."""
    return [
        text
        for text in term.synonyms
        if text.lower() != term.name.lower() and is_worded(text) and not _REGISTRY.match(text)
    ]


def definitions(workplace: Workplace) -> Iterator[Pair]:
    """Term, or one of its synonyms where it has one -> definition; a sibling's is the negative."""
    for terms in _read_files(workplace):
        siblings = sibling_definitions(terms)
        for at, term in enumerate(terms):
            if is_taken(term) and term.definition and not _TEMPLATE.search(term.definition):
                names = [term.name, *readable_synonyms(term)[:2]]
                yield Pair(names[at % len(names)], term.definition, siblings.get(term.name, ()))


def synonyms(workplace: Workplace) -> Iterator[Pair]:
    """Term -> its least alike synonym; a sibling's name is the negative."""
    for terms in _read_files(workplace):
        nearest = {term.name: near for near, term in zip(terms[1:], terms, strict=False)}
        for term in terms:
            readable = readable_synonyms(term)
            if readable and is_taken(term):
                other = min(readable, key=lambda text: word_overlap(term.name, text))
                near = nearest.get(term.name)
                shares = near is not None and set(near.parents) & set(term.parents)
                yield Pair(term.name, other, (near.name,) if near and shares else ())


def word_overlap(left: str, right: str) -> float:
    """Jaccard overlap of the words of two names, 0 to 1."""
    a, b = set(left.lower().split()), set(right.lower().split())
    return len(a & b) / len(a | b)


def sibling_definitions(terms: list[Term]) -> dict[str, tuple[str, ...]]:
    """For each term with a sibling under its first parent, the next sibling's definition."""
    families: defaultdict[str, list[Term]] = defaultdict(list)
    for term in terms:
        if term.parents and term.definition:
            families[term.parents[0]].append(term)
    siblings: dict[str, tuple[str, ...]] = {}
    for family in families.values():
        for term, near in zip(family, family[1:] + family[:1], strict=True):
            siblings[term.name] = (near.definition,)
    return siblings


def _read_files(workplace: Workplace) -> Iterator[list[Term]]:
    """The terms of each file."""
    folder = workplace.unpack("emboss-data") / "usr" / "share" / "EMBOSS" / "data" / "OBO"
    for name in FILES:
        yield list(parse_terms((folder / name).read_text(encoding="utf-8", errors="replace")))
