"""The permissive files of the shared training folder (CC BY, CC BY-SA, MIT: see INDEX.md there)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from benchmarks.lab.builtin.decontaminate import read_jsonl
from benchmarks.lab.builtin.pairs import (
    Pair,
    detokenise,
    reword,
    sentence_case,
    split_sentences,
    words,
)
from benchmarks.lab.builtin.sources.apt import Workplace

BOILERPLATE_REPEATS = 12
"""A sentence that this many MedQuAD answers share tells nothing about its question."""

_MEDQUAD_NOISE = re.compile(
    r"The Human Phenotype Ontology provides the following list|If the information is available, "
    r"the table below|You can use the MedlinePlus Medical Dictionary|The Human Phenotype Ontology "
    r"\(HPO\) has collected|Much of this information comes from Orphanet|The frequency of a sign "
    r"or symptom is usually|These resources (?:address|from)|Genetic Testing Registry|^- "
)
_HPO_TABLE = re.compile(r"Signs and Symptoms Approximate number of patients \(when available\)")
_HANGING = re.compile(
    r"^(?:It|This|These|They|He|She|Its|Their|Those|Such|However|Also|In addition|Other|Some|For "
    r"example|If so|But|And|Or|As a result|See|Click|For more|To learn|Visit|You|Your|Talk|Ask)\b"
)


def squad_sentences(workplace: Workplace) -> Iterator[Pair]:
    """Question -> the sentence that answers it; lower-cased upstream, so names stay so."""
    for query, positive, _ in _read(workplace, "squad_nqg_sentence"):
        yield Pair(sentence_case(detokenise(query)), sentence_case(detokenise(positive)))


def squad_rewordings(workplace: Workplace) -> Iterator[Pair]:
    """Words of an answering sentence left out, repeated and moved -> the sentence."""
    for pair in squad_sentences(workplace):
        yield Pair(reword(pair.positive), pair.positive)


def snli(workplace: Workplace) -> Iterator[Pair]:
    """Premise -> entailed sentence, with a contradicting one."""
    for query, positive, negatives in _read(workplace, "snli_devtest"):
        tidy = [sentence_case(detokenise(text)) for text in (query, positive, *negatives)]
        yield Pair(tidy[0], tidy[1], tuple(tidy[2:]))


def rqe(workplace: Workplace) -> Iterator[Pair]:
    """A clinician's question -> a shorter one whose answer answers it too."""
    for query, positive, _ in _read(workplace, "rqe_medical"):
        yield Pair(query, positive)


def medquad(workplace: Workplace) -> Iterator[Pair]:
    """Question -> the answer, less the sentences that many answers share."""
    for question, sentences in _medquad_answers(workplace):
        yield Pair(tidy_question(question), " ".join(sentences))


def medquad_sentences(workplace: Workplace) -> Iterator[Pair]:
    """A statement taken out of an answer -> the answer without it, as a claim to its evidence."""
    answers = list(_medquad_answers(workplace))
    counts = Counter(sentence for _, sentences in answers for sentence in set(sentences))
    for _, sentences in answers:
        for at in pick_claims(sentences, [counts[text] > 2 for text in sentences]):
            yield Pair(sentences[at], " ".join(sentences[:at] + sentences[at + 1 :]))


def tidy_question(question: str) -> str:
    """A MedQuAD question without the space that its template leaves before the mark."""
    return re.sub(r"\s+\?", "?", re.sub(r"\s*\(are\)\s*", " ", question)).strip()


def pick_claims(sentences: list[str], common: list[bool], most: int = 3) -> list[int]:
    """Positions of up to ``most`` sentences that stand alone, one from each part of the answer.

    ``common`` marks sentences that other answers hold too, which are no claims. A claim has 8 to
    40 words, opens with no pronoun or link word, is no question, and shares a long word with the
    rest, so that there is something to find.
    """
    fit = [at for at in range(len(sentences)) if not common[at] and _is_claim(sentences, at)]
    step = max(1, len(fit) // most)
    return fit[::step][:most]


def _is_claim(sentences: list[str], at: int) -> bool:
    """Whether the sentence at this position reads as a claim about what the others say."""
    sentence = sentences[at]
    rest = " ".join(sentences[:at] + sentences[at + 1 :])
    own = words(sentence)
    shared_words = {word for word in own if len(word) > 6} & set(words(rest))
    return (
        8 <= len(own) <= 40
        and sentence.endswith(".")
        and sentence[0].isupper()
        and not _HANGING.match(sentence)
        and len(rest) >= 200
        and bool(shared_words)
    )


def strip_echo(sentences: list[str]) -> list[str]:
    """The answer without the questions that it repeats and without known boilerplate."""
    joined = [_HPO_TABLE.split(sentence)[-1].strip(" -") for sentence in sentences]
    return [
        sentence
        for sentence in joined
        if sentence and not sentence.endswith("?") and not _MEDQUAD_NOISE.search(sentence)
    ]


def _medquad_answers(workplace: Workplace) -> Iterator[tuple[str, list[str]]]:
    """Every question with the sentences of its answer that are not boilerplate."""
    answers = [
        (question, strip_echo(split_sentences(answer)))
        for question, answer, _ in _read(workplace, "medquad")
    ]
    counts = Counter(sentence for _, sentences in answers for sentence in set(sentences))
    for question, sentences in answers:
        kept = [text for text in sentences if counts[text] < BOILERPLATE_REPEATS]
        if kept:
            yield question, kept


def _read(workplace: Workplace, name: str) -> Iterator[tuple[str, str, list[str]]]:
    """(query, positive, negatives) of each record; ``negative`` holds at most one."""
    for record in read_jsonl(workplace.shared / "train" / f"{name}.jsonl"):
        negative = record.get("negative")
        negatives = [str(negative)] if negative else []
        yield str(record["query"]), str(record["positive"]), negatives
