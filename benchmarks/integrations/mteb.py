"""Our models for mteb 2: ``mteb.evaluate(load_for_mteb(NAME), tasks)``.

``MtebEncoder`` follows mteb's EncoderProtocol; ``MtebSearch`` follows its SearchProtocol as well
and retrieves through our own indexes. Texts reach the model as in ``run_benchmark``: documents
with the document prompt, everything else with the query prompt, title and text one blank apart.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.integrations.mteb_meta import ModelFacts, describe_model, find_facts, import_mteb
from benchmarks.scoring.bm25 import BM25_NAME
from benchmarks.scoring.models import Load, load_model
from indexes import Index, IndexConfig
from indexes.storage.vectors import check_vectors
from retrieval import Document, Encoder, Hit, Query, Vectors
from retrieval.errors import StorageError, UsageError
from retrieval.protocols import Notify, silent
from retrieval.retriever import Retriever

__all__ = [
    "ModelFacts",
    "MtebEncoder",
    "MtebSearch",
    "MtebSearcher",
    "load_for_mteb",
    "read_documents",
]

BATCH_TEXTS = 1024


class MtebEncoder:
    """A model for ``mteb.evaluate``; retrieval is mteb's own exact search.

    Parameters
    ----------
    encoder : what turns texts into vectors.
    facts : for ``mteb_model_meta``.

    Raises
    ------
    MissingDependencyError : mteb 2 is not installed.
    """

    def __init__(self, encoder: Encoder, *, facts: ModelFacts | None = None) -> None:
        self._similarity = import_mteb("mteb.similarity_functions")
        self._is_cosine = encoder.fingerprint.settings.get("normalize") is not False
        self._meta = describe_model(encoder, facts or ModelFacts())
        self.encoder = encoder

    @property
    def mteb_model_meta(self) -> Any:
        """A ``mteb.models.ModelMeta``: ``revision`` is the start of the fingerprint's digest."""
        return self._meta

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: str | None = None,
        **kwargs: Any,
    ) -> Vectors:
        """Return float32 (N, D), one row per text in the order of ``inputs``.

        Parameters
        ----------
        inputs : batches with a list of strings under "text".
        prompt_type : "document" takes the document prompt; "query" and None the query prompt.
        kwargs : mteb's further settings. "batch_size" is not needed, since the encoder makes its
            own batches; a "precision" other than "float32" is refused.

        Raises
        ------
        UsageError : another precision, or a batch without texts.
        VectorError : the encoder gave NaN, infinity, or another shape or dtype.
        """
        _check_precision(kwargs)
        is_document = prompt_type == "document"
        texts = _read_texts(inputs, is_document, task_metadata.name)
        return self._encode(texts, is_document, task_metadata.name)

    def _encode(self, texts: Iterator[str], is_document: bool, task: str) -> Vectors:
        """Return float32 (N, D) of texts, which are read in batches."""
        encode = self.encoder.encode_documents if is_document else self.encoder.encode_queries
        parts: list[Vectors] = []
        done = 0
        while chunk := list(islice(texts, BATCH_TEXTS)):
            source = f"{task}, texts {done} to {done + len(chunk) - 1}"
            parts.append(check_vectors(encode(chunk), self.encoder.dimension, source=source))
            done += len(chunk)
        return np.concatenate(parts or [np.empty((0, self.encoder.dimension), dtype=np.float32)])

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the score of every row of the first with every row of the second, (N, M).

        It is the cosine; for a model with ``normalize=false`` the inner product, by which our
        indexes rank its vectors too.
        """
        measure = self._similarity
        return (measure.cos_sim if self._is_cosine else measure.dot_score)(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Return the score of each row of the first with the same row of the second, (N,)."""
        measure = self._similarity
        return (measure.pairwise_cos_sim if self._is_cosine else measure.pairwise_dot_score)(
            embeddings1, embeddings2
        )


class MtebSearcher(MtebEncoder):
    """A model for mteb that retrieves by itself; a class that says how has ``_find``.

    Tasks other than retrieval go as with ``MtebEncoder``; so does ranking candidates anew, where
    there is nothing to find.
    """

    _corpus: Any = None
    _place: Mapping[str, Any] | None = None

    def index(
        self,
        corpus: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: Mapping[str, Any],
        num_proc: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Take a corpus, which is indexed when it is searched.

        Parameters
        ----------
        corpus : rows with "id", "text" and perhaps "title".

        Raises
        ------
        UsageError : a precision other than "float32".
        """
        _check_precision(encode_kwargs)
        self._corpus = corpus
        self._place = {
            "task_metadata": task_metadata,
            "hf_split": hf_split,
            "hf_subset": hf_subset,
        }

    def search(
        self,
        queries: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: Mapping[str, Any],
        top_ranked: Mapping[str, list[str]] | None = None,
        num_proc: int | None = None,
        **kwargs: Any,
    ) -> dict[str, dict[str, float]]:
        """Return the best ``top_k`` documents of each query: query id to document id to score.

        Parameters
        ----------
        queries : a ``datasets.Dataset`` with "id" and "text".
        top_ranked : query id to the only documents to rank, which mteb then does itself.

        Raises
        ------
        UsageError : ``index`` was not called, ``top_k`` is below 1, another precision, or a
            document without text.
        MillpondError : as the encoder and the index.
        """
        _check_precision(encode_kwargs)
        if self._place is None:
            raise UsageError("There is no corpus to search. Call index(corpus, ...) first.")
        if top_ranked is not None:
            settings = {"encode_kwargs": encode_kwargs, "num_proc": num_proc}
            wrapper = import_mteb("mteb.models").SearchEncoderWrapper(self)
            wrapper.index(self._corpus, **self._place, **settings)
            ranked: dict[str, dict[str, float]] = wrapper.search(
                queries, top_k=top_k, top_ranked=top_ranked, **self._place, **settings
            )
            return ranked
        # mteb hands over raw rows; this is where its own models get their texts, so that
        # instructions and conversations read the same.
        asks = import_mteb("mteb.types").PromptType.query
        loader = import_mteb("mteb._create_dataloaders").create_dataloader(
            queries, task_metadata=task_metadata, prompt_type=asks, num_proc=num_proc
        )
        texts = _read_texts(loader, False, task_metadata.name)
        asked = (Query(str(key), text) for key, text in zip(queries["id"], texts, strict=True))
        return {
            query.query_id: {hit.doc_id: hit.score for hit in hits}
            for query, hits in self._find(asked, top_k)
        }

    def _find(self, queries: Iterable[Query], top_k: int) -> Iterable[tuple[Query, list[Hit]]]:
        """Return each query with its best documents of the corpus."""
        raise NotImplementedError


class MtebSearch(MtebSearcher):
    """A model for ``mteb.evaluate`` that retrieves through an index of ours.

    The corpus is read as a stream, so that memory does not grow with it beyond what the index
    needs.

    Parameters
    ----------
    backend, factory : see ``indexes.Index.create``. Both are part of ``mteb_model_meta``, so that
        results of one kind of index are not taken for another's.
    folder : where indexes are kept, one for each task, subset and split, written anew each time;
        a temporary folder by default, gone when the next corpus is indexed or the program ends.

    Raises
    ------
    UnknownNameError : no such backend.
    MissingDependencyError : mteb 2 is not installed.
    """

    def __init__(
        self,
        encoder: Encoder,
        backend: str = IndexConfig.backend,
        factory: str = IndexConfig.factory,
        *,
        folder: Path | str | None = None,
        facts: ModelFacts | None = None,
    ) -> None:
        super().__init__(encoder, facts=facts)
        IndexConfig(backend, factory)  # refuses an unknown backend
        self._backend = backend
        self._factory = factory
        self._folder = None if folder is None else Path(folder)
        self._meta = self._meta.model_copy(
            update={"experiment_kwargs": {"backend": backend, "factory": factory}}
        )
        self._retriever: Retriever | None = None
        self._forget: weakref.finalize[Any, Any] | None = None

    def index(self, corpus: Iterable[Mapping[str, Any]], **settings: Any) -> None:
        """Write a corpus into an index; a corpus to be reranked waits until it is searched.

        Raises
        ------
        UsageError : as ``MtebSearcher``, or a document without text.
        MillpondError : as ``indexes.Index.create``.
        """
        super().index(corpus, **settings)
        self._retriever = None
        if "reranking" not in settings["task_metadata"].type.lower():
            self._retriever = self._write()

    def _find(self, queries: Iterable[Query], top_k: int) -> Iterable[tuple[Query, list[Hit]]]:
        self._retriever = self._retriever or self._write()
        return self._retriever.search_many(queries, top_k)

    def _choose_folder(self, *parts: str) -> Path:
        """Return the folder of the next index, after deleting the last one if it was temporary."""
        if self._forget is not None:
            self._forget()
        name = "-".join(re.sub(r"[^A-Za-z0-9.+=_-]+", "_", part) for part in parts)
        if self._folder is not None:
            return self._folder / name
        try:
            scratch = Path(tempfile.mkdtemp(prefix="millpond-mteb-"))
        except OSError as error:
            raise StorageError(
                f"No temporary folder can be made ({error.strerror}). Pass folder=FOLDER."
            ) from error
        self._forget = weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
        return scratch / name

    def _write(self) -> Retriever:
        """Index the waiting corpus and return a retriever over it."""
        assert self._place is not None
        task = self._place["task_metadata"].name
        folder = self._choose_folder(task, self._place["hf_subset"], self._place["hf_split"])
        Index.create(
            folder,
            self.encoder,
            read_documents(self._corpus, task),
            IndexConfig(
                backend=self._backend,
                factory=self._factory,
                arms=["dense"],
                overwrite=True,
                corpus_name=task,
            ),
        )
        return Retriever(self.encoder, Index.open(folder))


def load_for_mteb(
    model: str,
    *,
    backend: str | None = None,
    factory: str = IndexConfig.factory,
    device: str | None = None,
    notify: Notify = silent,
    load: Load = load_model,
) -> MtebEncoder:
    """Return the named model, ready for ``mteb.evaluate``.

    Parameters
    ----------
    model : as ``Embedder.load`` takes it, or "st:..." for a model of sentence-transformers.
    backend, factory : of the index that retrieval goes through; without a backend it is mteb's
        own exact search.
    notify : receives one line for each slow or notable step.
    load : makes a model from its name.

    Raises
    ------
    MissingDependencyError : mteb 2 is not installed.
    UsageError : the name is "bm25", which gives no vectors.
    MillpondError : as ``Embedder.load``.
    """
    import_mteb("mteb")
    if model == BM25_NAME:
        raise UsageError(
            f"{BM25_NAME} gives no vectors; expected a model that embeds texts. mteb has a "
            f"BM25 of its own: mteb.get_model('mteb/baseline-bm25s')."
        )
    if backend is not None:
        IndexConfig(backend, factory)  # refuses an unknown backend before a model is loaded
    loaded = load(model, device, notify)
    facts = find_facts(model, loaded)
    if backend is None:
        return MtebEncoder(loaded.encoder, facts=facts)
    return MtebSearch(loaded.encoder, backend, factory, facts=facts)


def _check_precision(settings: Mapping[str, Any]) -> None:
    precision = settings.get("precision") or "float32"
    if precision != "float32":
        raise UsageError(
            f"precision is {precision!r}; expected 'float32'. Leave it out of encode_kwargs."
        )


def _read_texts(inputs: Iterable[Mapping[str, Any]], is_document: bool, task: str) -> Iterator[str]:
    """Yield the texts of mteb's batches, title and body of documents joined as ours."""
    for batch in inputs:
        if "text" not in batch:
            raise UsageError(
                f"{task} gives {', '.join(batch) or 'nothing'} and no text; expected a text task."
            )
        if is_document and "body" in batch:
            titles = batch.get("title") or [""] * len(batch["body"])
            for title, body in zip(titles, batch["body"], strict=True):
                yield Document("", body, title).content
        else:
            yield from batch["text"]


def read_documents(corpus: Iterable[Mapping[str, Any]], task: str) -> Iterator[Document]:
    """Yield the documents of mteb's rows."""
    for row in corpus:
        text = row.get("text")
        if not isinstance(text, str):
            raise UsageError(
                f"{task}: document {row.get('id')!r} has {type(text).__name__} as its text; "
                f"expected a string."
            )
        yield Document(str(row["id"]), text, row.get("title") or "")
