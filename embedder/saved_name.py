"""The text that names a trained model: ``NAME|MODEL_DIR[,OPTION=VALUE...]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedder.builtin import builtin_folder
from embedder.model_files import is_saved_model
from embedder.name_options import parse_option
from retrieval.errors import UnknownNameError

__all__ = ["SavedName", "find_saved_model"]

_OPTIONS = ("max_tokens", "dimension", "query_prompt", "document_prompt")
"""What may differ from training without the weights losing their place."""
_NAME = re.compile(r"(?P<name>.+?)(?P<options>(?:,[a-z_]+=[^,]*)+)")


@dataclass(frozen=True)
class SavedName:
    """A trained model that a user named.

    Attributes
    ----------
    folder : the MODEL_DIR.
    name : what names the model from any folder, options included.
    options : fields of VariantSpec that replace the saved ones.
    """

    folder: Path
    name: str
    options: Mapping[str, Any]


def find_saved_model(text: str) -> SavedName | None:
    """Return the trained model called ``text``, None where it names something else.

    A built-in model's name goes before a folder's; write ``./NAME`` for a folder of that name.

    Raises
    ------
    UnknownNameError : the model takes no such option.
    UsageError : an option's value is not of its type.
    """
    match = None if _find(text) else _NAME.fullmatch(text)
    plain, written = (match["name"], match["options"]) if match else (text, "")
    found = _find(plain)
    if found is None:
        return None
    folder, name = found
    options = {}
    for option, value in (part.split("=", 1) for part in written.split(",")[1:]):
        if option not in _OPTIONS:
            raise UnknownNameError("option of a trained model", option, _OPTIONS)
        options[option] = parse_option(option, value)
    return SavedName(folder, name + written, options)


def _find(name: str) -> tuple[Path, str] | None:
    """Return the folder and the lasting name of a trained model."""
    builtin = builtin_folder(name)
    if builtin is not None:
        return builtin, name
    if is_saved_model(name):
        folder = Path(name).expanduser().resolve()
        return folder, str(folder)
    return None
