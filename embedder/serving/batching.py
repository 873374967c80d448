"""Continuous batching: texts of many requests, encoded together by one thread."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

from embedder.serving.served import ServedModel
from retrieval.errors import FailureError, ModelError
from retrieval.protocols import Vectors
from retrieval.types import Fingerprint

T = TypeVar("T")

_LOG = logging.getLogger("millpond.serve")
_LONGEST_RETRY_SECONDS = 60
_RATE_MEMORY = 0.8
"""The weight of the last rate in the next one: about five batches are remembered."""


_TOGETHER = 32
"""So few texts wait together, so that a query is not behind a thousand documents."""


class EncoderThread:
    """A thread in which models are loaded, tried and run, and nothing else.

    Each thread that computes with torch on a CPU gets helpers of its own, as many as there are
    cores. With more of them than cores, OpenMP lets them sleep after every step, where they would
    have waited for the next one: on 2 cores a model that was loaded in one thread and ran in
    another took a quarter longer.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="millpond-encoder", daemon=True)
        self._thread.start()

    def call(self, work: Callable[[], T]) -> T:
        """Return what ``work`` gives in this thread, or raise what it raises."""
        return self.post(work).result()

    def post(self, work: Callable[[], T]) -> Future[T]:
        """Do ``work`` in this thread when all that was given to it before is done."""
        future: Future[T] = Future()
        self._calls.put((work, future))
        return future

    def _work(self) -> None:
        while True:
            work, future = self._calls.get()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except BaseException as error:  # reaches whoever asked
                future.set_exception(error)
            del work, future  # neither a model nor an error is kept while the thread waits


class QueueFullError(Exception):
    """The queue has no room; carries when to come back."""

    def __init__(self, retry_seconds: int) -> None:
        self.retry_seconds = retry_seconds
        super().__init__(f"The queue is full; try again in {retry_seconds} s.")


@dataclass(frozen=True)
class BatchReport:
    """The size of a batch, and how long it took.

    Attributes
    ----------
    waited_seconds : from arrival to the start of the batch, of each request that begins in it.
    failed : whether the encoder raised.
    """

    texts: int
    tokens: int
    seconds: float
    waited_seconds: tuple[float, ...]
    failed: bool


@dataclass(eq=False)
class Job:
    """The texts of one request.

    Attributes
    ----------
    rows : token ids of each text.
    result : becomes float32 (N, D).
    taken : how many texts have reached the encoder.
    """

    model: ServedModel
    rows: Sequence[Sequence[int]]
    result: Future[Vectors] = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)
    taken: int = 0
    vectors: Vectors | None = None

    @property
    def waiting_tokens(self) -> int:
        """How many tokens have not reached the encoder."""
        return sum(map(len, self.rows[self.taken :]))


@dataclass(frozen=True)
class _Part:
    """Texts ``start`` to ``stop`` of a job, on their way through the encoder."""

    job: Job
    start: int
    stop: int

    @property
    def rows(self) -> Sequence[Sequence[int]]:
        """Token ids of each text."""
        return self.job.rows[self.start : self.stop]

    @property
    def tokens(self) -> int:
        """How many tokens the texts have together."""
        return sum(map(len, self.rows))


class Batcher:
    """Encodes what is submitted, the longest waiting first.

    A batch is taken as soon as the thread is free: the texts that have waited longest and belong
    to one model, up to ``batch_tokens``. Nothing waits for company. A request may be spread over
    several batches, and a batch over many requests. Where the encoder raises on a batch of
    several requests, each is encoded alone, so that only the request that cannot be encoded fails.

    Parameters
    ----------
    batch_tokens : most tokens in a batch; a longer text goes alone.
    queue_tokens : most tokens that wait; one request may be longer where nothing else waits.
    report : called by the thread after each batch.
    thread : where texts are encoded, the one that loaded the models; one of its own by default.
    """

    def __init__(
        self,
        batch_tokens: int,
        queue_tokens: int,
        report: Callable[[BatchReport], None] = lambda _: None,
        thread: EncoderThread | None = None,
    ) -> None:
        self._batch_tokens = batch_tokens
        self._queue_tokens = queue_tokens
        self._report = report
        self._queue: deque[Job] = deque()
        self._waiting_tokens = 0
        self._waiting_texts = 0
        self._tokens_per_second = 0.0
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = thread or EncoderThread()
        self._working: Future[None] | None = None

    @property
    def alive(self) -> bool:
        """Whether the thread runs and takes new work."""
        working = self._working is not None and not self._working.done()
        return working and not self._stopping

    @property
    def waiting_tokens(self) -> int:
        """How many tokens wait for the encoder."""
        return self._waiting_tokens

    @property
    def waiting_texts(self) -> int:
        """How many texts wait for the encoder."""
        return self._waiting_texts

    def start(self) -> None:
        """Begin to encode."""
        self._working = self._thread.post(self._work)

    def stop(self) -> None:
        """Encode everything that was accepted, then end; returns when that is done."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._working is not None:
            wait([self._working])

    def submit(self, model: ServedModel, rows: Sequence[Sequence[int]]) -> Job:
        """Return a job whose ``result`` will be the vectors, or the error that prevented them.

        Raises
        ------
        QueueFullError : too much is waiting, or the batcher is stopping.
        """
        job = Job(model, rows)
        job.result.set_running_or_notify_cancel()  # ends by this class alone, see ``cancel``
        if not rows:
            job.result.set_result(np.empty((0, model.encoder.dimension), dtype=np.float32))
            return job
        needed = job.waiting_tokens
        with self._changed:
            full = self._waiting_tokens and self._waiting_tokens + needed > self._queue_tokens
            if full or self._stopping:
                raise QueueFullError(self.retry_seconds())
            self._queue.append(job)
            self._waiting_tokens += needed
            self._waiting_texts += len(rows)
            self._changed.notify()
        return job

    def cancel(self, job: Job) -> None:
        """Drop what the encoder has not begun of a job whose result nobody waits for."""
        with self._changed:
            self._drop(job)

    def retry_seconds(self) -> int:
        """Return the whole seconds until the queue should be empty, 1 to 60."""
        if not self._tokens_per_second:
            return 1
        expected = math.ceil(self._waiting_tokens / self._tokens_per_second)
        return min(max(1, expected), _LONGEST_RETRY_SECONDS)

    def _drop(self, job: Job) -> None:
        if job in self._queue:
            self._queue.remove(job)
            self._waiting_tokens -= job.waiting_tokens
            self._waiting_texts -= len(job.rows) - job.taken

    def _work(self) -> None:
        while parts := self._take():
            started = time.monotonic()
            failed = self._encode(parts)
            seconds = time.monotonic() - started
            tokens = sum(part.tokens for part in parts)
            self._remember(tokens, seconds)
            waited = tuple(started - part.job.arrived for part in parts if part.start == 0)
            texts = sum(part.stop - part.start for part in parts)
            try:
                self._report(BatchReport(texts, tokens, seconds, waited, failed))
            except Exception:
                _LOG.exception("A batch could not be reported.")

    def _take(self) -> list[_Part]:
        """Wait for work and return the next batch; nothing when all is done and no more comes."""
        with self._changed:
            while not self._queue and not self._stopping:
                self._changed.wait()
            if not self._queue:
                return []
            parts = self._choose()
            for part in parts:
                self._waiting_tokens -= part.tokens
                self._waiting_texts -= part.stop - part.start
                part.job.taken = part.stop
                if part.stop == len(part.job.rows):
                    self._queue.remove(part.job)
            return parts

    def _choose(self) -> list[_Part]:
        """Return the longest-waiting texts of one model, up to the token budget."""
        model = self._queue[0].model
        left = self._batch_tokens
        parts: list[_Part] = []
        for job in self._queue:
            if job.model is not model:
                continue
            stop = job.taken
            while stop < len(job.rows):
                is_first = job is self._queue[0] and stop == job.taken
                if len(job.rows[stop]) > left and not is_first:
                    break
                left -= len(job.rows[stop])
                stop += 1
            if stop > job.taken:
                parts.append(_Part(job, job.taken, stop))
            if stop < len(job.rows):
                break
        return parts

    def _encode(self, parts: Sequence[_Part]) -> bool:
        """Encode a batch and end the jobs that are complete; return whether anything raised."""
        try:
            self._compute(parts)
        except BaseException as error:  # whatever it is, no client may wait for ever
            if len(parts) == 1:
                self._fail(parts[0].job, error)
            else:
                for part in parts:
                    self._encode([part])
            return True
        for part in parts:
            job = part.job
            if part.stop == len(job.rows) and job.vectors is not None:
                job.result.set_result(job.vectors)
        return False

    def _compute(self, parts: Sequence[_Part]) -> None:
        """Put the vectors of a batch into its jobs."""
        model = parts[0].job.model
        rows = [row for part in parts for row in part.rows]
        found = model.encoder.encode_tokens(rows)
        if found.shape != (len(rows), model.encoder.dimension):
            raise ModelError(f"{model.name} gave vectors of shape {found.shape} for {len(rows)}.")
        start = 0
        for part in parts:
            job, stop = part.job, start + part.stop - part.start
            if job.vectors is None:
                job.vectors = np.empty((len(job.rows), model.encoder.dimension), dtype=np.float32)
            job.vectors[part.start : part.stop] = found[start:stop]
            start = stop

    def _fail(self, job: Job, error: BaseException) -> None:
        with self._changed:
            self._drop(job)
        job.result.set_exception(error)

    def _remember(self, tokens: int, seconds: float) -> None:
        rate = tokens / max(seconds, 1e-6)
        old = self._tokens_per_second
        self._tokens_per_second = _RATE_MEMORY * old + (1 - _RATE_MEMORY) * rate if old else rate


class QueuedEncoder:
    """An ``Encoder`` whose texts wait in the server's queue like those of any client."""

    def __init__(self, model: ServedModel, batcher: Batcher) -> None:
        self._model, self._batcher = model, batcher
        self.dimension = model.encoder.dimension
        self.fingerprint: Fingerprint = model.encoder.fingerprint

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), with the document prompt; over-long texts are cut at the end."""
        parts = [
            self._encode(texts[start : start + _TOGETHER])
            for start in range(0, len(texts), _TOGETHER)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, self.dimension), np.float32)

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Refuse: a change asks nothing."""
        raise NotImplementedError

    def _encode(self, texts: Sequence[str]) -> Vectors:
        rows = self._model.tokenize(texts, "document").rows
        while True:
            try:
                return self._batcher.submit(self._model, rows).result.result()
            except QueueFullError as error:
                if not self._batcher.alive:
                    raise FailureError("The server stops; the index is as it was.") from None
                time.sleep(error.retry_seconds)
