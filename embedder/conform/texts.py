"""The 40 texts that two models are compared on. Imports no torch."""

# ruff: noqa: RUF001
from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_SHORT = (
    "A mill grinds grain.",
    "Where does the water of the pond go in summer?",
    "def add(a, b): return a + b",
    "The price rose from 1,299.50 to 1,450 dollars between 2019 and 2023.",
    "mitochondria",
    "Dear Ms Novak, please find the signed contract attached.",
    "SELECT name FROM users WHERE age > 30 ORDER BY name;",
    "Is it safe to take ibuprofen and paracetamol together?",
)
_LANGUAGES = (
    "Der Müller öffnet früh am Morgen die Schleuse.",
    "L'étang gèle rarement avant la fin de décembre.",
    "El molino dejó de funcionar hace cincuenta años.",
    "Мельница стоит на берегу реки.",
    "水车在河边慢慢转动。",
    "池の水は冬に凍ります。",
    "طاحونة قديمة على ضفة النهر",
    "नदी के किनारे एक पुरानी चक्की है।",
    "Ο μύλος αλέθει σιτάρι.",
)
_EMOJI = ("😀", "Great job 👏🏽, see you soon 🎉", "👨‍👩‍👧‍👦 family of four 🇫🇷")
_CASE = ("New York City Subway Map", "How do I cancel my order?", "NASA launches a new rocket")
_SPACES = (
    "  two blanks before and after  ",
    "one line\nanother line\n\na third",
    "tabs\tbetween\twords",
    "many     blanks     inside",
)
_USUAL_SPECIALS = ("<|endoftext|>", "</s>", "[SEP]", "<|im_end|>", "<eos>")
_SPECIAL_COUNT = 5

KINDS = ("short", "languages", "emoji", "case", "whitespace", "special tokens", "empty", "long")
ORDINARY = ("short", "languages", "emoji")
"""The kinds in which nothing but the model itself should matter."""

_LONG_SHARES = (0.5, 1.1, 1.5, 2.0)
_LONGEST_TOKENS = 2048
"""Long texts are sized by the model's limit, and by this where the limit is larger."""
_NOUNS = (
    "mill",
    "river",
    "wheel",
    "stone",
    "field",
    "bridge",
    "village",
    "storm",
    "market",
    "road",
)


@dataclass(frozen=True)
class Sample:
    """One text, and which of ``KINDS`` it is."""

    kind: str
    text: str


def make_samples(
    specials: Sequence[str], count_tokens: Callable[[str], int], max_tokens: int
) -> list[Sample]:
    """Return the 40 texts.

    Parameters
    ----------
    specials : how the model spells its special tokens; the first ones stand in texts.
    count_tokens : the tokens of a text, without what the model puts around it.
    max_tokens : the longest input of the model; long texts have from half to twice as many.
    """
    spelled = list(dict.fromkeys([*specials, *_USUAL_SPECIALS]))[:_SPECIAL_COUNT]
    limit = min(max_tokens, _LONGEST_TOKENS)
    texts = {
        "short": _SHORT,
        "languages": _LANGUAGES,
        "emoji": _EMOJI,
        "case": [shown for text in _CASE for shown in (text.upper(), text.lower())],
        "whitespace": _SPACES,
        "special tokens": [f"The token {token} ends a text." for token in spelled],
        "empty": [""],
        "long": [grow_text(count_tokens, int(share * limit)) for share in _LONG_SHARES],
    }
    return [Sample(kind, text) for kind in KINDS for text in texts[kind]]


def grow_text(count_tokens: Callable[[str], int], tokens: int) -> str:
    """Return a text of at least so many tokens in which no two sentences are the same."""
    sentences: list[str] = []
    while True:
        for _ in range(max(1, len(sentences) // 2)):
            number = len(sentences) + 1
            first, second = _NOUNS[number % 10], _NOUNS[number * 7 // 10 % 10]
            sentences.append(f"In year {number} the {first} stood beside the {second}.")
        if count_tokens(" ".join(sentences)) >= tokens:
            break
    fewest = bisect_left(
        range(len(sentences)),
        tokens,
        lo=1,
        key=lambda count: count_tokens(" ".join(sentences[:count])),
    )
    return " ".join(sentences[:fewest])
