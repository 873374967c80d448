"""Keeps transformers' own progress bars and advice out of our output while a model loads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["quiet_transformers"]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence everything below an error, then restore what was set."""
    from transformers.utils import logging as library_logging

    logging: Any = library_logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    advisory = os.environ.get("TRANSFORMERS_NO_ADVISORY_WARNINGS")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        if advisory is None:
            del os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"]
        else:
            os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = advisory
