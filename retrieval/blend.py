"""How the dense and the lexical arm of an index answer together: modes, fusions and the weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from retrieval.errors import UnknownNameError, UsageError

__all__ = ["DEFAULT_WEIGHT", "DENSE", "FUSIONS", "LEXICAL", "MODES", "Blend", "Fusion", "Mode"]

Mode: TypeAlias = Literal["hybrid", "dense", "lexical"]
Fusion: TypeAlias = Literal["convex", "rrf"]

MODES: tuple[Mode, ...] = get_args(Mode)
FUSIONS: tuple[Fusion, ...] = get_args(Fusion)
DENSE: Literal["dense"] = "dense"
LEXICAL: Literal["lexical"] = "lexical"

DEFAULT_WEIGHT = 0.45
"""The share of the dense arm. Chosen on judgements of no test set; docs/hybrid.md has the curve."""


@dataclass(frozen=True)
class Blend:
    """Which arms answer a search, and how their scores become one.

    Attributes
    ----------
    mode : "hybrid", "dense" or "lexical"; None for hybrid where an index has both arms, else for
        the arm that it has.
    fusion : "convex", a weighted mean of scores; or "rrf", a sum of reciprocal ranks.
    weight : the dense arm's share in a convex fusion, 0 to 1; None for the one that the index
        keeps, else ``DEFAULT_WEIGHT``.
    distinct : whether of documents that are nearly the same only the best is a hit.

    Raises
    ------
    UnknownNameError : no such mode or fusion.
    UsageError : the weight is outside 0 to 1, or nothing would be weighted with it.
    """

    mode: str | None = None
    fusion: str = "convex"
    weight: float | None = None
    distinct: bool = False

    def __post_init__(self) -> None:
        """Check names and range, and that they go together."""
        if self.mode is not None and self.mode not in MODES:
            raise UnknownNameError("mode", self.mode, MODES)
        if self.fusion not in FUSIONS:
            raise UnknownNameError("fusion", self.fusion, FUSIONS)
        if self.weight is None:
            return
        if not 0 <= self.weight <= 1:
            raise UsageError(
                f"The weight is {self.weight:g}; it must be between 0 (the words alone) and 1 "
                "(the meaning alone)."
            )
        unused = self.mode not in (None, "hybrid") and f"mode {self.mode} asks one arm alone"
        unused = unused or (self.fusion == "rrf" and "fusion rrf adds ranks, not scores")
        if unused:
            raise UsageError(f"A weight goes with mode hybrid and fusion convex; {unused}.")

    def choose(
        self, modes: Sequence[str], weight: float | None, where: str, lacking: str = ""
    ) -> Blend:
        """Return the blend with every choice made.

        Parameters
        ----------
        modes : those that the index offers, its default first.
        weight : the one that the index keeps, if any.
        where : how a message names the index.
        lacking : why its words cannot be searched, and what to type; "" where nobody knows.

        Raises
        ------
        UsageError : the index lacks an arm that the mode needs.
        """
        mode = self.mode or modes[0]
        if mode not in modes:
            raise UsageError(
                f"{where} cannot be searched with mode {mode}, but with mode {modes[0]}. "
                f"{lacking or 'There is no lexical arm that works.'}"
            )
        if mode != "hybrid" and self.weight is not None:
            raise UsageError(
                f"A weight goes with mode hybrid, and {where} can be searched with mode {mode} "
                f"alone: leave the weight out. {lacking}".rstrip()
            )
        if mode != "hybrid" or self.fusion == "rrf":
            return replace(self, mode=mode)
        kept = DEFAULT_WEIGHT if weight is None else weight
        return replace(self, mode=mode, weight=kept if self.weight is None else self.weight)
