"""The built-in corpus: what the docstrings of Python's standard library say."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from retrieval.corpus.records import Row
from retrieval.corpus.stdlib_module import Module, Name, is_private
from retrieval.corpus.stdlib_names import Library
from retrieval.errors import FailureError

__all__ = ["STDLIB_NAME", "count_stdlib", "stdlib_rows"]

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
