"""One JSON object a line: what happened, when, and to which request. Never a text or a key."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

__all__ = ["JsonFormatter", "log_event"]

_LOG = logging.getLogger("millpond.serve")


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
