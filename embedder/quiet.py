"""Keeps the libraries' own progress bars and advice out of our output while a model loads."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["quiet_transformers"]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence everything below an error, then restore what was set."""
    from transformers.utils import logging as library_logging

    library: Any = library_logging
    hub = logging.getLogger("huggingface_hub")  # says each of its attempts to reach a host

    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    hub_level = hub.level
    advisory = os.environ.get("TRANSFORMERS_NO_ADVISORY_WARNINGS")
    library.set_verbosity_error()
    library.disable_progress_bar()
    hub.setLevel(logging.ERROR)
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"
    try:
        yield
    finally:
        library.set_verbosity(verbosity)
        hub.setLevel(hub_level)
        if bars:
            library.enable_progress_bar()
        if advisory is None:
            del os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"]
        else:
            os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = advisory
