"""What the files of a model folder or hub id say: its commit, its kind, the code it comes with."""

from __future__ import annotations

import re
import time
from functools import partial
from pathlib import Path
from typing import Any

from embedder.environment import first_line, quiet_transformers
from retrieval.errors import ModelError
from retrieval.hub import reach_hub
from retrieval.protocols import Notify, silent
from retrieval.typed import load_json

_COMMIT = re.compile(r"[0-9a-f]{40}")

_NAMING_FILES = ("config.json", "modules.json", "adapter_config.json")
"""Some models have no configuration at the top."""

_ASK_AGAIN_SECONDS = 60
_ASKED: dict[tuple[str, str | None], tuple[float, str | OSError]] = {}
"""Hub id and revision to when the hub was asked, and its commit or what went wrong."""

_MAY_NAME_CODE = (
    "config.json",
    "tokenizer_config.json",
    "processor_config.json",
    "preprocessor_config.json",
)


def refuse_code(base: str, path: str, revision: str | None = None) -> None:
    """Raise ModelError where a folder, or a hub id, names Python code that it comes with.

    Without that code it would be another model, and transformers may ask on stdin to run it.
    """
    named = find_code(path, revision)
    if named:
        raise ModelError(
            f"The base {base!r} comes with Python code of its own, which {named} names as "
            f"auto_map. Such code is never run here. Use a base whose architecture is part of "
            f"transformers (millpond models), or have sentence-transformers run the code if you "
            f"have read and trust it: --model st:{base} --trust-remote-code."
        )


def find_code(path: str, revision: str | None = None, subfolder: str = "") -> str:
    """Return the file of a folder or hub id that names Python code of the model's own, else ""."""
    for name in _MAY_NAME_CODE:
        data = read_model_json(path, f"{subfolder}/{name}".lstrip("/"), revision)
        if isinstance(data, dict) and data.get("auto_map"):
            return name
    return ""


def fetch_file(path: str, name: str, revision: str | None) -> Path | None:
    """Return a file of a folder or hub id, fetched if need be; None where there is none.

    Raises
    ------
    OSError : the hub does not know the model, or cannot be reached.
    """
    from transformers.utils.hub import cached_file

    with quiet_transformers():
        found = cached_file(
            path, name, revision=revision, _raise_exceptions_for_missing_entries=False
        )
    return None if found is None else Path(found)


def read_model_json(path: str, name: str, revision: str | None = None) -> Any:
    """Return what a JSON file of a folder or hub id holds, None where there is no such file.

    None too where the hub cannot be asked; loading the model says why.

    Raises
    ------
    ModelError : the file holds something else.
    """
    found: Path | None = Path(path) / name
    if not Path(path).is_dir():
        try:
            found = fetch_file(path, name, find_commit(path, revision))
        except OSError:
            return None
    if found is None or not found.is_file():
        return None
    try:
        return load_json(found)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: its {name} cannot be read as JSON: {error}.") from error


def find_commit(path: str, revision: str | None) -> str:
    """Return the commit that a hub id's revision names now, or named when last fetched.

    A process asks once, so that all files are of one commit; after an error, again in a minute.

    Raises
    ------
    OSError : the hub does not know it, or cannot be reached.
    """
    from huggingface_hub import try_to_load_from_cache

    find = partial(try_to_load_from_cache, path, revision=revision)
    asked, found = _ASKED.get((path, revision), (0.0, OSError("not asked yet")))
    if isinstance(found, str):
        return found
    if asked and time.monotonic() - asked < _ASK_AGAIN_SECONDS:
        raise found
    try:
        if not any(isinstance(find(name), str) for name in _NAMING_FILES):
            reach_hub(path, _NAMING_FILES[0], revision=revision)
        for name in _NAMING_FILES:
            file = fetch_file(path, name, revision)
            if file is not None:
                commit = file.parent.name  # of .../snapshots/COMMIT/config.json
                _ASKED[path, revision] = (time.monotonic(), commit)
                return commit
            if find(name) is None:
                break  # the hub has not said that there is none: it cannot be reached
        raise OSError(f"{path} does not appear to have a file named config.json.")
    except OSError as error:
        _ASKED[path, revision] = (time.monotonic(), error)
        raise


def ask_commit(base: str, revision: str | None, notify: Notify = silent) -> str:
    """Return what ``find_commit`` does, at once where the revision is a commit.

    Raises
    ------
    ModelError : the hub has no such model or revision, or cannot be reached.
    """
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    notify(f"Asking the model hub for {base} (fetched once, then read from its cache)")
    try:
        return find_commit(base, revision)
    except Exception as error:  # every library below raises its own kinds
        raise not_on_hub(base, error) from error


def not_on_hub(base: str, error: Exception) -> ModelError:
    """Return the error for a model that the hub does not give."""
    return ModelError(
        f"{base} is no folder here, and cannot be loaded from the model hub: {first_line(error)} "
        f"Check the name and the network, or use a built-in base (millpond models) or a model "
        f"folder."
    )


def name_encoder(kind: str, has_decoder: bool = False) -> str:
    """Return in words what a transformer is if it is no decoder alone; else "".

    transformers lists the models that write text, and those that fill in masks.

    Parameters
    ----------
    kind : "model_type" of its configuration.
    has_decoder : "is_encoder_decoder" of it.
    """
    from transformers.models.auto import modeling_auto as known

    if kind in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return f"it is an encoder ({kind})"
    if has_decoder or kind in known.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return f"it is an encoder-decoder ({kind})"
    writes = {
        *known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        *known.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        *known.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    }
    if kind not in known.MODEL_MAPPING_NAMES or {kind, kind.removesuffix("_text")} & writes:
        return ""  # code of its own is found elsewhere
    return f"it is an encoder ({kind})"
