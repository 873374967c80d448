"""The nouns of the pipeline: documents, queries, hits, an encoder's identity, blends of arms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any, Literal, TypeAlias, cast, get_args

from retrieval.errors import FingerprintError, UnknownNameError, UsageError
from retrieval.typed import read_stored

Scalar = str | int | float | bool | None
"""The type of one value of a setting."""

MetadataValue = Scalar | list[Any]
"""The type of one metadata value; a list holds values that JSON can hold."""


@dataclass(frozen=True, slots=True)
class Section:
    """Where a part of a text begins.

    Attributes
    ----------
    start : in characters.
    heading : the headings above the part, as in "Guide > Install"; "" before the first.
    page : the number of its page; None where there are none.
    """

    start: int
    heading: str = ""
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One unit of a corpus.

    Attributes
    ----------
    doc_id : unique within its corpus, never empty.
    text : the body; may be empty.
    title : may be empty.
    metadata : every further column of the source, by name.
    sections : where headings and pages begin, in order; read where passages are cut, and not
        stored.
    """

    doc_id: str
    text: str
    title: str = ""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    sections: tuple[Section, ...] = field(default=(), compare=False, repr=False)

    @property
    def content(self) -> str:
        """What is embedded: title and text, one blank apart (the BEIR convention)."""
        return f"{self.title} {self.text}".strip() if self.title else self.text


@dataclass(frozen=True, slots=True)
class Query:
    """One question, with an id that is unique within its file."""

    query_id: str
    text: str


@dataclass(frozen=True, slots=True)
class ArmScore:
    """What one arm of an index says of a document.

    Attributes
    ----------
    score : the cosine (or inner product) of the dense arm, BM25 of the lexical one.
    rank : 1 for the arm's best; None where the document is not among the best that the arm was
        asked for, and was scored because the other arm returned it.
    """

    score: float
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """Which part of its document a text is.

    Attributes
    ----------
    number : from 0, in the order of the document.
    start, stop : where it begins and ends in the text of the document, in characters; None if the
        index does not know.
    """

    number: int
    start: int | None = None
    stop: int | None = None


@dataclass(slots=True)
class Hit:
    """One search result.

    Not frozen: a frozen one takes 1.4 µs longer to make, times k and queries.

    Attributes
    ----------
    rank : 1 for the best hit.
    score : higher is better. Of a dense search, the inner product of unit vectors (cosine) unless
        the index's manifest names another metric; of a lexical one, BM25; of a hybrid one, both
        fused.
    title, text, metadata : of the stored document; empty if texts were not requested.
    arms : of a hybrid search, the score and rank of each arm, "dense" and "lexical"; else empty,
        since ``score`` and ``rank`` are those of the one arm.
    matched : the words of the document, as written there, that a word of the query matches; empty
        after a dense search, or if texts were not requested.
    index : the name of the index, where several were searched.
    passage : which part of the document ``text`` is; None where documents are whole, or if texts
        were not requested.
    first_stage : score and rank of the search, where a reranker has given ``score`` and ``rank``.
    row : of the index, where it is known, else -1; another state of the index may differ.
    """

    rank: int
    doc_id: str
    score: float
    title: str = ""
    text: str = ""
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    arms: Mapping[str, ArmScore] = field(default_factory=dict)
    matched: tuple[str, ...] = ()
    index: str = ""
    first_stage: ArmScore | None = None
    passage: Passage | None = None
    row: int = field(default=-1, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Everything that decides the numbers in a vector.

    Two encoders with equal fingerprints give the same vectors for the same text; vectors of
    unequal fingerprints must never be compared, even where their dimension agrees.

    Attributes
    ----------
    model : the name a user would type to load this encoder again.
    settings : what decides the vectors (weights checksum, pooling, attention, prompts, ...).
        The name is not compared: the same weights under another name are the same model.
    """

    model: str
    settings: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of the settings in canonical JSON, as 64 hexadecimal digits."""
        canonical = json.dumps(dict(self.settings), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def differences(self, other: Fingerprint) -> list[str]:
        """Return one clause for each setting that differs, sorted by name."""
        names = sorted({*self.settings, *other.settings})
        pairs = [(name, self.settings.get(name), other.settings.get(name)) for name in names]
        return [
            f"{name} {mine!r} against {theirs!r}" for name, mine, theirs in pairs if mine != theirs
        ]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary that ``from_json`` reads."""
        return {"model": self.model, "settings": dict(self.settings), "digest": self.digest}

    @classmethod
    def from_json(cls, data: object) -> Fingerprint:
        """Read what ``to_json`` wrote.

        Raises
        ------
        ValueError : a key is missing or of another type, or the digest does not belong to the
            settings.
        """
        if not isinstance(data, Mapping) or not {"model", "settings"} <= data.keys():
            raise ValueError("a fingerprint needs 'model' (string) and 'settings' (object)")
        stated = {name: value for name, value in data.items() if name != "digest"}
        fingerprint = read_stored(cls, stated, "fingerprint")
        if data.get("digest") != fingerprint.digest:
            raise ValueError("the fingerprint's digest does not belong to its settings")
        return fingerprint


SPACE = "space"
"""The setting of a student that was trained to give the vectors of another model: its digest."""


def check_fingerprints(
    index: Fingerprint,
    query: Fingerprint,
    *,
    where: str = "",
    other_prompt: bool = False,
    queries_only: bool = False,
) -> None:
    """Raise FingerprintError, naming both models, unless the two have the same settings.

    With ``queries_only``, a student that was trained to give the vectors of the index's model will
    do as well.

    With ``other_prompt`` the user chose another query prompt, which no document's vector depends
    on.
    """
    if queries_only and query.settings.get(SPACE) == index.digest:
        return
    if other_prompt:
        prompt = query.settings.get("query_prompt", "")
        index = Fingerprint(index.model, {**index.settings, "query_prompt": prompt})
    if index.digest == query.digest:
        return
    place = f" {where}" if where else ""
    other = (
        f"Search with --model {index.model!r}, or index" if index.model != query.model else "Index"
    )
    raise FingerprintError(
        f"The index{place} was made with {index.model!r}, the query comes from {query.model!r}: "
        f"{'; '.join(index.differences(query))}. Their vectors cannot be compared. "
        f"{other} the corpus again."
    )


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
        if isinstance(self.weight, bool) or not isinstance(cast(object, self.weight), Real):
            raise UsageError(f"The weight is {self.weight!r}; expected a number from 0 to 1.")
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
