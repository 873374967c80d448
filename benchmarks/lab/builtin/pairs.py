"""The training pair, and the text work that every source shares: clean, cut, judge."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random

QUERY_CHARS = (3, 300)
POSITIVE_CHARS = (8, 1200)
MOST_PER_QUERY = 3
MOST_PER_POSITIVE = 4

LEFT_OUT_SHARE = 0.15
REPEATED_SHARE = 0.08
MOVED_SHARE = 0.5
SHORTEST_REWORDING_WORDS = 5

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')]*\s+(?=[\"'(]?[A-Z0-9])")
_ABBREVIATION = re.compile(r"(?:\b(?:e\.g|i\.e|etc|vs|cf|Dr|Mr|Mrs|St|No|Fig|approx|[A-Z])\.)$")
_WORD = re.compile(r"[a-z0-9]+")
_BRACKETS = {"-lrb-": "(", "-rrb-": ")", "-lsb-": "[", "-rsb-": "]"}


@dataclass(frozen=True)
class Pair:
    """One training record: a query, the text that answers it, and texts that do not."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()

    def as_record(self) -> dict[str, object]:
        """The pair as one jsonl record; ``negatives`` is left out where there are none."""
        record: dict[str, object] = {"query": self.query, "positive": self.positive}
        return {**record, "negatives": list(self.negatives)} if self.negatives else record


def text_key(text: str) -> str:
    """The text in lower case with letters and digits only: equal keys count as equal texts."""
    return "".join(_WORD.findall(text.lower()))


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits, in order."""
    return _WORD.findall(text.lower())


def squeeze(text: str) -> str:
    """The text with every run of white space turned into one space."""
    return " ".join(text.split())


def split_sentences(text: str) -> list[str]:
    """Sentences of squeezed text; abbreviations such as "e.g." do not end one."""
    sentences: list[str] = []
    for piece in _SENTENCE_END.split(squeeze(text)):
        if sentences and _ABBREVIATION.search(sentences[-1]):
            sentences[-1] += f" {piece}"
        elif piece:
            sentences.append(piece)
    return sentences


def cut_at_sentence(text: str, most_chars: int) -> str:
    """The longest run of whole leading sentences that fits; a too long first one loses words."""
    if len(text) <= most_chars:
        return text
    kept = ""
    for sentence in split_sentences(text):
        longer = f"{kept} {sentence}".strip()
        if len(longer) > most_chars:
            break
        kept = longer
    return kept or text[:most_chars].rsplit(" ", 1)[0]


def first_and_rest(
    text: str, first_chars: tuple[int, int] = (40, 250), rest_chars: int = 120
) -> Iterator[Pair]:
    """The first sentence as a query for what follows it, where both are long enough."""
    sentences = split_sentences(text)
    rest = " ".join(sentences[1:])
    first = sentences[0] if sentences else ""
    if first_chars[0] <= len(first) <= first_chars[1] and len(rest) >= rest_chars:
        yield Pair(first, rest)


def detokenise(text: str) -> str:
    """Undo Penn-style tokens: brackets, quotes, clitics, and spaces before punctuation."""
    for token, character in _BRACKETS.items():
        text = re.sub(token, character, text, flags=re.IGNORECASE)
    text = text.replace("``", '"').replace("''", '"')
    if text.count('"') % 2:  # one half of a quotation was cut off with another sentence
        text = text.replace('"', " ")
    text = re.sub(r"`\s*([^`]*?)\s*'(?=[\s.,;:?!)]|$)", r"'\1'", text)
    text = re.sub(r'"\s*([^"]*?)\s*"', r'"\1"', text)
    text = re.sub(r"\s+([?.!,;:%)\]])", r"\1", text)
    text = re.sub(r"([(\[$£€#])\s+", r"\1", text)
    text = re.sub(r"\s+('(?:s|re|ve|ll|d|m)\b|n't\b)", r"\1", text, flags=re.IGNORECASE)
    text = re.sub(r"(\w)\s+'(?=\s)", r"\1'", text)
    text = re.sub(r"(\d)\s*([-\u2013/])\s+(?=\d)", r"\1\2", text)
    return squeeze(text)


def sentence_case(text: str) -> str:
    """A lower-cased sentence with its first letter and the word "I" made capitals again."""
    text = re.sub(r"\bi\b(?=[ ',])(?!\.)", "I", text)
    return text[:1].upper() + text[1:]


def looks_english(text: str) -> bool:
    """Whether the text is mostly ASCII letters, so not code, a table, or another script."""
    letters = sum(character.isascii() and character.isalpha() for character in text)
    spaces = text.count(" ")
    foreign = sum(not character.isascii() for character in text)
    return letters + spaces >= 0.7 * len(text) and foreign <= 0.05 * len(text) + 1


def find_fault(pair: Pair) -> str | None:
    """Why the pair is not fit to train on, or None where it is."""
    if not pair.query or not pair.positive:
        return "empty side"
    if text_key(pair.query) == text_key(pair.positive):
        return "identical sides"
    if not QUERY_CHARS[0] <= len(pair.query) <= QUERY_CHARS[1]:
        return "query too short or too long"
    if not POSITIVE_CHARS[0] <= len(pair.positive):
        return "positive too short"
    if not looks_english(pair.query) or not looks_english(pair.positive):
        return "not English-looking"
    return None


class Sieve:
    """Lets through the pairs fit to train on, and counts in ``dropped`` why others were not."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self._pairs: set[tuple[str, str]] = set()
        self._queries: Counter[str] = Counter()
        self._positives: Counter[str] = Counter()

    def __call__(self, pairs: Iterable[Pair]) -> Iterator[Pair]:
        """Yield clean, cut and distinct pairs in their order."""
        for raw in pairs:
            pair = _clean(raw)
            fault = find_fault(pair) or self._find_repeat(pair)
            if fault:
                self.dropped[fault] += 1
            else:
                yield pair

    def _find_repeat(self, pair: Pair) -> str | None:
        """Name the repetition, or remember the pair and return None."""
        query, positive = text_key(pair.query), text_key(pair.positive)
        if (query, positive) in self._pairs or (positive, query) in self._pairs:
            return "repeated pair"
        if self._queries[query] >= MOST_PER_QUERY:
            return f"query already has {MOST_PER_QUERY} positives"
        if self._positives[positive] >= MOST_PER_POSITIVE:
            return f"positive already has {MOST_PER_POSITIVE} queries"
        self._pairs.add((query, positive))
        self._queries[query] += 1
        self._positives[positive] += 1
        return None


def _clean(pair: Pair) -> Pair:
    """Squeeze all texts, cut the long ones, and drop negatives that equal a side."""
    query, positive = (
        squeeze(pair.query),
        cut_at_sentence(squeeze(pair.positive), POSITIVE_CHARS[1]),
    )
    taken = {text_key(query), text_key(positive), ""}
    negatives: list[str] = []
    for text in pair.negatives:
        negative = cut_at_sentence(squeeze(text), POSITIVE_CHARS[1])
        if text_key(negative) not in taken:
            taken.add(text_key(negative))
            negatives.append(negative)
    return Pair(query, positive, tuple(negatives))


def reword(sentence: str) -> str:
    """Return the sentence with words left out, repeated and, often, its clauses moved.

    A text and a disturbed copy train an encoder without labels; repeating words keeps it from
    judging likeness by length (ESimCSE, arXiv 2109.04380). The same sentence gives the same
    rewording, of at least five words, or of all if it is shorter.
    """
    dice = Random(sentence)
    tokens = _move_clauses(sentence, dice).split()
    spare = max(0, len(tokens) - SHORTEST_REWORDING_WORDS)
    kept: list[str] = []
    for token in tokens:
        draw = dice.random()
        if draw < LEFT_OUT_SHARE and spare > 0:
            spare -= 1
            continue
        kept.append(token)
        if draw > 1 - REPEATED_SHARE:
            kept.append(token)
    return " ".join(kept)


def _move_clauses(sentence: str, dice: Random) -> str:
    """Put what follows one of the commas first; a sentence without one stays."""
    body = sentence.rstrip(".!?")
    clauses = body.split(", ")
    if len(clauses) < 2 or dice.random() >= MOVED_SHARE:
        return sentence
    at = dice.randrange(1, len(clauses))
    return ", ".join(clauses[at:] + clauses[:at]) + sentence[len(body) :]
