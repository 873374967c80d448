"""Plain data (TOML, JSON) read into a tree of dataclasses, every key and type checked."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
import types
from collections import abc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from retrieval.errors import SourceNotFoundError, StorageError, UnknownNameError, UsageError

T = TypeVar("T")

_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
    Path: "a path as a string",
    type(None): "nothing",
}
_SHOWN = 80
_KEY = "config key"
_ARRIVED: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number with a fraction",
    str: "a string",
    list: "a list",
    dict: "a table",
}


def read_toml(path: Path, advice: str) -> dict[str, Any]:
    """Return what a TOML file holds; ``advice`` is what to do where there is none.

    Raises
    ------
    SourceNotFoundError, StorageError : the file is not there or cannot be read.
    UsageError : it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise SourceNotFoundError(f"{path}: there is no such file. {advice}") from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: byte {error.start + 1:,} is not UTF-8, as TOML is. Save the file as UTF-8."
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: this is not TOML: {error}.") from error
    except OSError as error:
        raise StorageError(f"{path}: cannot be read ({error.strerror}).") from error


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the name of a file before the message of a UsageError about what it says."""
    try:
        yield
    except UsageError as error:
        error.args = (f"{path}: {error}",)
        raise


def load_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises
    ------
    OSError : the file cannot be read.
    ValueError : it is not JSON in UTF-8, or nested too deeply.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_stored(kind: type[T], data: object, where: str = "", **hints: Any) -> T:
    """Return ``kind`` built from what one of our own files holds, every key and type checked.

    Parameters
    ----------
    where : as for ``read_dataclass``.
    hints : types of fields that are stored as others than the dataclass has, as null for NaN.

    Raises
    ------
    ValueError : a key is missing or unknown, or a value has another type.
    """
    try:
        return read_dataclass(kind, data, where, hints=hints)
    except UsageError as error:
        text = str(error).replace("The config", "It", 1).replace("config key", "key", 1)
        raise ValueError(text.removesuffix(".")) from error


def read_dataclass(
    kind: type[T],
    data: object,
    where: str = "",
    *,
    hints: Mapping[str, Any] | None = None,
) -> T:
    """Return ``kind`` built from a mapping, and everything below it likewise.

    Fields may be int, float, str, bool, Path, Literal words, further dataclasses, homogeneous
    tuples or sequences of these, mappings of names to them, Any, and unions with None. A whole
    number will do where a float is expected.

    Parameters
    ----------
    where : the dotted key of ``data`` itself, for messages.
    hints : types instead of those of the dataclass.

    Raises
    ------
    UnknownNameError : a key that the dataclass lacks; names the dotted key and the nearest one.
    UsageError : a required key is missing or in another table than its own, or a value has
        another type.
    """
    try:
        return _read_fields(kind, data, where, hints)
    except UnknownNameError as error:
        if where or error.kind != _KEY:
            raise
        key, *known = (name.rpartition(".")[2] for name in (error.name, *error.known))
        places = list(_find_key(kind, key))
        if places and not difflib.get_close_matches(key, known, cutoff=0.8):
            raise UsageError(
                f"Unknown {_KEY} {error.name!r}; expected it as {' or '.join(places)}."
            ) from error
        raise


def _find_key(hint: Any, key: str, where: str = "") -> Iterator[str]:
    """Yield the dotted names of all fields of this name, below a type."""
    for inner in get_args(hint):
        yield from _find_key(inner, key, where)
    if dataclasses.is_dataclass(hint):
        for name, part in _hints_of(cast(Any, hint)).items():
            if name == key:
                yield _join(where, name)
            yield from _find_key(part, key, _join(where, name))


def _read_fields(kind: type[T], data: object, where: str, hints: Mapping[str, Any] | None) -> T:
    if not isinstance(data, Mapping):
        raise _wrong(where, data, "a table")
    types_of = _hints_of(cast(Any, kind)) | dict(hints or {})
    fields = {field.name: field for field in dataclasses.fields(cast(Any, kind)) if field.init}
    for key in data:
        if key not in fields:
            known = [_join(where, name) for name in fields]
            raise UnknownNameError(_KEY, _join(where, key), known)
    for name, field in fields.items():
        required = (
            field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        )
        if required and name not in data:
            raise UsageError(
                f"The config has no {_join(where, name)}, which must be "
                f"{_describe(types_of[name])}."
            )
    values = {key: _read(types_of[key], value, _join(where, key)) for key, value in data.items()}
    try:
        return kind(**values)
    except UsageError as error:
        if not where or str(error).startswith(where):
            raise
        raise UsageError(f"[{where}] {error}") from error


@cache
def _hints_of(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def plain_data(value: Any) -> Any:
    """Return a dataclass tree as what JSON can hold; tuples become lists, paths strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain_data(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain_data(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [plain_data(part) for part in value]
    return str(value) if isinstance(value, Path) else value


def without_folders(value: Any) -> Any:
    """Return plain data with every absolute path cut to its last part.

    A model is passed on; where its data lay on the disk of whoever trained it is nobody's concern.
    """
    if isinstance(value, Mapping):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    is_path = isinstance(value, str) and "\n" not in value and Path(value).is_absolute()
    return Path(value).name if is_path else value


def find_differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield dotted key, old and new value wherever two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            inner = f"{key}.{name}" if key else name
            yield from find_differences(old.get(name), new.get(name), inner)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (first, second) in enumerate(zip(old, new, strict=True)):
            yield from find_differences(first, second, f"{key}[{index}]")
    elif old != new:
        yield key, old, new


def _read(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _read_optional(hint, value, where)
    if origin in (tuple, abc.Sequence):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise _wrong(where, value, _describe(hint))
        inner = get_args(hint)[0]
        found = [_read(inner, part, f"{where}[{i}]") for i, part in enumerate(value)]
        return tuple(found) if origin is tuple else found
    if origin is abc.Mapping:
        if not isinstance(value, Mapping):
            raise _wrong(where, value, "a table")
        inner = get_args(hint)[1]
        return {str(name): _read(inner, part, _join(where, name)) for name, part in value.items()}
    if origin is Literal:
        if value not in get_args(hint):
            raise _wrong(where, value, _describe(hint))
        return value
    if dataclasses.is_dataclass(hint):
        if isinstance(value, cast(type, hint)):
            return value
        return read_dataclass(cast(type, hint), value, where)
    return value if hint is Any else _read_scalar(hint, value, where)


def _read_optional(hint: Any, value: Any, where: str) -> Any:
    """Read a union: the first member that the value fits."""
    if value is None and type(None) in get_args(hint):
        return None
    members = [member for member in get_args(hint) if member is not type(None)]
    if len(members) == 1:
        return _read(members[0], value, where)
    for member in members:
        try:
            return _read(member, value, where)
        except UsageError:
            continue
    raise _wrong(where, value, _describe(hint))


def _read_scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise _wrong(where, value, _describe(hint)) from None
    if hint is Path and isinstance(value, str):
        return Path(value)
    fits = isinstance(value, hint) and not (isinstance(value, bool) and hint is not bool)
    if isinstance(value, float) and not math.isfinite(value):
        fits = False
    if not fits:
        raise _wrong(where, value, _describe(hint))
    return value


def _describe(hint: Any) -> str:
    """Return the type in a user's words."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        members = [member for member in get_args(hint) if member is not type(None)]
        return " or ".join(_describe(member) for member in members)
    if origin in (tuple, abc.Sequence):
        return f"a list, each item {_describe(get_args(hint)[0])}"
    if origin is Literal:
        return "one of " + ", ".join(repr(word) for word in get_args(hint))
    if dataclasses.is_dataclass(hint) or origin is abc.Mapping:
        return "a table"
    return _WORDS.get(hint, str(hint))


def _wrong(where: str, value: object, expected: str) -> UsageError:
    arrived = _ARRIVED.get(type(value), type(value).__name__)
    if isinstance(value, float) and not math.isfinite(value):
        arrived = "not finite"
    shown = "" if isinstance(value, Mapping | list) else f" ({repr(value)[:_SHOWN]})"
    return UsageError(f"{where or 'The config'} is {arrived}{shown}; expected {expected}.")


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
