"""The Retriever: an encoder and an index that belong together, opened in one call.

This is the one module that composes ``embedder`` and ``indexes``, so ``retrieval`` does not export
it: import it from here, or from ``millpond``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Self, TypeAlias

from embedder.loading import load_for_index, load_for_text
from embedder.models.names import read_name
from indexes import Index
from indexes.group import IndexGroup, open_group
from indexes.search.modes import Searchable, check_k, check_questions
from retrieval.errors import UsageError, check_type
from retrieval.filters.tree import Expression
from retrieval.protocols import Encoder, Notify, Reranker, VectorIndex, check_encoder, silent
from retrieval.types import LEXICAL, ArmScore, Blend, Hit, Query, check_fingerprints

CANDIDATES = 50
"""How many hits of a search are read again."""

Places: TypeAlias = Index | IndexGroup | Path | str | Sequence[Index | Path | str]
"""An index, opened or by its folder, or several that are searched as one."""


class Retriever:
    """Answers text queries from an index, refusing an index that another model made.

    Parameters
    ----------
    encoder : turns the queries into vectors; or a function that loads it when it is first needed,
        which a lexical search never does.
    index : holds vectors that an encoder with the same fingerprint made.
    other_prompt : whether the encoder may have another query prompt than the index was made with.
    reranker : reads the ``candidates`` best hits of each search again, and orders them.

    Raises
    ------
    FingerprintError : encoder and index have different fingerprints.
    """

    def __init__(
        self,
        encoder: Encoder | Callable[[], Encoder],
        index: VectorIndex,
        *,
        other_prompt: bool = False,
        reranker: Reranker | None = None,
        candidates: int = CANDIDATES,
    ) -> None:
        self.index = index
        self.reranker = reranker
        self.candidates = candidates
        self._other_prompt = other_prompt
        self._load: Callable[[], Encoder] | None = None
        if isinstance(encoder, Encoder) or not callable(encoder):
            check_encoder(encoder)
            self.encoder = encoder
        else:
            self._load = encoder

    @property
    def encoder(self) -> Encoder:
        """What turns queries into vectors, loaded if it is not yet."""
        if self._load is not None:
            self.encoder = self._load()
        return self._encoder

    @encoder.setter
    def encoder(self, encoder: Encoder) -> None:
        check_fingerprints(
            self.index.fingerprint,
            encoder.fingerprint,
            other_prompt=self._other_prompt,
            queries_only=True,
        )
        self._encoder = encoder
        self._load = None

    @classmethod
    def open(
        cls,
        index: Places,
        model: str | Path | None = None,
        speed: str | None = None,
        device: str | None = None,
        *,
        one_text: bool = False,
        mode: str | None = None,
        trust_remote_code: bool = False,
        instruction: str | None = None,
        reranker: str | None = None,
        candidates: int = CANDIDATES,
        notify: Notify = silent,
    ) -> Self:
        """Return a retriever for an index, with the model that made it.

        Parameters
        ----------
        index : its folder, or the index itself if it is open already; or a list of them, which
            are searched as one (see ``indexes.group.IndexGroup``).
        model : another name of that model, such as the folder that it has moved to.
        speed : "exact" or "fast"; by default the one that the index was made with.
        device : "cuda", "mps" or "cpu"; the best there is by default.
        one_text : load what answers the first text soonest, without torch if the model and the
            device allow it. For more than a few texts the whole model is faster.
        mode : with "lexical", the model is not loaded before a search needs it.
        trust_remote_code : whether sentence-transformers may run Python code that comes with the
            model.
        instruction : goes before queries in the model's template, in place of the index's own
            query prompt.
        reranker : a CrossEncoder that reads the best hits again: a folder, or OWNER/NAME on the
            model hub.
        candidates : how many hits it reads; never fewer than are asked for.
        notify : receives one line for the user at each slow or notable step.

        Raises
        ------
        SourceNotFoundError, IndexCorruptError : as ``Index.open``.
        FingerprintError : the model that was loaded did not make the index, or two indexes were
            made by different models.
        MillpondError : a model cannot be loaded; as ``Embedder.load`` and ``load_reranker``.
        """
        opened = _open(index)
        model = None if model is None else read_name(model)
        where = str(opened.folder) if isinstance(opened, Index) else ", ".join(opened.indexes)

        def load_model() -> Encoder:
            light = None
            if one_text:
                light = load_for_text(
                    opened.fingerprint, model, speed, device, where=where, instruction=instruction
                )
            return light or load_for_index(
                opened.fingerprint,
                model,
                speed,
                device,
                where=where,
                notify=notify,
                trust_remote_code=trust_remote_code,
                instruction=instruction,
            )

        encoder = load_model if mode == LEXICAL else load_model()
        loaded = None
        if reranker is not None:
            from embedder.models.sentence_transformers import load_reranker

            loaded = load_reranker(reranker, device, notify, trust_remote_code=trust_remote_code)
        return cls(
            encoder,
            opened,
            other_prompt=instruction is not None,
            reranker=loaded,
            candidates=candidates,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if isinstance(self.index, Searchable):
            self.index.close()

    def search(
        self,
        text: str,
        k: int = 10,
        *,
        where: Expression | str | None = None,
        mode: str | None = None,
        fusion: str = "convex",
        weight: float | None = None,
        distinct: bool = False,
    ) -> list[Hit]:
        """Return the k best hits for one text, best first, among documents that ``where`` lets in.

        ``mode`` ("hybrid", "dense" or "lexical"), ``fusion`` ("convex" or "rrf"), ``weight`` and
        ``distinct`` are those of ``Index.search``.

        Raises
        ------
        UsageError : the text is empty, k is below 1, the filter does not fit the index, the index
            lacks an arm that the mode needs, or the weight is outside 0 to 1.
        """
        check_k(k)
        check_questions([text])
        ask = self._prepare([text], Blend(mode, fusion, weight, distinct))
        if self.reranker is None:
            return ask(k, where=where)[0]
        return rerank(self.reranker, text, ask(max(k, self.candidates), where=where)[0], k)

    def search_many(
        self,
        queries: Iterable[Query],
        k: int = 10,
        *,
        with_text: bool = False,
        where: Expression | str | None = None,
        mode: str | None = None,
        fusion: str = "convex",
        weight: float | None = None,
        distinct: bool = False,
        batch: int = 256,
    ) -> Iterator[tuple[Query, list[Hit]]]:
        """Yield each query with its k best hits, holding two batches of queries in memory.

        While the index looks for one batch, in threads of its own, the next is encoded. The other
        options are those of ``search``.
        """
        check_k(k)
        reranker, blend = self.reranker, Blend(mode, fusion, weight, distinct)
        wanted, with_text = (k, with_text) if reranker is None else (max(k, self.candidates), True)
        stream = iter([queries] if isinstance(queries, Query) else queries)
        with ThreadPoolExecutor(1, thread_name_prefix="millpond-search") as pool:
            waiting: tuple[list[Query], Future[list[list[Hit]]]] | None = None
            while chunk := [_read_query(query) for query in islice(stream, batch)]:
                ask = self._prepare([query.text for query in chunk], blend)
                found = pool.submit(ask, wanted, with_text=with_text, where=where)
                if waiting is not None:
                    yield from self._finish(*waiting, k)
                waiting = (chunk, found)
            if waiting is not None:
                yield from self._finish(*waiting, k)

    def _finish(
        self, queries: list[Query], found: Future[list[list[Hit]]], k: int
    ) -> Iterator[tuple[Query, list[Hit]]]:
        """Yield each query with its hits, read again where there is a reranker."""
        for query, hits in zip(queries, found.result(), strict=True):
            if self.reranker is not None:
                hits = rerank(self.reranker, query.text, hits, k)
            yield query, hits

    def _prepare(self, texts: list[str], blend: Blend) -> Callable[..., list[list[Hit]]]:
        """Return the search for these texts, which are encoded now where the mode needs it."""
        choices = asdict(blend)
        if (blend.mode or self.index.modes[0]) == LEXICAL:
            return partial(self.index.search, texts, **choices)
        return partial(
            self.index.search, self.encoder.encode_queries(texts), texts=texts, **choices
        )


def _open(places: Places) -> Index | IndexGroup:
    if isinstance(places, Index | IndexGroup):
        return places
    if isinstance(places, Iterable) and not isinstance(places, str):
        return open_group(places)
    return Index.open(places)


def _read_query(query: Query) -> Query:
    expected = "a Query(query_id, text). To search for one text: search(text)"
    check_type("A query", query, Query, expected)
    try:
        check_questions([query.text])
    except UsageError as error:
        raise UsageError(f"Query {query.query_id!r}: {error}") from None
    return query


def rerank(reranker: Reranker, text: str, hits: Sequence[Hit], k: int) -> list[Hit]:
    """Return the k hits that a reranker scores highest, best first.

    A hit's score is the reranker's, and ``first_stage`` what the search gave it. They are ordered
    by the model's output, since an activation rounds large ones to 1; equal outputs stay in the
    order of the search. The hits need their texts.
    """
    outputs = reranker.score(text, [f"{hit.title} {hit.text}".strip() for hit in hits])
    scores = reranker.activate(outputs)
    order = sorted(range(len(hits)), key=lambda place: (-float(outputs[place]), place))[:k]
    return [
        replace(
            hits[place],
            rank=rank,
            score=float(scores[place]),
            first_stage=ArmScore(hits[place].score, hits[place].rank),
        )
        for rank, place in enumerate(order, start=1)
    ]
