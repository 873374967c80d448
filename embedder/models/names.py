"""What names a model: the text that a user types, its files, and the fingerprint in an index.

A trained model is called ``NAME|MODEL_DIR[,OPTION=VALUE...]``. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from retrieval.errors import UnknownNameError, UsageError, check_type
from retrieval.typed import load_json
from retrieval.types import SPACE, Fingerprint

DEFAULT_VARIANT = "mean+causal"
"""The variant of a base that is named alone."""

DEFAULT_MODEL = "millpond-135m"
"""The model where none is named: the trained one that comes with millpond."""

PREFIX = "st:"
"""Before the name of a model that sentence-transformers is to load."""

FORMAT_VERSION = 1
MANIFEST_NAME = "millpond.json"
ADAPTER_CONFIG = "adapter/adapter_config.json"
ADAPTER_WEIGHTS = "adapter/adapter_model.safetensors"
POOLING_WEIGHTS = "pooling.safetensors"
WHOLE = "."
"""The spec's base where the folder of a model itself holds the whole base."""

EMBEDDING_VERSION = 1
"""Part of every fingerprint; raised when the same spec and weights would give other vectors."""
_OF_SPEC = (
    "base_layers",
    "pooling",
    "attention",
    "query_prompt",
    "document_prompt",
    "max_tokens",
    "normalize",
    "chat_template",
)

_NEWER: dict[str, bool | str] = {
    "lowercase": False,
    "ending": "auto",
    "prompt_specials": False,
    "pool_prompt": True,
    "pool_bos": True,
}
"""Fields of the spec that stand in a fingerprint only where they differ from this."""

_CHANGEABLE: dict[str, type] = {
    "max_tokens": int,
    "dimension": int,
    "query_prompt": str,
    "document_prompt": str,
}
"""The fields of the spec that may differ from training, since the weights fit all the same."""
_OPTION = r',[a-z_]+=(?:"(?:[^"\\]|\\.)*"(?=,|$)|(?!")[^,]*)'
"""An option with its value, as a regular expression; see ``write_value``."""
OPTIONS_PATTERN = f"(?:{_OPTION})"
_NAME = re.compile(f"(?P<name>.+?)(?P<options>{OPTIONS_PATTERN}+)", re.DOTALL)
_OPEN_QUOTE = re.compile(r',(?P<option>[a-z_]+)="')
_HOME = Path(__file__).resolve().parent / "builtin_models"


def parse_option(name: str, value: str, kind: type) -> Any:
    """Return an option's value in the type of its field: int, bool, str or tuple, of int.

    Raises
    ------
    UsageError : the value is of another type.
    """
    if name == "adapter_base" and (path := find_path(value)):
        return str(path.resolve())
    if kind is str:
        return value
    if kind is bool and value in ("true", "false"):
        return value == "true"
    with suppress(ValueError):
        if kind is int:
            return int(value)
        if kind is tuple:
            return tuple(int(part) for part in value.split("/"))
    expected = {int: "a whole number", bool: "true or false", tuple: "whole numbers as 1/2/3"}
    raise UsageError(f"The model option {name} is {value!r}; expected {expected[kind]}.")


def is_saved_model(name: Path | str) -> bool:
    """Whether this is a folder that holds a model that millpond saved; any text may be asked."""
    return is_folder(name) and (Path(name).expanduser() / MANIFEST_NAME).is_file()


def find_path(name: Path | str) -> Path | None:
    """Return the file or folder of this name, None where there is none; any text may be asked."""
    try:
        path = Path(name).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # a name too long, or with "~nobody", is no path
        return None


def refuse_index(folder: Path | str) -> None:
    """Raise UsageError, with what to type instead, where an index was given as a model."""
    with suppress(OSError, ValueError, LookupError, TypeError, RuntimeError):
        found = load_json(Path(folder).expanduser() / "manifest.json")
        if found["format"] == "millpond-index":
            made = found["fingerprint"]["model"]
            raise UsageError(
                f"{folder} is an index; expected a model. Type the one that made it: {made}"
            )


def is_folder(name: Path | str) -> bool:
    """Whether this is a folder; any text may be asked."""
    path = find_path(name)
    return path is not None and path.is_dir()


def is_hub_id(name: str) -> bool:
    """Whether this is of the form OWNER/NAME, which a model hub may know."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def join_sha256(files: Mapping[str, str]) -> str:
    """Return one SHA-256 over the names and SHA-256s of the files with trained weights."""
    listed = json.dumps(dict(files), sort_keys=True)
    return hashlib.sha256(listed.encode()).hexdigest()


@dataclass(frozen=True)
class TrainedModel:
    """One trained model of ``millpond models``.

    Attributes
    ----------
    name : what a user types.
    base : the built-in base it was trained on.
    variant : POOLING+ATTENTION.
    base_layers : how many of the base's first layers it keeps; None for all.
    weights_bytes : size of the files with trained weights.
    """

    name: str
    base: str
    variant: str
    base_layers: int | None
    weights_bytes: int

    @property
    def summary(self) -> str:
        """One phrase on what it is."""
        depth = f"the first {self.base_layers} layers of " if self.base_layers else ""
        return f"{self.variant} on {depth}{self.base}"


def builtin_folder(name: str) -> Path | None:
    """Return the folder of the built-in model of this name, None where there is no such model."""
    return {folder.name: folder for folder in _folders()}.get(name)


def list_builtin_models() -> list[TrainedModel]:
    """Return the models that come with millpond, by name."""
    return [_read(folder) for folder in _folders()]


def _folders() -> list[Path]:
    return sorted(path.parent for path in _HOME.glob(f"*/{MANIFEST_NAME}"))


def _read(folder: Path) -> TrainedModel:
    data = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
    spec = data["spec"]
    return TrainedModel(
        folder.name,
        data["base"]["name"],
        f"{spec['pooling']}+{spec['attention']}",
        spec.get("base_layers"),
        sum(path.stat().st_size for path in folder.rglob("*.safetensors")),
    )


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


def read_name(model: str | os.PathLike[str]) -> str:
    """Return the name of a model, which may be the path of its folder."""
    expected = "its folder or name, such as 'millpond-135m'"
    check_type("The model", model, (str, os.PathLike), expected)
    return str(model)


def find_saved_model(text: str) -> SavedName | None:
    """Return the trained model called ``text``, None where it names something else.

    A built-in model's name goes before a folder's; write ``./NAME`` for a folder of that name.

    Raises
    ------
    UnknownNameError : the model takes no such option.
    UsageError : an option's value is not of its type, or this is an index.
    """
    plain, written = split_name(text)
    found = _find(plain)
    if found is None:
        refuse_index(plain)
        return None
    folder, name = found
    options = parse_changes(written, "option of a trained model")
    return SavedName(folder, name + written, options)


def split_name(text: str) -> tuple[str, str]:
    """Return what stands before ``,OPTION=VALUE...``, and the options as they were written.

    The name of a folder is no more than that, whatever it looks like.
    """
    if is_folder(text):
        return text, ""
    if match := _NAME.fullmatch(text):
        return match["name"], match["options"]
    refuse_open_quote(text)
    return text, ""


def split_options(written: str) -> Iterator[tuple[str, str]]:
    """Yield name and value of each option in ",OPTION=VALUE...", quotes taken off."""
    for part in re.findall(_OPTION, written, re.DOTALL):
        name, _, value = part[1:].partition("=")
        yield name, _read_quoted(name, value) if value.startswith('"') else value


def write_value(value: object) -> str:
    """Return a value as ``split_options`` and ``parse_option`` read it.

    A text that holds a comma or a line break, or begins with a quote, is written as a JSON string.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "/".join(map(str, value))
    text = str(value)
    plain = text.isprintable() and "," not in text and not text.startswith('"')
    return text if plain else json.dumps(text, ensure_ascii=False)


def refuse_open_quote(text: str) -> None:
    """Raise UsageError where a model's name holds a quote that is not closed."""
    if found := _OPEN_QUOTE.search(text):
        raise UsageError(
            f"The value of {found['option']} in the model {text!r} begins with a quote and does "
            f'not end with one. Type {found["option"]}="...", a quote inside as \\".'
        )


def _read_quoted(name: str, value: str) -> str:
    try:
        return str(json.loads(value, strict=False))
    except ValueError as error:
        raise UsageError(
            f"The model option {name} is {value}; expected a JSON string ({error})."
        ) from None


def parse_changes(written: str, kind: str, more: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the options of a model whose weights fit others too, by name.

    Parameters
    ----------
    written : ",OPTION=VALUE..." as ``split_name`` gives it, or "".
    kind : what errors call such an option.
    more : names of texts that this kind of model takes too.

    Raises
    ------
    UnknownNameError : there is no such option.
    UsageError : an option's value is not of its type.
    """
    options, known = {}, _CHANGEABLE | dict.fromkeys(more, str)
    for option, value in split_options(written):
        if option not in known:
            raise UnknownNameError(kind, option, known)
        options[option] = parse_option(option, value, known[option])
    return options


def _find(name: str) -> tuple[Path, str] | None:
    """Return the folder and the lasting name of a trained model."""
    builtin = builtin_folder(name)
    if builtin is not None:
        return builtin, name
    if is_saved_model(name):
        folder = Path(name).expanduser().resolve()
        return folder, str(folder)
    return None


def describe_model(
    name: str,
    spec: Mapping[str, Any],
    *,
    weights: str,
    dimension: int,
    trained_sha256: str | None,
    is_int8: bool = False,
) -> Fingerprint:
    """Return the fingerprint of a model.

    Parameters
    ----------
    spec : of the model, as ``spec_to_json`` gives it.
    weights : identifies the base's weights.
    trained_sha256 : identifies those that were trained beside them, if any.
    is_int8 : whether linear layers compute in int8.
    """
    trained = {"trained_weights": trained_sha256} if trained_sha256 else {}
    if is_int8:
        trained["linear_layers"] = "int8 turned"  # kept for indexes that have it; it means rotated
    # Only where they differ: models and indexes of before they existed keep their fingerprints.
    newer = {name: spec[name] for name, usual in _NEWER.items() if spec.get(name, usual) != usual}
    if head := spec.get("head"):
        newer["head"] = json.dumps(head, sort_keys=True)
        if space := head[-1].get(SPACE):
            newer[SPACE] = space
    return Fingerprint(
        name,
        {
            **trained,
            "weights": weights,
            **{field: spec[field] for field in _OF_SPEC},
            **newer,
            "pooling_options": json.dumps(spec["pooling_options"], sort_keys=True),
            "dimension": dimension,
            "embedding_version": EMBEDDING_VERSION,
        },
    )
