"""Source code: a section for each class, method and function."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING

from retrieval.corpus.documents.base import FileText, Opened, words
from retrieval.types import Section

if TYPE_CHECKING:
    from tree_sitter import Node

_INSIDE = words(
    "class_definition class_declaration class_specifier struct_specifier impl_item trait_item "
    "mod_item interface_declaration abstract_class_declaration enum_declaration "
    "record_declaration namespace_definition internal_module"
)
"""Elements whose own definitions are sections too."""
_WHOLE = words(
    "function_definition function_declaration function_item method_definition method_declaration "
    "constructor_declaration generator_function_declaration struct_item enum_item "
    "type_declaration type_alias_declaration macro_definition"
)
_AROUND = words(
    "decorated_definition export_statement template_declaration linkage_specification "
    "declaration_list class_body block field_declaration_list enum_body interface_body "
    "enum_body_declarations statement_block ambient_declaration lexical_declaration "
    "variable_declarator expression_statement preproc_ifdef preproc_if"
)
"""Elements that are looked into, and have no name of their own."""
_BEFORE = ("comment", "attribute_item", "line_comment", "block_comment", "decorator")
_DEEPEST = 40


def code_reader(module: str, function: str = "language") -> Callable[[Opened], Iterator[FileText]]:
    """Return a reader for the language of a tree-sitter module."""

    def read(file: Opened) -> Iterator[FileText]:
        from tree_sitter import Language, Parser

        text = file.text()
        language = Language(getattr(importlib.import_module(module), function)())
        data = text.encode()
        tree = Parser(language).parse(data)
        places = [(0, "")]
        _collect(tree.root_node, (), places, 0)
        yield FileText(text, PurePath(file.name).name, _to_sections(data, places))

    return read


def _collect(node: Node, path: tuple[str, ...], found: list[tuple[int, str]], depth: int) -> None:
    """Note where each definition begins, and where what is around it goes on."""
    for child in node.named_children:
        kind = child.type
        if kind in _AROUND and depth < _DEEPEST:
            inner = next(
                (one for one in child.named_children if one.type in _INSIDE | _WHOLE), None
            )
            if inner is None:
                _collect(child, path, found, depth + 1)
                continue
            _add(child, inner, path, found, depth)
        elif kind in _INSIDE or kind in _WHOLE:
            _add(child, child, path, found, depth)


def _add(
    outer: Node, node: Node, path: tuple[str, ...], found: list[tuple[int, str]], depth: int
) -> None:
    name = _name(node)
    if not name:
        return
    own = (*path, name)
    first = outer
    while first.prev_sibling is not None and first.prev_sibling.type in _BEFORE:
        first = first.prev_sibling
    found.append((first.start_byte, " > ".join(own)))
    body = node.child_by_field_name("body")
    if node.type in _INSIDE and body is not None and depth < _DEEPEST:
        _collect(body, own, found, depth + 1)
    found.append((outer.end_byte, " > ".join(path)))


def _name(node: Node) -> str:
    """Return the name of a definition; of one in C, what is declared."""
    for field in ("name", "type", "declarator"):
        found = node.child_by_field_name(field)
        if found is not None and (field != "type" or node.type == "impl_item"):
            while (inner := found.child_by_field_name("declarator")) is not None:
                found = inner
            return (found.text or b"").decode(errors="replace").split("\n")[0]
    spec = next((one for one in node.named_children if one.type == "type_spec"), None)
    return _name(spec) if spec is not None else ""


def _to_sections(data: bytes, places: list[tuple[int, str]]) -> tuple[Section, ...]:
    """Return the sections, whose starts are counted in characters."""
    sections: list[Section] = []
    done = characters = 0
    for start, heading in sorted(places, key=lambda place: place[0]):
        characters += len(data[done:start].decode(errors="replace"))
        done = max(done, start)
        if sections and sections[-1].start == characters:
            sections.pop()
        sections.append(Section(characters, heading))
    return tuple(sections)
