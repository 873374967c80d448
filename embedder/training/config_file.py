"""A training config read from a TOML file, with its paths made absolute."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedder.training.config import TrainConfig
from embedder.training.typed import read_dataclass
from retrieval.errors import SourceNotFoundError, StorageError, UsageError

__all__ = ["load_config", "read_config"]


def load_config(path: str | Path) -> TrainConfig:
    """Return the config of a TOML file; paths in it are relative to its folder.

    Raises
    ------
    SourceNotFoundError, StorageError : the file is not there or cannot be read.
    UnknownNameError, UsageError : it is not TOML, or holds a key or value that is not accepted.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceNotFoundError(
            f"{path}: there is no such file. Type: millpond train --example > {path}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: this is not TOML: {error}.") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}).") from error
    return read_config(data, path.parent)


def read_config(data: Mapping[str, Any], folder: Path) -> TrainConfig:
    """Return the config that a mapping describes, its paths made absolute from ``folder``."""
    config = read_dataclass(TrainConfig, data)

    def absolute(path: Path) -> Path:
        return (folder / path.expanduser()).resolve()

    evaluate = config.evaluate
    model = config.model
    if _is_path(model.base):
        model = replace(model, base=str(absolute(Path(model.base))))
    adapter = config.adapter
    if adapter.start is not None and _is_path(adapter.start):
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


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~"))
