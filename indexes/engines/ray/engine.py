"""An engine that embeds chunks on the workers of a Ray cluster, in bounded memory and in order.

The workers are actors of Ray's core, not of Ray Data: one process must see every document anyway,
to write the shards, and so it owns all that a retry needs. Bare actors also start sooner.
"""

from __future__ import annotations

import socket
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from indexes.engines.ray.session import RayConfig, load_ray, ray_session, say
from indexes.writing import Engine
from retrieval import Document, Encoder, Fingerprint, Vectors
from retrieval.errors import FailureError, FingerprintError, ModelError, UsageError

EncoderFactory = Callable[[], Encoder]
"""Makes the encoder in the worker; picklable, such as ``partial(Embedder.load, "NAME")``."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a worker gives no vectors; an answer, not an exception, so nothing of it is lost.

    Attributes
    ----------
    kind : the encoder is another one, cannot be built, or cannot encode a text.
    reason : a clause without a full stop.
    host : the worker's machine.
    trace : where it happened, for who reads a traceback.
    row : the text that cannot be encoded, if it is one alone.
    """

    kind: Literal["fingerprint", "factory", "text"]
    reason: str
    host: str
    trace: str = ""
    row: int | None = None


class Worker:
    """Encodes chunks; Ray makes one in each worker process, and again after a death.

    Parameters
    ----------
    factory : makes the encoder.
    expected : the driver's fingerprint; with any other, every request is refused.
    """

    def __init__(self, factory: EncoderFactory, expected: Fingerprint) -> None:
        self._encoder: Encoder | None = None
        self._refusal: Refusal | None = None
        try:
            encoder = factory()
            found = encoder.fingerprint
        except Exception as error:
            self._refusal = _refuse("factory", error)
            return
        if found.digest == expected.digest:
            self._encoder = encoder
        else:
            changed = "; ".join(expected.differences(found)) or "a setting is missing on one side"
            self._refusal = Refusal("fingerprint", changed, socket.gethostname())

    def introduce(self) -> Refusal | None:
        """Return None if the encoder is loaded and is the driver's, else the reason why not."""
        return self._refusal

    def encode(self, texts: Sequence[str]) -> Vectors | Refusal:
        """Return float32 (N, D), as the encoder returns it, or the reason why it cannot."""
        if self._encoder is None:
            assert self._refusal is not None
            return self._refusal
        try:
            return self._encoder.encode_documents(texts)
        except Exception as error:
            return self._blame(self._encoder, texts, error)

    def _blame(self, encoder: Encoder, texts: Sequence[str], error: Exception) -> Refusal:
        """Halve the texts until one is left that fails alone; no row if none does."""
        start, stop = 0, len(texts)
        while stop - start > 1:
            middle = (start + stop) // 2
            for half in ((start, middle), (middle, stop)):
                try:
                    encoder.encode_documents(texts[slice(*half)])
                except Exception as narrower:
                    error, (start, stop) = narrower, half
                    break
            else:
                return _refuse("text", error)
        return _refuse("text", error, start)


def _refuse(kind: Literal["factory", "text"], error: Exception, row: int | None = None) -> Refusal:
    detail = f": {error}" if str(error) else ""
    reason = f"{type(error).__name__}{detail}".rstrip(".")
    trace = "".join(traceback.format_exception(error))
    return Refusal(kind, reason, socket.gethostname(), trace, row)


def ray_engine(factory: EncoderFactory, config: RayConfig | None = None) -> Engine:
    """Return an engine for ``Index.create`` that embeds in the workers of a Ray cluster.

    Every worker builds its own encoder; before the first chunk is handed out, all of them must
    have the driver's fingerprint, and a worker that is started again must have it too. Chunks come
    back in order, each exactly once, whatever worker had them and however often it died. The
    vectors are those of ``encode_in_turn``, byte for byte, where the worker's encoder gives the
    same bytes as the driver's: a model does on the same kind of processor with as many threads
    and the same libraries, and otherwise to rounding.

    Parameters
    ----------
    factory : makes the encoder, in the worker; picklable, and importable there.
    config : the defaults of ``RayConfig`` where None.

    Raises
    ------
    MissingDependencyError : ray is not installed.

    While it runs, the engine raises

    FingerprintError : a worker's encoder is not the driver's.
    ModelError : a worker cannot build its encoder, or cannot encode a text; names the document.
    UsageError : this machine has not the CPUs or GPUs for so many workers.
    FailureError : no cluster answers, workers do not start, or one died too often.
    """
    load_ray()
    chosen = config or RayConfig()

    def engine(
        encoder: Encoder, chunks: Iterator[list[Document]]
    ) -> Iterator[tuple[Sequence[Document], Vectors]]:
        with ray_session(chosen) as ray, _pool(ray, factory, chosen, encoder.fingerprint) as pool:
            yield from _run(pool, chunks)

    return engine


@dataclass(frozen=True, slots=True)
class _Job:
    """A chunk that was handed to a worker; ``ref`` is Ray's promise of its vectors."""

    chunk: list[Document]
    ref: Any
    worker: int


def _run(
    pool: _Pool, chunks: Iterator[list[Document]]
) -> Iterator[tuple[Sequence[Document], Vectors]]:
    """Keep the workers busy; read a chunk only when fewer than ``pool.window`` are unwritten."""
    jobs: deque[_Job] = deque()
    for chunk in chunks:
        while jobs and (len(jobs) >= pool.window or pool.is_done(jobs[0])):
            yield pool.collect(jobs.popleft())
        jobs.append(pool.submit(chunk, jobs))
    while jobs:
        yield pool.collect(jobs.popleft())


@contextmanager
def _pool(
    ray: Any, factory: EncoderFactory, config: RayConfig, expected: Fingerprint
) -> Iterator[_Pool]:
    """Yield the workers, ready to encode; end their processes afterwards."""
    pool = _Pool(ray, factory, config, expected)
    try:
        pool.wait_until_ready()
        yield pool
    finally:
        pool.close()


class _Pool:
    """The workers and the chunks that they were handed.

    Attributes
    ----------
    window : how many chunks may be handed out and not yet collected.
    """

    def __init__(
        self, ray: Any, factory: EncoderFactory, config: RayConfig, expected: Fingerprint
    ) -> None:
        resources = ray.cluster_resources()
        count, gpus = config.count_workers(resources)
        if config.address is None:
            _check_room(count, config.cpus_per_worker, gpus, resources)
        self._ray, self._config, self._model = ray, config, expected.model
        self._asks = f"{config.cpus_per_worker:g} CPUs and {gpus:g} GPUs"
        self.window = count * config.chunks_in_flight
        actor = ray.remote(
            num_cpus=config.cpus_per_worker,
            num_gpus=gpus,
            max_restarts=config.restarts,
            max_task_retries=config.retries,
        )(Worker)
        self._workers = [actor.remote(factory, expected) for _ in range(count)]

    def wait_until_ready(self) -> None:
        """Return once every worker has the driver's encoder."""
        waiting = [worker.introduce.remote() for worker in self._workers]
        done, late = self._ray.wait(
            waiting, num_returns=len(waiting), timeout=self._config.start_seconds
        )
        for ref in done:
            refusal = self._get(ref, "A worker did not start")
            if isinstance(refusal, Refusal):
                self._raise(refusal, [])
        if late:
            there = self._ray.cluster_resources()
            raise FailureError(
                f"{len(late)} of {len(waiting)} workers were not ready after "
                f"{self._config.start_seconds:g} seconds. The cluster has {there.get('CPU', 0):g} "
                f"CPUs and {there.get('GPU', 0):g} GPUs; each worker asks for {self._asks}. Ask "
                f"for fewer workers, or raise start_seconds if the model loads that slowly."
            )

    def submit(self, chunk: list[Document], jobs: Sequence[_Job]) -> _Job:
        """Hand a chunk to the worker that has the fewest before it."""
        loads = Counter(dict.fromkeys(range(len(self._workers)), 0))
        loads.update(job.worker for job in jobs if not self.is_done(job))
        worker = min(loads, key=lambda number: (loads[number], number))
        texts = [document.content for document in chunk]
        return _Job(chunk, self._workers[worker].encode.remote(texts), worker)

    def is_done(self, job: _Job) -> bool:
        """Whether ``collect`` would return, or raise, at once."""
        return bool(self._ray.wait([job.ref], timeout=0)[0])

    def collect(self, job: _Job) -> tuple[list[Document], Vectors]:
        """Wait for a chunk's vectors."""
        answer = self._get(job.ref, f"{_name(job.chunk)} cannot be embedded")
        if isinstance(answer, Refusal):
            self._raise(answer, job.chunk)
        return job.chunk, answer

    def close(self) -> None:
        """End the workers' processes."""
        for worker in self._workers:
            self._ray.kill(worker)

    def _get(self, ref: Any, what: str) -> Any:
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            raise FailureError(
                f"{what}: {say(error)}. A chunk is tried {self._config.retries + 1} times. Has "
                f"every node enough memory, and the same millpond? What is embedded is kept: run "
                f"the same again to go on."
            ) from error

    def _raise(self, refusal: Refusal, chunk: list[Document]) -> NoReturn:
        if refusal.kind == "fingerprint":
            raise FingerprintError(
                f"The worker on {refusal.host} has another model than {self._model!r} here: "
                f"{refusal.reason}. Vectors of both must not meet in one index. Put the same "
                f"model and the same millpond on every node."
            )
        if refusal.kind == "factory":
            what = f"The worker on {refusal.host} cannot load {self._model!r}"
        else:
            named = chunk if refusal.row is None else [chunk[refusal.row]]
            what = f"{_name(named)} cannot be embedded (worker on {refusal.host})"
        error = ModelError(f"{what}: {refusal.reason}.")
        error.add_note(f"In the worker:\n{refusal.trace}")
        raise error


def _name(chunk: Sequence[Document]) -> str:
    """Return how messages name these documents."""
    first, last = chunk[0].doc_id, chunk[-1].doc_id
    if len(chunk) == 1:
        return f"Document {first!r}"
    return f"One of the {len(chunk)} documents from {first!r} to {last!r}"


def _check_room(count: int, cpus: float, gpus: float, resources: dict[str, float]) -> None:
    """Raise UsageError where this machine could never start so many workers."""
    for noun, each in (("CPU", cpus), ("GPU", gpus)):
        there = resources.get(noun, 0.0)
        if count * each > there:
            raise UsageError(
                f"{count} workers of {each:g} {noun}s each need {count * each:g}; this machine "
                f"has {there:g}. Ask for fewer workers, or name a cluster's address."
            )
