"""The corpus ``python-stdlib``: the docstrings of this Python's standard library."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path
from typing import Any

from retrieval.corpus.values import Row
from retrieval.errors import FailureError

STDLIB_NAME = "python-stdlib"

# Modules that would crowd out what people ask about: private to others, tools of the
# interpreter's own developers, known by another name (os.path is posixpath or ntpath), not on
# every machine, or removed by 3.13 (PEP 594).
_LEFT_OUT = frozenset(
    """
    antigravity distutils ensurepip genericpath idlelib lib2to3 nt ntpath nturl2path opcode posix
    posixpath pydoc_data pyexpat sre_compile sre_constants sre_parse test this tkinter turtle
    turtledemo
    ast bdb cmath cProfile code codeop compileall ctypes curses dis doctest faulthandler ftplib
    imaplib mailbox modulefinder numbers optparse pdb pickletools poplib profile pstats py_compile
    pyclbr pydoc rlcompleter selectors site symtable tabnanny termios trace tracemalloc venv wsgiref
    xmlrpc zipapp zipimport
    aifc asynchat asyncore audioop cgi cgitb chunk crypt imghdr imp mailcap msilib nis nntplib
    ossaudiodev pipes smtpd sndhdr spwd sunau telnetlib uu xdrlib
    """.split()  # noqa: SIM905 - a column of a hundred strings is worse to read
)
# Packages re-export what their other submodules hold.
_SUBMODULES = frozenset(
    """
    collections.abc concurrent.futures email.message email.parser email.utils html.entities
    html.parser http.client http.cookies http.server importlib.resources logging.handlers
    multiprocessing.pool multiprocessing.shared_memory os.path unittest.mock urllib.error
    urllib.parse urllib.request urllib.robotparser xml.etree xml.etree.ElementTree
    """.split()  # noqa: SIM905
)

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(eq=False)
class _Name:
    """A module, class, function or method; shared by all modules that offer it."""

    kind: str
    doc: str
    signature: str = ""
    members: dict[str, _Name] = field(default_factory=dict)
    bases: list[_Name] = field(default_factory=list)


@dataclass(eq=False)
class _Module:
    """A module's docstring and names.

    Attributes
    ----------
    imports : the modules it imports, by the name it gives them.
    foreign : the names it takes from public modules of other packages.
    borrowed : the names it takes one by one from private modules.
    exports : ``__all__`` where that can be read, else None.
    """

    name: str
    is_package: bool = False
    doc: str = ""
    names: dict[str, _Name] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)
    borrowed: set[str] = field(default_factory=set)
    exports: set[str] | None = None

    def offered(self) -> Iterator[tuple[str, _Name]]:
        """Yield the public names, without what the module merely imports from elsewhere."""
        for name, value in self.names.items():
            listed = name in self.exports if self.exports else name not in self.foreign
            if listed and not name.startswith("_"):
                yield name, value


@lru_cache(maxsize=1)
def stdlib_rows() -> tuple[Row, ...]:
    """Return one record for each module, class, function and method that has a docstring.

    Left out are modules that few people ask about (``_LEFT_OUT``), and methods whose docstring
    has fewer than four words or is word for word that of an earlier method. The id and title
    are the dotted name under which users know it, the text is the signature and the docstring,
    ``kind`` is "module", "class", "function" or "method". Sorted by id, the same in every run
    on one Python; some 3 MB of memory, kept between calls.

    Raises
    ------
    FailureError : this Python comes without the sources of its standard library.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    if not (folder / "os.py").is_file():
        raise FailureError(
            f"{STDLIB_NAME}: this Python has no library sources in {folder}. Use a Python that "
            f"was installed with them, or name a corpus of your own."
        )
    modules = _public_modules(_Library(folder))
    shortest = _shortest_names(modules)
    rows: dict[str, Row] = {}
    said: set[str] = set()
    for shown, module in modules.items():
        rows[shown] = _row(shown, shown, _Name("module", module.doc))
        for name, value in module.offered():
            dotted = f"{shown}.{name}"
            if shortest[id(value)] != dotted:
                continue
            rows[dotted] = _row(dotted, shown, value)
            for method, found in _methods(value, shortest).items():
                if len(found.doc.split()) >= 4 and found.doc not in said:
                    said.add(found.doc)
                    rows[f"{dotted}.{method}"] = _row(f"{dotted}.{method}", shown, found)
    return tuple(rows[doc_id] for doc_id in sorted(rows) if rows[doc_id].values["text"])


def _row(dotted: str, module: str, found: _Name) -> Row:
    """Return a record; its text is empty where there is no docstring."""
    call = dotted.rpartition(".")[2] if found.kind == "method" else dotted
    text = f"{call}{found.signature}\n\n{found.doc}" if found.signature else found.doc
    values = {"_id": dotted, "title": dotted, "text": text if found.doc else ""}
    return Row(STDLIB_NAME, None, {**values, "kind": found.kind, "module": module})


def _public_modules(library: _Library) -> dict[str, _Module]:
    """Return every module of the corpus by the name users know it by."""
    names = {name for name in sys.stdlib_module_names - _LEFT_OUT if not _is_private(name)}
    modules = {name: library.module(name) for name in sorted(names | _SUBMODULES)}
    # These two are made at run time: by os, and from Python 3.13 on by collections.
    modules["os.path"] = library.module(os.path.__name__)
    if not modules["collections.abc"].names:
        modules["collections.abc"] = library.module("_collections_abc")
    return modules


def _shortest_names(modules: dict[str, _Module]) -> dict[int, str]:
    """Return, for the ``id`` of each offered name, the shortest dotted name it goes by.

    A module that borrows a name without listing it in ``__all__`` (os borrows Mapping) gives
    way to one that offers it (collections.abc).
    """
    best: dict[int, tuple[bool, int, str]] = {}
    for shown, module in modules.items():
        for name, value in module.offered():
            dotted = f"{shown}.{name}"
            rank = (not module.exports and name in module.borrowed, dotted.count("."), dotted)
            best[id(value)] = min(rank, best.get(id(value), rank))
    return {key: dotted for key, (_, _, dotted) in best.items()}


def _methods(value: _Name, offered: dict[int, str]) -> dict[str, _Name]:
    """Return a class's public methods, with those of bases that have no public name."""
    found = {name: member for name, member in value.members.items() if not name.startswith("_")}
    for base in value.bases:
        if id(base) not in offered:
            for name, member in _methods(base, offered).items():
                if name not in found or not found[name].doc:
                    found[name] = member
    return found


def _is_private(dotted: str) -> bool:
    return any(part.startswith("_") for part in dotted.split("."))


class _Library:
    """Reads modules from their source without running it.

    Only extension and built-in modules are imported: they have no source to read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        extensions = sysconfig.get_config_var("DESTSHARED") or folder / "lib-dynload"
        self._extension_folders = [str(extensions), str(Path(sys.base_prefix) / "DLLs")]
        self._modules: dict[str, _Module] = {}

    def module(self, name: str) -> _Module:
        """Return a module; one without names where this Python does not have it."""
        if name in self._modules:
            return self._modules[name]
        path = self.source_path(name)
        # Entered before it is read: imports may be circular.
        module = self._modules[name] = _Module(name, bool(path and path.stem == "__init__"))
        if path is not None:
            _SourceReader(self, module).read(path)
        elif self._has_extension(name):
            _read_imported(module)
        return module

    def source_path(self, name: str) -> Path | None:
        """Return the file that holds a module's source, None where there is none."""
        stem = self._folder.joinpath(*name.split("."))
        candidates = (stem / "__init__.py", stem.with_suffix(".py"))
        return next((path for path in candidates if path.is_file()), None)

    def _has_extension(self, name: str) -> bool:
        if name == "readline" or "." in name:  # importing readline writes to the terminal
            return False
        if name in sys.builtin_module_names:
            return True
        spec = PathFinder.find_spec(name, self._extension_folders)
        return bool(spec and spec.origin and spec.origin.endswith(tuple(EXTENSION_SUFFIXES)))


def _read_imported(module: _Module) -> None:
    """Fill a module by importing it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated modules say so
        try:
            imported = importlib.import_module(module.name)
        except ImportError:
            return  # built for another system, or a library it needs is missing
    module.doc = _imported(imported, "module").doc
    for name, value in sorted(vars(imported).items()):
        if inspect.isclass(value):
            # socket.error and its like are aliases of built-in classes.
            if value.__name__ == name or value.__module__ != "builtins":
                module.names[name] = _imported(value, "class")
        elif inspect.isroutine(value):
            module.names[name] = _imported(value, "function")


def _imported(value: Any, kind: str) -> _Name:
    # A class must not show the docstring of its base, nor one that is a property.
    doc = vars(value).get("__doc__") if kind == "class" else getattr(value, "__doc__", None)
    stated = getattr(value, "__text_signature__", None) or ""
    found = _Name(kind, inspect.cleandoc(doc) if isinstance(doc, str) else "")
    found.signature = re.sub(r"^\(\$\w+(?:, /)?(?:, )?", "(", stated)  # without self
    for name in sorted(vars(value)) if kind == "class" else ():
        if not name.startswith("_") and inspect.isroutine(getattr(value, name, None)):
            found.members[name] = _imported(getattr(value, name), "method")
    return found


class _SourceReader:
    """Fills a module from its syntax tree."""

    def __init__(self, library: _Library, module: _Module) -> None:
        self.library, self.module = library, module
        self._instances: dict[str, _Name] = {}
        self._exports_known = True

    def read(self, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old modules
            tree = ast.parse(path.read_bytes())
        self.module.doc = ast.get_docstring(tree) or ""
        self._visit(tree.body)
        if not self._exports_known:
            self.module.exports = None

    def _visit(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            match statement:
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    self._add(statement.name, _function(statement, "function"))
                case ast.ClassDef():
                    self._add(statement.name, self._class(statement))
                case ast.Import():
                    for alias in statement.names:
                        self.module.imports[alias.asname or alias.name] = alias.name
                case ast.ImportFrom():
                    self._import_from(statement)
                case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                    self._export(value)
                case ast.AugAssign(target=ast.Name(id="__all__"), value=value):
                    self._export(value)
                case ast.Assign(targets=[ast.Name(id=target)], value=value):
                    self._add(target, self._assigned(target, value))
                case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="__all__")))):
                    self._exports_known = False
                case ast.If() | ast.Try():
                    for block in (statement, *getattr(statement, "handlers", ())):
                        self._visit(block.body)
                    self._visit(statement.orelse)

    def _add(self, name: str, found: _Name | None) -> None:
        """Keep the first definition that has a docstring."""
        known = self.module.names.get(name)
        if found is not None and (known is None or (found.doc and not known.doc)):
            self.module.names[name] = found

    def _assigned(self, target: str, value: ast.expr) -> _Name | None:
        """Return the function or class that a statement gives another name."""
        match value:
            case ast.Call(func=ast.Name(id=called)):
                made = self.module.names.get(called)
                if made is not None and made.kind == "class":
                    self._instances[target] = made
            case ast.Attribute(value=ast.Name(id=held), attr=attribute) if held in self._instances:
                # A method offered as a function, like randint = _inst.randint
                if method := _find_method(self._instances[held], attribute):
                    return _Name("function", method.doc, method.signature)
            case ast.Name() | ast.Attribute():
                if _is_private(ast.unparse(value)):  # an alias like Lock = _thread.allocate_lock
                    return self._resolve(value)
        return None

    def _export(self, value: ast.expr) -> None:
        """Add a literal list to ``exports``; anything else makes them unknown for good."""
        try:
            self.module.exports = (self.module.exports or set()) | set(ast.literal_eval(value))
        except (ValueError, TypeError):
            self._exports_known = False

    def _import_from(self, statement: ast.ImportFrom) -> None:
        origin = self._absolute(statement)
        for alias in statement.names:
            source = self.library.module(origin)
            local = alias.asname or alias.name
            inside = f"{origin}.{alias.name}"
            if alias.name == "*":
                listed = source.exports
                for name, found in list(source.names.items()):
                    if name in listed if listed is not None else not name.startswith("_"):
                        self._add(name, found)
            elif self.library.source_path(inside) is not None:
                self.module.imports[local] = inside
            elif alias.name in source.names:
                self._note_origin(local, origin)
                self._add(local, source.names[alias.name])

    def _note_origin(self, local: str, origin: str) -> None:
        if local in self.module.names:
            return
        own = origin.split(".")[0] == self.module.name.split(".")[0]
        if _is_private(origin):
            self.module.borrowed.add(local)
        elif not (own and self.module.is_package):
            self.module.foreign.add(local)

    def _absolute(self, statement: ast.ImportFrom) -> str:
        parts = self.module.name.split(".") if statement.level else []
        parts = parts[: len(parts) - statement.level + self.module.is_package]
        return ".".join([*parts, *([statement.module] if statement.module else [])])

    def _class(self, node: ast.ClassDef) -> _Name:
        found = _Name("class", ast.get_docstring(node) or "")
        found.bases = [base for base in map(self._resolve, node.bases) if base is not None]
        found.doc = found.doc or next((base.doc for base in found.bases if base.doc), "")
        for statement in node.body:
            if not isinstance(statement, _Function):
                continue
            if statement.name == "__init__":
                found.signature = _signature(statement, bound=True)
            elif statement.name not in found.members or not found.members[statement.name].doc:
                found.members[statement.name] = _function(statement, "method")
        return found

    def _resolve(self, expression: ast.expr) -> _Name | None:
        """Return what a name or module.name refers to, None where that is not known."""
        match expression:
            case ast.Name(id=name):
                return self.module.names.get(name)
            case ast.Attribute(value=ast.Name(id=module), attr=attribute):
                origin = self.module.imports.get(module)
                return self.library.module(origin).names.get(attribute) if origin else None
        return None


def _find_method(value: _Name, name: str) -> _Name | None:
    """Return a method of a class or of the nearest base that has it."""
    if name in value.members:
        return value.members[name]
    found = (_find_method(base, name) for base in value.bases)
    return next((method for method in found if method is not None), None)


def _function(node: _Function, kind: str) -> _Name:
    is_property = any("property" in ast.unparse(name) for name in node.decorator_list)
    signature = "" if is_property else _signature(node, bound=kind == "method")
    return _Name(kind, ast.get_docstring(node) or "", signature)


def _signature(node: _Function, *, bound: bool) -> str:
    """Return the parameters in round brackets, without self where ``bound``."""
    arguments = ast.unparse(node.args)
    first = (node.args.posonlyargs + node.args.args)[:1] if bound else []
    if first:
        arguments = arguments.removeprefix(ast.unparse(first[0])).removeprefix(", ")
        arguments = arguments.removeprefix("/, ").removeprefix("/")
    return f"({arguments})"
