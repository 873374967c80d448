"""A sentence in other words without a model: some left out, some repeated, clauses moved.

Pairs of a text and a disturbed copy train an encoder without labels; repeating words keeps it
from reading likeness off the length (ESimCSE, arXiv 2109.04380).
"""

from __future__ import annotations

from random import Random

LEFT_OUT = 0.15
REPEATED = 0.08
MOVED = 0.5
SHORTEST = 5


def reword(sentence: str) -> str:
    """The sentence with words left out (15%), repeated (8%) and, often, its clauses turned round.

    The same sentence gives the same rewording. At least SHORTEST words, or all of a shorter
    sentence, are kept.
    """
    dice = Random(sentence)
    words = _turn(sentence, dice).split()
    spare = max(0, len(words) - SHORTEST)
    kept: list[str] = []
    for word in words:
        draw = dice.random()
        if draw < LEFT_OUT and spare > 0:
            spare -= 1
            continue
        kept.append(word)
        if draw > 1 - REPEATED:
            kept.append(word)
    return " ".join(kept)


def _turn(sentence: str, dice: Random) -> str:
    """Put what follows one of the commas first; a sentence without one stays."""
    body = sentence.rstrip(".!?")
    clauses = body.split(", ")
    if len(clauses) < 2 or dice.random() >= MOVED:
        return sentence
    at = dice.randrange(1, len(clauses))
    return ", ".join(clauses[at:] + clauses[:at]) + sentence[len(body) :]
