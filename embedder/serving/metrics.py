"""What a server tells its operator: metrics for Prometheus, and a log of JSON lines."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from embedder.serving.batching import Batcher, BatchReport

_LOG = logging.getLogger("millpond.serve")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192, 16384, 65536)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


def log_event(event: str, **facts: str | int | float | None) -> None:
    """Log an event with its facts, at level INFO."""
    _LOG.info(event, extra={"facts": facts})


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON: time, level, event, facts, and any traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class Metrics:
    """Counts and times of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"millpond_{name}", what, labels, registry=registry)

        def histogram(
            name: str, what: str, *labels: str, buckets: Sequence[float] = _SECONDS
        ) -> Histogram:
            return Histogram(f"millpond_{name}", what, labels, buckets=buckets, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"millpond_{name}", what, ("index", *labels), registry=registry)

        self._requests = counter("requests", "Requests that were answered.", "route", "status")
        self._request_seconds = histogram(
            "request_seconds",
            "From the first byte of a request to the last of its answer.",
            "route",
        )
        self._waits = histogram(
            "queue_wait_seconds", "From a request's arrival in the queue to its first batch."
        )
        self._batch_tokens = histogram("batch_tokens", "Tokens in a batch.", buckets=_TOKENS)
        self._batch_texts = histogram("batch_texts", "Texts in a batch.", buckets=_TEXTS)
        self._batch_seconds = histogram("batch_seconds", "Encoding a batch.")
        self._failed = counter("failed_batches", "Batches on which the model failed.")
        self._refused = counter("refused_requests", "Requests answered with 429.")
        self._dropped = counter(
            "dropped_requests", "Requests whose client went away before the answer."
        )
        self._search_seconds = histogram(
            "search_seconds", "Searching an index, encoding not counted.", "index"
        )
        self._versions: dict[str, str] = {}
        self._version = gauge("index_version", "1 for the version that is served.", "version")
        self._documents = gauge("index_documents", "Documents or passages that can be found.")
        self._behind = gauge("index_behind", "1 where a newer version could not be opened.")

    def watch(self, batcher: Batcher) -> None:
        """Show how much is waiting in a batcher."""
        tokens = Gauge("millpond_queue_tokens", "Tokens that wait.", registry=self._registry)
        tokens.set_function(lambda: batcher.waiting_tokens)
        texts = Gauge("millpond_queue_texts", "Texts that wait.", registry=self._registry)
        texts.set_function(lambda: batcher.waiting_texts)

    def add_batch(self, report: BatchReport) -> None:
        """Count a batch."""
        self._batch_tokens.observe(report.tokens)
        self._batch_texts.observe(report.texts)
        self._batch_seconds.observe(report.seconds)
        for seconds in report.waited_seconds:
            self._waits.observe(seconds)
        if report.failed:
            self._failed.inc()

    def add_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request, and how it ended."""
        self._requests.labels(route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)
        if status == 429:
            self._refused.inc()
        elif status == 499:
            self._dropped.inc()

    def add_search(self, index: str, seconds: float) -> None:
        """Count a search of an index."""
        self._search_seconds.labels(index).observe(seconds)

    def set_index(self, name: str, version: str, documents: int) -> None:
        """Say which version of an index is served."""
        if name in self._versions:
            self._version.remove(name, self._versions[name])
        self._versions[name] = version
        self._version.labels(name, version).set(1)
        self._documents.labels(name).set(documents)

    def set_behind(self, name: str, behind: bool) -> None:
        """Say whether an index is served in an earlier version than it has."""
        self._behind.labels(name).set(behind)

    def show(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)
