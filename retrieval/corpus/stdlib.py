"""Standard library modules, read from their source without running it."""

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

from retrieval.corpus.records import Row
from retrieval.errors import FailureError

__all__ = [
    "Module",
    "Name",
    "Namespace",
    "is_private",
    "read_imported",
    "Library",
    "STDLIB_NAME",
    "count_stdlib",
    "stdlib_rows",
]

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


_Function = ast.FunctionDef | ast.AsyncFunctionDef

# Importing it writes to the terminal.
_NEVER_IMPORTED = frozenset({"readline"})


class Library:
    """Reads modules under the standard library's folders without running Python source.

    Only extension and built-in modules are imported: they have no source to read.
    """

    def __init__(self, folder: Path, extension_folders: list[Path]) -> None:
        self.folder = folder
        self._extension_folders = [str(path) for path in extension_folders]
        self._modules: dict[str, Module] = {}

    def module(self, name: str) -> Module:
        """Return a module; one without names where this Python does not have it."""
        known = self._modules.get(name)
        if known is not None:
            return known
        module = self._modules[name] = Module(name)  # entered first: imports may be circular
        path = self.source_path(name)
        if path is not None:
            module.is_package = path.name == "__init__.py"
            _SourceReader(self, module).read(path)
        elif self._has_extension(name):
            read_imported(module)
        return module

    def source_path(self, name: str) -> Path | None:
        """Return the file that holds a module's source, None where there is none."""
        stem = self.folder.joinpath(*name.split("."))
        for path in (stem / "__init__.py", stem.with_suffix(".py")):
            if path.is_file():
                return path
        return None

    def _has_extension(self, name: str) -> bool:
        if name in _NEVER_IMPORTED or "." in name:
            return False
        if name in sys.builtin_module_names:
            return True
        spec = PathFinder.find_spec(name, self._extension_folders)
        return bool(spec and spec.origin and spec.origin.endswith(tuple(EXTENSION_SUFFIXES)))


class _SourceReader:
    """Fills a Module from its syntax tree."""

    def __init__(self, library: Library, module: Module) -> None:
        self.library = library
        self.module = module
        self._instances: Namespace = {}

    def read(self, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old modules
            tree = ast.parse(path.read_bytes())
        self.module.doc = ast.get_docstring(tree) or ""
        self._visit(tree.body)

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
                case ast.Assign(targets=[ast.Name(id=target)]):
                    self._assign(target, statement.value)
                case ast.AugAssign(target=ast.Name(id="__all__")):
                    self._export(statement.value)
                case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="__all__")))):
                    self.module.exports = None  # computed: what it holds cannot be read
                    self.module.imports["__all__"] = ""
                case ast.If() | ast.For() | ast.While():
                    self._visit(statement.body)
                    self._visit(statement.orelse)
                case ast.Try():
                    self._visit(statement.body)
                    for handler in statement.handlers:
                        self._visit(handler.body)
                    self._visit(statement.orelse)
                case ast.With():
                    self._visit(statement.body)

    def _add(self, name: str, found: Name | None) -> None:
        """Keep the first definition that has a docstring."""
        known = self.module.names.get(name)
        if found is not None and (known is None or (found.doc and not known.doc)):
            self.module.names[name] = found

    def _assign(self, target: str, value: ast.expr) -> None:
        if target == "__all__":
            self._export(value)
            return
        match value:
            case ast.Call(func=ast.Name(id=called)):
                made = self.module.names.get(called)
                if made is not None and made.kind == "class":
                    self._instances[target] = made
            case ast.Attribute(value=ast.Name(id=held), attr=attribute) if held in self._instances:
                # A method offered as a function, like randint = _inst.randint
                method = _find_method(self._instances[held], attribute)
                if method is not None:
                    self._add(target, Name("function", method.doc, method.signature))
            case ast.Name() | ast.Attribute():
                if is_private(ast.unparse(value)):  # an alias like Lock = _thread.allocate_lock
                    self._add(target, self._resolve(value))

    def _export(self, value: ast.expr) -> None:
        """Add a literal list to ``exports``; anything else makes them unknown for good."""
        try:
            listed = set(ast.literal_eval(value))
        except (ValueError, TypeError):
            self.module.exports = None
            self.module.imports["__all__"] = ""
            return
        if "__all__" not in self.module.imports:
            self.module.exports = (self.module.exports or set()) | listed

    def _import_from(self, statement: ast.ImportFrom) -> None:
        origin = self._absolute(statement)
        for alias in statement.names:
            if alias.name == "*":
                source = self.library.module(origin)
                for name in list(source.public_names()):
                    self._add(name, source.names[name])
                continue
            local = alias.asname or alias.name
            inside = f"{origin}.{alias.name}"
            if self.library.source_path(inside) is not None:
                self.module.imports[local] = inside
                continue
            found = self.library.module(origin).names.get(alias.name)
            if found is not None and local not in self.module.names:
                own = origin.split(".")[0] == self.module.name.split(".")[0]
                if is_private(origin):
                    self.module.borrowed.add(local)
                elif not (own and self.module.is_package):
                    self.module.foreign.add(local)
            self._add(local, found)

    def _absolute(self, statement: ast.ImportFrom) -> str:
        if not statement.level:
            return statement.module or ""
        parts = self.module.name.split(".")
        up = statement.level - self.module.is_package
        base = parts[: len(parts) - up]
        return ".".join([*base, *([statement.module] if statement.module else [])])

    def _class(self, node: ast.ClassDef) -> Name:
        bases = [base for base in map(self._resolve, node.bases) if base is not None]
        members: Namespace = {}
        signature = ""
        for statement in node.body:
            if not isinstance(statement, _Function):
                continue
            if statement.name == "__init__":
                signature = _signature(statement, bound=True)
            elif statement.name not in members or not members[statement.name].doc:
                members[statement.name] = _function(statement, "method")
        doc = ast.get_docstring(node) or next((b.doc for b in bases if b.doc), "")
        return Name("class", doc, signature, members, bases)

    def _resolve(self, expression: ast.expr) -> Name | None:
        """Return what a name or module.name refers to, None where that is not known."""
        match expression:
            case ast.Name(id=name):
                return self.module.names.get(name)
            case ast.Attribute(value=ast.Name(id=module), attr=attribute):
                origin = self.module.imports.get(module)
                return self.library.module(origin).names.get(attribute) if origin else None
        return None


def _find_method(value: Name, name: str) -> Name | None:
    """Return a method of a class or of the nearest base that has it."""
    if name in value.members:
        return value.members[name]
    found = (_find_method(base, name) for base in value.bases)
    return next((method for method in found if method is not None), None)


def _function(node: _Function, kind: str) -> Name:
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    is_property = any("property" in name for name in decorators)
    bound = kind == "method" and "staticmethod" not in decorators
    signature = "" if is_property else _signature(node, bound=bound)
    return Name(kind, ast.get_docstring(node) or "", signature)


def _signature(node: _Function, *, bound: bool) -> str:
    """Return the parameters in round brackets, without self where ``bound``."""
    arguments = ast.unparse(node.args)
    first = (node.args.posonlyargs + node.args.args)[:1] if bound else []
    if first:
        arguments = arguments.removeprefix(ast.unparse(first[0])).removeprefix(", ")
        arguments = arguments.removeprefix("/, ").removeprefix("/")
    return f"({arguments})"


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
_SHORTEST_METHOD_WORDS = 4


def stdlib_rows() -> Iterator[Row]:
    """Yield one record for each module, class, function and method that has a docstring.

    Left out are modules that few people ask about (``_LEFT_OUT``), and methods whose docstring
    has fewer than four words or is word for word that of an earlier method. The id and title
    are the dotted name under which users know it, the text is the signature and the docstring,
    ``kind`` is "module", "class", "function" or "method". Sorted by id, the same in every run
    on one Python; some 3 MB of memory, kept between calls.

    Raises
    ------
    FailureError : this Python comes without the sources of its standard library.
    """
    yield from _documents()


def count_stdlib() -> int:
    """Return the number of records, reading the library if that has not happened yet."""
    return len(_documents())


@lru_cache(maxsize=1)
def _documents() -> tuple[Row, ...]:
    folder = Path(sysconfig.get_path("stdlib"))
    if not (folder / "os.py").is_file():
        raise FailureError(
            f"{STDLIB_NAME}: this Python has no library sources in {folder}. Use a Python that "
            f"was installed with them, or name a corpus of your own."
        )
    modules = _public_modules(folder)
    exported = {id(name) for module in modules.values() for _, name in _offered(module)}
    chosen = _choose_names(modules)
    rows: dict[str, Row] = {}
    said: set[str] = set()
    for shown, module in modules.items():
        rows[shown] = _row(shown, shown, Name("module", module.doc, ""))
        for name, value in _offered(module):
            dotted = f"{shown}.{name}"
            if chosen[id(value)] != dotted:
                continue
            rows[dotted] = _row(dotted, shown, value)
            for method, found in _methods(value, exported).items():
                if len(found.doc.split()) >= _SHORTEST_METHOD_WORDS and found.doc not in said:
                    said.add(found.doc)
                    rows[f"{dotted}.{method}"] = _row(f"{dotted}.{method}", shown, found)
    return tuple(rows[doc_id] for doc_id in sorted(rows) if rows[doc_id].values["text"])


def _row(dotted: str, module: str, found: Name) -> Row:
    """Return a record; its text is empty where there is no docstring."""
    call = dotted.rpartition(".")[2] if found.kind == "method" else dotted
    text = f"{call}{found.signature}\n\n{found.doc}" if found.signature else found.doc
    values = {"_id": dotted, "title": dotted, "text": text if found.doc else ""}
    return Row(STDLIB_NAME, None, {**values, "kind": found.kind, "module": module})


def _public_modules(folder: Path) -> dict[str, Module]:
    """Return every module of the corpus by the name users know it by."""
    extensions = Path(sysconfig.get_config_var("DESTSHARED") or folder / "lib-dynload")
    library = Library(folder, [extensions, Path(sys.base_prefix) / "DLLs"])
    names = {name for name in sys.stdlib_module_names - _LEFT_OUT if not is_private(name)}
    modules = {name: library.module(name) for name in sorted(names | _SUBMODULES)}
    # These two are made at run time: by os, and from Python 3.13 on by collections.
    modules["os.path"] = library.module(os.path.__name__)
    if not modules["collections.abc"].names:
        modules["collections.abc"] = library.module("_collections_abc")
    return modules


def _offered(module: Module) -> Iterator[tuple[str, Name]]:
    """Yield the module's public names, without what it merely imports from elsewhere."""
    for name, value in module.names.items():
        listed = name in module.exports if module.exports else name not in module.foreign
        if listed and not name.startswith("_"):
            yield name, value


def _choose_names(modules: dict[str, Module]) -> dict[int, str]:
    """Return, for each offered name, the shortest dotted name it goes by.

    A module that borrows a name without listing it in ``__all__`` (os borrows Mapping) gives
    way to one that offers it (collections.abc).
    """
    best: dict[int, tuple[bool, int, str]] = {}
    for shown, module in modules.items():
        for name, value in _offered(module):
            dotted = f"{shown}.{name}"
            rank = (not module.exports and name in module.borrowed, dotted.count("."), dotted)
            best[id(value)] = min(rank, best.get(id(value), rank))
    return {key: dotted for key, (_, _, dotted) in best.items()}


def _methods(value: Name, exported: set[int]) -> dict[str, Name]:
    """Return a class's public methods, with those of bases that have no public name."""
    found = {name: member for name, member in value.members.items() if not name.startswith("_")}
    for base in value.bases:
        if id(base) not in exported:
            for name, member in _methods(base, exported).items():
                if name not in found or not found[name].doc:
                    found[name] = member
    return found
