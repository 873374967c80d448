"""How much a server takes on, and from whom."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from retrieval.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How much a server takes on, and from whom.

    Attributes
    ----------
    batch_tokens : most tokens, padding not counted, that are encoded together; a longer text goes
        alone.
    queue_tokens : most tokens that wait; a request that would go beyond is answered with 429,
        unless nothing waits.
    queue_requests : most requests that are worked on or wait.
    body_bytes : longest request body; a longer one is answered with 413.
    search_body_bytes : longest body of a search.
    held_bytes : most bytes of bodies that are held at a time; beyond that, 429.
    body_seconds : longest time that a client may take to send a body.
    head_seconds : longest time from a new connection to the end of the first request's head.
    connections : most open connections; fewer where the limit on open files is near.
    request_texts : most texts in one request.
    request_values : most JSON values (texts, numbers, names) in one body; beyond that, 413.
    search_hits : most hits of one search.
    accept_token_ids : whether clients may send token ids in place of text.
    keys : bearer keys that open the server; empty for a server that is open to all.
    local_only : whether requests have to name this machine as their host; for a server that only
        this machine reaches and that has no keys.
    origins : web origins whose pages may call the server (CORS); none by default.

    Raises
    ------
    UsageError : a limit is below 1.
    """

    batch_tokens: int = 4096
    queue_tokens: int = 131_072
    queue_requests: int = 256
    body_bytes: int = 8 * 2**20
    search_body_bytes: int = 2**20
    held_bytes: int = 256 * 2**20
    body_seconds: float = 30.0
    head_seconds: float = 10.0
    connections: int = 512
    request_texts: int = 2048
    request_values: int = 131_072
    search_hits: int = 1000
    accept_token_ids: bool = False
    keys: tuple[str, ...] = field(default=(), repr=False)
    local_only: bool = False
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the limits."""
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(value, int | float) and not isinstance(value, bool) and value < 1:
                raise UsageError(f"{setting.name} is {value}; it must be 1 or more.")
