"""What a standard library module offers; read by importing it where it has no source."""

from __future__ import annotations

import importlib
import inspect
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Module", "Name", "Namespace", "is_private", "read_imported"]

Namespace = dict[str, "Name"]
_SELF = re.compile(r"^\(\$\w+(?:, /)?(?:, )?")


@dataclass(eq=False)
class Name:
    """A class or function, shared by all modules that offer it."""

    kind: str
    doc: str
    signature: str
    members: Namespace = field(default_factory=dict)
    bases: list[Name] = field(default_factory=list)


@dataclass(eq=False)
class Module:
    """A module's docstring and names.

    Attributes
    ----------
    imports : the modules it imports, by the name it gives them.
    foreign : the names it takes from public modules of other packages.
    borrowed : the names it takes one by one from private modules.
    exports : ``__all__`` where that can be read, else None.
    """

    name: str
    doc: str = ""
    names: Namespace = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)
    borrowed: set[str] = field(default_factory=set)
    exports: set[str] | None = None
    is_package: bool = False

    def public_names(self) -> Iterator[str]:
        """Yield the names that ``import *`` would bring."""
        for name in self.names:
            if name in self.exports if self.exports is not None else not name.startswith("_"):
                yield name


def is_private(dotted: str) -> bool:
    """Say whether any part of a dotted name begins with an underscore."""
    return any(part.startswith("_") for part in dotted.split("."))


def read_imported(module: Module) -> None:
    """Fill a Module by importing an extension or built-in module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated modules say so
        try:
            imported = importlib.import_module(module.name)
        except ImportError:
            return  # built for another system, or a library it needs is missing
    module.doc = inspect.cleandoc(imported.__doc__ or "")
    for name, value in sorted(vars(imported).items()):
        if inspect.isclass(value):
            # socket.error and its like are aliases of built-in classes.
            if value.__name__ == name or value.__module__ != "builtins":
                module.names[name] = _imported_class(value)
        elif inspect.isroutine(value):
            module.names[name] = _imported_function(value, "function")


def _imported_class(value: type) -> Name:
    members = {
        name: _imported_function(getattr(value, name), "method")
        for name in sorted(vars(value))
        if not name.startswith("_") and inspect.isroutine(getattr(value, name, None))
    }
    doc = vars(value).get("__doc__")
    text = inspect.cleandoc(doc) if isinstance(doc, str) else ""
    return Name("class", text, _imported_signature(value), members)


def _imported_function(value: Any, kind: str) -> Name:
    doc = getattr(value, "__doc__", None)
    text = inspect.cleandoc(doc) if isinstance(doc, str) else ""
    return Name(kind, text, _imported_signature(value))


def _imported_signature(value: Any) -> str:
    """Return the parameters that a C function states, without self; "" where it states none."""
    stated = getattr(value, "__text_signature__", None) or ""
    return _SELF.sub("(", stated)
