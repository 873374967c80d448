"""Standard library modules, read from their source without running it."""

from __future__ import annotations

import ast
import sys
import warnings
from importlib.machinery import EXTENSION_SUFFIXES, PathFinder
from pathlib import Path

from retrieval.corpus.stdlib_module import Module, Name, Namespace, is_private, read_imported

__all__ = ["Library"]

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
