"""An opened search: the indexes, their model, and what every text is asked with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.console import message, warn
from cli.models import note_untrained
from retrieval.blend import Blend
from retrieval.filters import Expression, parse_filter
from retrieval.plurals import count_noun

if TYPE_CHECKING:
    from indexes import Index
    from indexes.group import IndexGroup
    from indexes.snapshot import Snapshot
    from retrieval import Hit
    from retrieval.retriever import Retriever

__all__ = ["CANDIDATES", "Choices", "Loading", "Search", "open_search", "warn_of_missing_words"]

CANDIDATES = 50
"""How many hits a reranker reads; a test holds it equal to ``retrieval.rerank.CANDIDATES``."""


@dataclass(frozen=True)
class Choices:
    """How texts are asked for: what ``Retriever.search`` takes, as it was typed."""

    k: int
    where: str | None = None
    mode: str | None = None
    fusion: str = "convex"
    weight: float | None = None
    distinct: bool = False


@dataclass(frozen=True)
class Loading:
    """How the model of an index is loaded."""

    model: str | None = None
    device: str | None = None
    speed: str | None = None
    trust: bool = False
    one_text: bool = False
    instruction: str | None = None
    reranker: str | None = None
    candidates: int = CANDIDATES


class Search:
    """Answers texts with choices that were checked; made by ``open_search``."""

    def __init__(self, retriever: Retriever, label: str) -> None:
        self.retriever = retriever
        self.label = label
        self.where: Expression | None = None
        self._noted = False

    def choose(self, choices: Choices) -> None:
        """Check the choices against the index and take them.

        Raises
        ------
        UsageError, UnknownNameError : they do not fit the index; what was chosen before stays.
        """
        from indexes.group import IndexGroup
        from indexes.index import Index
        from indexes.search.modes import describe_lacking

        index = self.retriever.index
        assert isinstance(index, Index | IndexGroup)
        blend = Blend(choices.mode, choices.fusion, choices.weight)
        lacking = describe_lacking(_opened(index))
        self.blend = blend.choose(index.modes, None, self.label, lacking)
        where = None if choices.where is None else parse_filter(choices.where)
        if not index.count(where):
            warn("No document matches the filter.")
        self.choices, self.where = choices, where

    def load(self) -> None:
        """Load the model, if the mode needs it and it is not loaded yet."""
        if self.blend.mode != "lexical" and not self._noted:
            note_untrained(self.retriever.encoder)
            self._noted = True

    def answer(self, text: str) -> list[Hit]:
        """Return the hits of a text, and say where they are fewer or otherwise than expected."""
        self.load()
        asked = self.choices
        hits = self.retriever.search(
            text,
            asked.k,
            where=self.where,
            mode=asked.mode,
            fusion=asked.fusion,
            weight=asked.weight,
            distinct=asked.distinct,
        )
        if not hits and self.blend.mode == "lexical":
            message("No document has a word of the text. Another mode looks for its meaning.")
        elif hits and hits[0].arms and not any(hit.arms["lexical"].score for hit in hits):
            message("No document has a word of the text: its meaning alone decides.")
        self.note_cut_pairs()
        return hits

    def note_cut_pairs(self) -> None:
        """Say how many documents the reranker did not read to their end since this was asked."""
        reranker = self.retriever.reranker
        if reranker is not None and (cut := reranker.take_cut()):
            warn(
                f"{reranker.name} read {count_noun(cut, 'candidate')} to token "
                f"{reranker.max_tokens} and no further. Passages are short enough: index with "
                f"--passages."
            )


def open_search(folders: Sequence[Path], choices: Choices, loading: Loading) -> Search:
    """Return the search of an index, or of several as one, with the model that made them.

    What does not fit the index is refused before the model is loaded. In mode "lexical" none is.

    Raises
    ------
    MillpondError : as ``Retriever.open`` and ``Search.choose``.
    """
    from indexes import Index
    from indexes.group import open_group
    from retrieval.retriever import Retriever

    opened: Index | IndexGroup
    opened = Index.open(folders[0]) if len(folders) == 1 else open_group(folders)
    retriever = Retriever.open(
        opened,
        loading.model,
        loading.speed,
        loading.device,
        one_text=loading.one_text,
        mode="lexical",
        trust_remote_code=loading.trust,
        instruction=loading.instruction,
        reranker=loading.reranker,
        candidates=loading.candidates,
        notify=message,
    )
    search = Search(retriever, " and ".join(map(str, folders)))
    search.choose(choices)
    if choices.mode is None and search.blend.mode == "dense":
        warn_of_missing_words(opened)
    search.load()
    return search


def warn_of_missing_words(opened: Index | IndexGroup) -> None:
    """Say of which indexes the words cannot be searched, where nobody asked for that."""
    from indexes.search.modes import describe_lacking

    for folder, snapshot in _opened(opened):
        tell = warn if snapshot.lexical_fault else message
        if snapshot.lexical is None:
            why = describe_lacking([(folder, snapshot)])
            tell(f"The search is by meaning alone. {why}")


def _opened(opened: Index | IndexGroup) -> list[tuple[Path, Snapshot]]:
    from indexes import Index

    every = [opened] if isinstance(opened, Index) else list(opened.indexes.values())
    return [(index.folder, index.snapshot) for index in every]
