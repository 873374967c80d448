"""The Retriever: an encoder and an index that belong together, opened in one call.

This is the one module that composes ``embedder`` and ``indexes``, so ``retrieval`` does not export
it: import it from here, or from ``millpond``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Self

from embedder.loading import load_for_index, load_for_text
from indexes import Index
from retrieval.errors import UsageError
from retrieval.filters.tree import Expression
from retrieval.protocols import Encoder, Notify, VectorIndex, silent
from retrieval.types import Hit, Query, check_fingerprints

__all__ = ["Retriever"]


class Retriever:
    """Answers text queries from an index, refusing an index that another model made.

    Parameters
    ----------
    encoder : turns the queries into vectors.
    index : holds vectors that an encoder with the same fingerprint made.

    Raises
    ------
    FingerprintError : encoder and index have different fingerprints.
    """

    def __init__(self, encoder: Encoder, index: VectorIndex) -> None:
        check_fingerprints(index.fingerprint, encoder.fingerprint)
        self.encoder = encoder
        self.index = index

    @classmethod
    def open(
        cls,
        index: Index | Path | str,
        model: str | None = None,
        speed: str | None = None,
        device: str | None = None,
        *,
        one_text: bool = False,
        trust_remote_code: bool = False,
        notify: Notify = silent,
    ) -> Self:
        """Return a retriever for an index, with the model that made it.

        Parameters
        ----------
        index : its folder, or the index itself if it is open already.
        model : another name of that model, such as the folder that it has moved to.
        speed : "exact" or "fast"; by default the one that the index was made with.
        device : "cuda", "mps" or "cpu"; the best there is by default.
        one_text : load what answers the first text soonest, without torch if the model and the
            device allow it. For more than a few texts the whole model is faster.
        trust_remote_code : whether sentence-transformers may run Python code that comes with the
            model.
        notify : receives one line for the user at each slow or notable step.

        Raises
        ------
        SourceNotFoundError, IndexCorruptError : as ``Index.open``.
        FingerprintError : the model that was loaded did not make the index.
        MillpondError : the model cannot be loaded; as ``Embedder.load``.
        """
        opened = index if isinstance(index, Index) else Index.open(index)
        load: Callable[..., Encoder] = load_for_text if one_text else load_for_index
        where = str(opened.folder)
        encoder = load(
            opened.fingerprint,
            model,
            speed,
            device,
            where=where,
            notify=notify,
            trust_remote_code=trust_remote_code,
        )
        return cls(encoder, opened)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if isinstance(self.index, Index):
            self.index.close()

    def search(self, text: str, k: int = 10, *, where: Expression | str | None = None) -> list[Hit]:
        """Return the k best hits for one text, best first, among documents that ``where`` lets in.

        Raises
        ------
        UsageError : k is below 1, or the filter does not fit the index.
        """
        _check_k(k)
        return self.index.search(self.encoder.encode_queries([text]), k, where=where)[0]

    def search_many(
        self,
        queries: Iterable[Query],
        k: int = 10,
        *,
        with_text: bool = False,
        where: Expression | str | None = None,
        batch: int = 256,
    ) -> Iterator[tuple[Query, list[Hit]]]:
        """Yield each query with its k best hits, holding two batches of queries in memory.

        While the index looks for one batch, in a thread of its own, the next is encoded.
        """
        _check_k(k)
        stream = iter(queries)
        with ThreadPoolExecutor(1, thread_name_prefix="millpond-search") as pool:
            waiting: tuple[list[Query], Future[list[list[Hit]]]] | None = None
            while chunk := list(islice(stream, batch)):
                vectors = self.encoder.encode_queries([query.text for query in chunk])
                found = pool.submit(self.index.search, vectors, k, with_text=with_text, where=where)
                if waiting is not None:
                    yield from zip(waiting[0], waiting[1].result(), strict=True)
                waiting = (chunk, found)
            if waiting is not None:
                yield from zip(waiting[0], waiting[1].result(), strict=True)


def _check_k(k: int) -> None:
    if k < 1:
        raise UsageError(f"k is {k}; it must be 1 or more.")
