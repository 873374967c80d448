"""A training config read from a TOML file, with its paths made absolute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedder.training.config import TrainConfig
from embedder.training.typed import is_path, read_dataclass, read_toml

__all__ = ["load_config", "read_config"]


def load_config(path: str | Path) -> TrainConfig:
    """Return the config of a TOML file; paths in it are relative to its folder.

    Raises
    ------
    SourceNotFoundError, StorageError : the file is not there or cannot be read.
    UnknownNameError, UsageError : it is not TOML, or holds a key or value that is not accepted.
    """
    data = read_toml(Path(path), "millpond train --example")
    return read_config(data, Path(path).parent)


def read_config(data: Mapping[str, Any], folder: Path) -> TrainConfig:
    """Return the config that a mapping describes, its paths made absolute from ``folder``."""
    config = read_dataclass(TrainConfig, data)

    def absolute(path: Path) -> Path:
        return (folder / path.expanduser()).resolve()

    evaluate = config.evaluate
    model = config.model
    if is_path(model.base):
        model = replace(model, base=str(absolute(Path(model.base))))
    adapter = config.adapter
    if adapter.start is not None and is_path(adapter.start):
        adapter = replace(adapter, start=str(absolute(Path(adapter.start))))
    return replace(
        config,
        model=model,
        adapter=adapter,
        data=tuple(replace(source, path=absolute(source.path)) for source in config.data),
        evaluate=replace(
            evaluate,
            sts=evaluate.sts and absolute(evaluate.sts),
            beir=evaluate.beir and absolute(evaluate.beir),
        ),
    )
