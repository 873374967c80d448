"""WordNet 3.0: words to glosses, and example sentences to senses."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.lab.builtin.pairs import Pair, words
from benchmarks.lab.builtin.sources.apt import Workplace

PARTS = ("noun", "verb", "adj", "adv")
HYPERNYMS = ("@", "@i")
MOST_NEGATIVES = 2


@dataclass(frozen=True)
class Synset:
    """One sense: its words, its definitions, its example sentences, and its hypernyms' ids."""

    synset_id: str
    lemmas: tuple[str, ...]
    definitions: tuple[str, ...]
    examples: tuple[str, ...]
    hypernyms: tuple[str, ...]

    @property
    def gloss(self) -> str:
        """All definitions in one line."""
        return "; ".join(self.definitions)


def parse_synset(line: str) -> Synset:
    """One line of a WordNet ``data.*`` file (format: ``man 5 wndb``)."""
    fields, _, gloss = line.partition(" | ")
    parts = fields.split(" ")
    kind = "a" if parts[2] == "s" else parts[2]
    lemma_count = int(parts[3], 16)
    lemmas = tuple(_plain(parts[4 + 2 * at]) for at in range(lemma_count))
    start = 4 + 2 * lemma_count
    pointers = [parts[start + 1 + 4 * at :][:3] for at in range(int(parts[start]))]
    hypernyms = tuple(f"{part}{offset}" for sign, offset, part in pointers if sign in HYPERNYMS)
    return Synset(f"{kind}{parts[0]}", lemmas, *split_gloss(gloss), hypernyms)


def _plain(lemma: str) -> str:
    """A lemma as text: no underscores, and no adjective marker such as ``(p)``."""
    return re.sub(r"\((?:p|a|ip)\)$", "", lemma).replace("_", " ")


def split_gloss(gloss: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(definitions, example sentences) of a gloss; examples stand in double quotes."""
    examples = tuple(text.strip() for text in re.findall(r'"([^"]+)"', gloss))
    prose = re.sub(r'"[^"]*"(?:\s*-[^;]*)?', "", gloss)
    definitions = tuple(part for text in prose.split(";") if (part := text.strip(" :,\n")))
    return definitions, examples


def read_synsets(workplace: Workplace) -> dict[str, Synset]:
    """Every synset of the four parts of speech, by id."""
    folder = workplace.unpack("wordnet-base") / "usr" / "share" / "wordnet"
    synsets: dict[str, Synset] = {}
    for part in PARTS:
        for line in (folder / f"data.{part}").read_text(encoding="utf-8").splitlines():
            if not line.startswith("  "):  # the licence text on top is indented
                synset = parse_synset(line)
                synsets[synset.synset_id] = synset
    return synsets


def sibling_glosses(synsets: dict[str, Synset]) -> dict[str, tuple[str, ...]]:
    """For each synset, glosses of its next neighbours under the same hypernym."""
    children: defaultdict[str, list[str]] = defaultdict(list)
    for synset in synsets.values():
        for hypernym in synset.hypernyms:
            children[hypernym].append(synset.synset_id)
    siblings: dict[str, tuple[str, ...]] = {}
    for family in children.values():
        for at, synset_id in enumerate(family):
            near = family[at + 1 :] + family[:at]
            siblings[synset_id] = tuple(synsets[other].gloss for other in near[:MOST_NEGATIVES])
    return siblings


def count_senses(synsets: Iterable[Synset]) -> dict[str, int]:
    """The number of synsets that hold each lemma."""
    counts: defaultdict[str, int] = defaultdict(int)
    for synset in synsets:
        for lemma in synset.lemmas:
            counts[lemma.lower()] += 1
    return counts


def name_synset(synset: Synset, synsets: dict[str, Synset], senses: dict[str, int]) -> str:
    """Up to three words for the sense; a lone word of several senses gets its hypernym."""
    name = ", ".join(synset.lemmas[:3])
    if len(synset.lemmas) == 1 and senses[name.lower()] > 1 and synset.hypernyms:
        return f"{name} ({synsets[synset.hypernyms[0]].lemmas[0]})"
    return name


def glosses(workplace: Workplace) -> Iterator[Pair]:
    """Words of a sense -> its gloss, with glosses of sibling senses as negatives."""
    synsets = read_synsets(workplace)
    siblings, senses = sibling_glosses(synsets), count_senses(synsets.values())
    for synset in synsets.values():
        ambiguous = len(synset.lemmas) == 1 and senses[synset.lemmas[0].lower()] > 1
        if synset.definitions and (synset.hypernyms or not ambiguous):
            name = name_synset(synset, synsets, senses)
            yield Pair(name, synset.gloss, siblings.get(synset.synset_id, ()))


def examples(workplace: Workplace) -> Iterator[Pair]:
    """A sentence that uses a word -> that word in this sense, defined; negatives are siblings."""
    synsets = read_synsets(workplace)
    siblings = sibling_glosses(synsets)
    for synset in synsets.values():
        for sentence in synset.examples[:2]:
            if synset.definitions and len(words(sentence)) >= 4:
                used = find_lemma(sentence, synset.lemmas)
                negatives = siblings.get(synset.synset_id, ())
                yield Pair(sentence, f"{used}: {synset.gloss}", negatives)


def find_lemma(sentence: str, lemmas: tuple[str, ...]) -> str:
    """The lemma that the sentence shows, by its first letters, else the first lemma."""
    text = sentence.lower()
    found = [lemma for lemma in lemmas if lemma.lower()[: max(4, len(lemma) - 3)] in text]
    return (found or list(lemmas))[0]
