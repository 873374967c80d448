"""Numbers with their nouns, for messages."""

from __future__ import annotations

__all__ = ["count_noun"]


def count_noun(number: int, one: str, several: str = "") -> str:
    """Return "1 pair" or "1,234 pairs".

    Parameters
    ----------
    several : the plural, where it is more than ``one`` with an "s" ("1 query", "2 queries"); it
        may hold a verb ("1 row was", "2 rows were").
    """
    return f"{number:,} {one if number == 1 else several or one + 's'}"
