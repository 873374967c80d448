"""A study read from a TOML file, with its paths made absolute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from benchmarks.study.config import StudyConfig
from benchmarks.tasks.datasets import BEIR_PREFIX
from embedder.training.config import is_path
from retrieval.typed import read_dataclass, read_toml

__all__ = ["example_study", "load_study", "read_study"]

_EXAMPLE = "paper-mistral-7b.toml"


def load_study(path: str | Path) -> StudyConfig:
    """Return the study of a TOML file; paths in it are relative to its folder.

    Raises
    ------
    SourceNotFoundError, StorageError : the file is not there or cannot be read.
    UnknownNameError, UsageError : it is not TOML, or holds a key or value that is not accepted.
    """
    data = read_toml(Path(path), "millpond study --example")
    return read_study(data, Path(path).parent)


def read_study(data: Mapping[str, Any], folder: Path) -> StudyConfig:
    """Return the study that a mapping describes, its paths made absolute from ``folder``."""
    config = read_dataclass(StudyConfig, data)

    def absolute(path: str | Path) -> Path:
        return (folder / Path(path).expanduser()).resolve()

    def place(name: str, stands_on_disk: bool) -> str:
        return str(absolute(name)) if stands_on_disk else name

    return replace(
        config,
        bases=tuple(
            replace(base, base=place(base.base, is_path(base.base))) for base in config.bases
        ),
        tasks=tuple(place(task, not task.startswith(BEIR_PREFIX)) for task in config.tasks),
        train=replace(
            config.train,
            data=tuple(replace(source, path=absolute(source.path)) for source in config.train.data),
        ),
    )


def example_study() -> str:
    """Return the study of the paper, as commented TOML that runs."""
    return (files("benchmarks") / "studies" / _EXAMPLE).read_text(encoding="utf-8")
