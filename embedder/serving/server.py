"""The state of one server, and how a request gets its vectors and its hits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import Annotated, TypeAlias, TypeVar, cast, get_args

from fastapi import Depends, Request

from embedder.engine.text import Side, check_texts
from embedder.models.sentence_transformers import Reranker
from embedder.serving.batching import Batcher, EncoderThread, QueuedEncoder, QueueFullError
from embedder.serving.errors import ApiError, ClientGoneError
from embedder.serving.metrics import Metrics, log_event
from embedder.serving.running import IndexWatch
from embedder.serving.served import (
    Edit,
    Ranked,
    Role,
    Row,
    ServedIndex,
    ServedModel,
    Tokens,
    make_pairs,
    serve_reranker,
)
from embedder.serving.settings import ServerSettings
from retrieval.errors import (
    FailureError,
    FingerprintError,
    IndexCorruptError,
    MillpondError,
    SourceNotFoundError,
    UsageError,
)
from retrieval.filters import Expression
from retrieval.protocols import VectorIndex, Vectors
from retrieval.types import Blend, Hit

T = TypeVar("T")
Served = TypeVar("Served", ServedModel, ServedIndex)

Join: TypeAlias = Callable[[Sequence[tuple[str, VectorIndex]]], VectorIndex]
"""Makes one index of several that are named."""

ROLES: tuple[Role, ...] = get_args(Role)
JOINED = "\n"
"""Stands between the names of indexes that are searched as one; no name holds it."""
_UNAVAILABLE = (FailureError, FingerprintError, SourceNotFoundError)
TOKEN_NUMBERS = 2_000_000
"""In one answer with the vectors of tokens: some 40 MB of JSON."""
_SHORT_CHARACTERS = 2000
"""Texts of so many characters together are tokenised in 2 ms, no more than a thread costs."""


@dataclass(frozen=True)
class Embedded:
    """Vectors float32 (N, D), the tokens that the model read for them, and how many it cut."""

    vectors: Vectors
    tokens: int
    truncated: int = 0


@dataclass(frozen=True)
class IndexQuery:
    """What an index is asked for: a vector (1, D), the text that it was made from, or both."""

    vector: Vectors | None
    text: str | None
    blend: Blend


class Server:
    """Models, indexes, the queue in front of them, and the limits.

    Parameters
    ----------
    models : the first is the default one.
    indexes : the first is the default one; each one's model is among ``models``.
    version : of millpond, for ``/info``.
    thread : where the models were loaded, and will run; a new one by default.
    join : makes one index of several, for searches that name more than one; those are refused
        without it.
    reranker : orders documents for ``rank``, which is refused without it.

    Raises
    ------
    UsageError : there is no model, or two of them, or two indexes, have one name.
    """

    def __init__(
        self,
        models: Sequence[ServedModel],
        indexes: Sequence[ServedIndex],
        settings: ServerSettings,
        version: str = "",
        thread: EncoderThread | None = None,
        join: Join | None = None,
        reranker: Reranker | None = None,
    ) -> None:
        self._join = join
        self.models = _by_name("model", models)
        self.indexes = _by_name("index", indexes)
        self.model_names: dict[str, tuple[ServedModel, Role | None]] = {
            name: (model, None) for name, model in self.models.items()
        }
        """What clients can type: NAME, NAME:query and NAME:document of each model.

        Clients of OpenAI's format have no other place for the role of a text.
        """
        for name, model in self.models.items():
            for role in ROLES:
                self.model_names.setdefault(f"{name}:{role}", (model, role))
        if not models:
            raise UsageError("A server needs a model; none arrived.")
        self.settings = settings
        self.version = version
        self.started = int(time.time())
        self.metrics = Metrics()
        self._thread = thread or EncoderThread()
        self.batcher = Batcher(
            settings.batch_tokens, settings.queue_tokens, self.metrics.add_batch, self._thread
        )
        self.metrics.watch(self.batcher)
        self._reranker = None if reranker is None else (reranker, serve_reranker(reranker))
        self._requests = 0
        self.tokenizing_thread = ThreadPoolExecutor(1, "millpond-tokens")
        self.json_thread = ThreadPoolExecutor(1, "millpond-json")
        # One search an index at a time: not every backend may be searched by two at once.
        self._searching = {name: ThreadPoolExecutor(1, "millpond-search") for name in self.indexes}
        self._changing = ThreadPoolExecutor(1, "millpond-change")
        self._locks = {name: Lock() for name in self.indexes}
        self.watch = IndexWatch(self.indexes, self.metrics)

    def warm_up(self) -> None:
        """Encode one text with each model and search each index once, so that no client waits.

        Raises
        ------
        MillpondError : a model or an index does not work.
        """
        self._thread.call(self._try_all)

    def _try_all(self) -> None:
        vectors = {
            name: model.encoder.encode_tokens(model.tokenize(["millpond"], "query").rows)
            for name, model in self.models.items()
        }
        for index in self.indexes.values():
            index.search(vectors[index.model.name], 1, None)

    def start(self) -> None:
        """Begin to take work."""
        self.batcher.start()
        self.watch.start()

    def stop(self) -> None:
        """Finish what was accepted, and end the threads."""
        self._changing.shutdown()
        self.batcher.stop()
        self.watch.stop()
        for threads in (self.tokenizing_thread, self.json_thread, *self._searching.values()):
            threads.shutdown()

    @property
    def default_model(self) -> ServedModel:
        """The model where a request names none."""
        return next(iter(self.models.values()))

    def find_model(self, name: str | None) -> tuple[ServedModel, Role | None]:
        """Return what a name of ``model_names`` means, the default for None, or raise a 404.

        The role is None where the name says none.
        """
        return _find("model", self.model_names, name)

    def find_index(self, name: str | None) -> ServedIndex:
        """Return the index of this name, the default one for None, or raise a 404."""
        if not self.indexes:
            message = "No index is served here. Start the server as: millpond serve DIR"
            raise ApiError(404, message, "index_not_found", "index")
        return _find("index", self.indexes, name)

    def find_indexes(self, names: Sequence[str]) -> ServedIndex:
        """Return several indexes as one, or raise a 400 or 404."""
        found = [self.find_index(name) for name in dict.fromkeys(names)]
        if len(found) == 1:
            return found[0]
        first, *others = found
        for other in others:
            if other.model is not first.model:
                raise ApiError(
                    400,
                    f"{first.name} was made with {first.model.name}, {other.name} with "
                    f"{other.model.name}: their scores cannot be compared. Search one at a time.",
                    None,
                    "index",
                )
        if self._join is None:
            raise ApiError(400, "This server searches one index at a time.", None, "index")
        joined = self._join([(one.name, one.index) for one in found])
        return replace(
            first,
            name=JOINED.join(one.name for one in found),
            index=joined,
            version=JOINED.join(one.version for one in found),
        )

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count a request while it is worked on, or raise QueueFullError."""
        if self._requests >= self.settings.queue_requests:
            raise QueueFullError(self.batcher.retry_seconds())
        self._requests += 1
        try:
            yield
        finally:
            self._requests -= 1

    async def embed(
        self,
        request: Request,
        model: ServedModel,
        texts: Sequence[str],
        role: Role,
        *,
        truncate: bool = False,
        side: Side = "right",
        param: str = "input",
    ) -> Embedded:
        """Return the vectors of texts, when the queue has come to them.

        Parameters
        ----------
        truncate, side : whether over-long texts are cut, and where.
        param : what messages call the texts.

        Raises
        ------
        ApiError : a text is no text, or too long and not to be truncated.
        QueueFullError : too much is waiting.
        ClientGoneError : nobody waits for the answer any more.
        """
        tokens = await self._tokenize(model, texts, role, side, truncate, param)
        return Embedded(*await self._compute(request, model, tokens), sum(tokens.truncated))

    async def embed_tokens(
        self,
        request: Request,
        model: ServedModel,
        texts: Sequence[str],
        role: Role,
        *,
        truncate: bool,
        side: Side,
    ) -> list[Vectors]:
        """Return the vectors of every token of each text, float32 (T, W); raises as ``embed``.

        Refused (424) where the model does not show them, and (413) where they are too many.
        """
        if model.states is None:
            message = f"{model.name} does not show the vectors of its tokens."
            raise ApiError(424, message, None, "inputs")
        tokens = await self._tokenize(model, texts, role, side, truncate, "inputs")
        most = TOKEN_NUMBERS // model.width
        if (count := sum(map(len, tokens.rows))) > most:
            message = f"inputs has {count:,} tokens; expected {most:,} at most. Send fewer texts."
            raise ApiError(413, message, "too_many_tokens", "inputs")
        rows = [Row(ids, len(ids)) for ids in tokens.rows]
        await self._compute(request, model.states, Tokens(rows, tokens.truncated))
        return [row.states for row in rows if row.states is not None]

    async def search(
        self,
        request: Request,
        index: ServedIndex,
        query: IndexQuery,
        k: int,
        where: Expression | None,
    ) -> list[Hit]:
        """Return the hits of one query, best first.

        Raises
        ------
        ApiError : the index cannot be searched now (503).
        UsageError : the filter does not fit the index.
        ClientGoneError : nobody waits for the answer any more.
        """
        started = time.monotonic()
        names = index.name.split(JOINED)

        def try_one(index: ServedIndex) -> list[list[Hit]]:
            with ExitStack() as held:
                for name in sorted(names):  # in one order, so that no two wait for each other
                    held.enter_context(self._locks[name])
                queries = [query.text] if query.vector is None else query.vector
                texts = None if query.text is None else [query.text]
                return index.search(cast("list[str]", queries), k, where, texts, query.blend)

        def work() -> list[list[Hit]]:
            try:
                return try_one(index)
            except _UNAVAILABLE:  # perhaps because another process has replaced what it reads
                for name in names:
                    self.watch.look(name)
                newer = self.find_indexes(names)
                if newer.version == index.version:
                    raise
                return try_one(newer)

        try:
            found = await _until_gone(request, in_thread(self._searching[names[0]], work))
        except _UNAVAILABLE as error:
            raise _unavailable("search", "searched", ", ".join(names), error) from None
        for name in names:
            self.metrics.add_search(name, time.monotonic() - started)
        return found[0]

    async def change(
        self, name: str, work: Callable[[Edit], Mapping[str, int]]
    ) -> Mapping[str, int]:
        """Return what ``work`` did to an index, which is served as it is then.

        Changes wait for each other, and are finished even where the client has gone.

        Raises
        ------
        ApiError : clients may not change it (403), it cannot be done as asked (400), or not now
            (503), as where another process changes the index.
        """
        index = self.find_index(name)
        if index.edit is None:
            message = "This server changes no index. Start it with --accept-documents."
            raise ApiError(403, message, "documents_not_accepted", None)
        edit = index.edit(QueuedEncoder(index.model, self.batcher))

        def run() -> Mapping[str, int]:
            done = work(edit)
            self.watch.look(name)
            return done

        try:
            return await in_thread(self._changing, run)
        except _UNAVAILABLE as error:
            also = ", or another process changes it"
            raise _unavailable("change", "changed", name, error, also) from None
        except MillpondError as error:
            raise ApiError(400, str(error), "invalid_change", None) from None

    async def rank(
        self,
        request: Request,
        query: str,
        texts: Sequence[str],
        *,
        model: str | None = None,
        truncate: bool = False,
        param: str = "texts",
        raw: bool = False,
    ) -> Ranked:
        """Return how well each text answers a query, when the queue has come to them.

        Parameters
        ----------
        model : the name of the reranker, if the request has one.
        truncate : whether the ends of over-long texts may stay unread.
        param : what messages call the texts.

        Raises
        ------
        ApiError : no reranker is served, or not this one; a text is no text, or too long and not
            to be truncated.
        QueueFullError : too much is waiting.
        ClientGoneError : nobody waits for the answer any more.
        """
        if self._reranker is None:
            message = "No reranker is served here. Start the server with --rerank MODEL."
            raise ApiError(404, message, "model_not_found", "model")
        reranker, served = self._reranker
        if model not in (None, reranker.name):
            message = f"The reranker {model!r} is not served here. Served: {reranker.name}."
            raise ApiError(404, message, "model_not_found", "model")
        self.check_texts([query], "query")
        self.check_texts(texts, param)
        pairs = await in_thread(self.tokenizing_thread, lambda: make_pairs(reranker, query, texts))
        _check_lengths(pairs, served, truncate, param)
        vectors, tokens = await self._compute(request, served, pairs)
        outputs = vectors[:, 0]
        scores = outputs if raw else reranker.activate(outputs)
        return Ranked(reranker.name, scores, outputs, tokens, sum(pairs.truncated))

    async def _compute(
        self, request: Request, model: ServedModel, tokens: Tokens
    ) -> tuple[Vectors, int]:
        """Return what a model makes of rows, and how many tokens they have."""
        read = sum(map(len, tokens.rows))
        add_facts(request, texts=len(tokens.rows), tokens=read)
        job = self.batcher.submit(model, tokens.rows)
        try:
            vectors = await _until_gone(request, asyncio.wrap_future(job.result))
        except BaseException:
            self.batcher.cancel(job)
            raise
        return vectors, read

    async def _tokenize(
        self,
        model: ServedModel,
        texts: Sequence[str],
        role: Role,
        side: Side,
        truncate: bool,
        param: str,
    ) -> Tokens:
        self.check_texts(texts, param)
        tokenize = model.tokenize if side == "right" else model.tokenize_left
        if tokenize is None:
            message = f"{model.name} cuts texts at the end (right) alone."
            raise ApiError(400, message, None, "truncation_direction")
        if sum(map(len, texts)) <= _SHORT_CHARACTERS:
            tokens = tokenize(texts, role)
        else:
            tokens = await in_thread(self.tokenizing_thread, lambda: tokenize(texts, role))
        _check_lengths(tokens, model, truncate, param)
        return tokens

    def check_count(self, count: int, param: str) -> None:
        """Raise a 400 for more texts than a request may hold."""
        most = self.settings.request_texts
        if count > most:
            message = f"{param} holds {count} texts; expected {most} at most. Send them in parts."
            raise ApiError(400, message, "too_many_texts", param)

    def check_texts(self, texts: Sequence[str], param: str) -> None:
        """Raise a 400 for too many texts, or for one that is no text."""
        self.check_count(len(texts), param)
        try:
            check_texts(texts)
        except UsageError as error:
            raise ApiError(400, f"{param}: {error}", "invalid_text", param) from None


def add_facts(request: Request, **facts: str | int | float) -> None:
    """Add to what the log says about a request."""
    request.scope.setdefault("millpond.facts", {}).update(facts)


async def _get_server(request: Request) -> Server:
    return cast(Server, request.app.state.server)


ServerDep = Annotated[Server, Depends(_get_server)]


def _by_name(kind: str, served: Sequence[Served]) -> dict[str, Served]:
    names = [one.name for one in served]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(
            f"Two {kind} entries are called {twice[0]!r}. Give one of them another name, as in "
            f"NAME=DIR."
        )
    return dict(zip(names, served, strict=True))


def _find(kind: str, served: Mapping[str, T], name: str | None) -> T:
    """Return what has this name, the first for None, or raise a 404."""
    if name is None:
        return next(iter(served.values()))
    if name not in served:
        message = f"The {kind} {name!r} is not served here. Served: {', '.join(served)}."
        raise ApiError(404, message, f"{kind}_not_found", kind)
    return served[name]


def _unavailable(
    event: str, done: str, name: str, error: MillpondError, also: str = ""
) -> ApiError:
    """Log why an index fails, and return a 503 that names no place on this machine."""
    log_event(f"{event}_failed", index=name, error=str(error))
    reason = "what stores it does not answer, or cannot be read"
    if isinstance(error, IndexCorruptError):
        reason = "it is damaged"
    elif isinstance(error, SourceNotFoundError):
        reason = "its folder is gone"
    elif isinstance(error, FingerprintError):
        reason = "another model has made it anew"
    message = f"{name} cannot be {done} now: {reason}{also}. The server's log says more."
    return ApiError(503, message, "index_unavailable", "index")


def _check_lengths(tokens: Tokens, model: ServedModel, truncate: bool, param: str) -> None:
    number = next((i for i, is_cut in enumerate(tokens.truncated) if is_cut), None)
    if number is not None and not truncate:
        raise ApiError(
            413,
            f"{param}: text {number} has more than the {model.max_tokens} tokens that "
            f'{model.name} reads. Shorten it, or send "truncate": true to lose its end.',
            "context_length_exceeded",
            param,
        )


async def in_thread(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """Return what ``work`` gives in one of the threads."""
    return await asyncio.get_running_loop().run_in_executor(threads, work)


async def _until_gone(request: Request, work: Awaitable[T]) -> T:
    """Return what ``work`` gives, or raise ClientGoneError once the client has gone."""
    working = asyncio.ensure_future(work)
    watching = asyncio.create_task(_wait_for_leaving(request))
    watching.add_done_callback(lambda _: working.cancel())
    try:
        return await working
    except asyncio.CancelledError:
        if watching.done() and not watching.cancelled():
            raise ClientGoneError from None
        raise
    finally:
        watching.cancel()
        working.cancel()


async def _wait_for_leaving(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
