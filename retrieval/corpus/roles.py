"""Which fields of a record hold its id, title and text: named by the user, or found by name."""

from __future__ import annotations

import difflib
import shlex
import string
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from retrieval.corpus.values import MAX_ID_BYTES, Row, shorten
from retrieval.errors import RecordError, UsageError

CONTENT = "@content"
"""Named as the id: it is made from the content of the record."""

NO_TITLE = "@none"
"""Kept as the title where none was found, so that none is looked for later."""

IDS = ("_id", "id", "doc_id", "docid")
TEXTS = ("text", "contents", "content", "body")
TITLE = "title"
OTHER_TITLES = ("headline", "heading", "subject")
GUESSED_IDS = (
    *("document_id", "docno", "uuid", "guid", "key", "url", "uri", "link", "permalink", "slug"),
    *("path", "filename", "file", "pmid", "doi", "isbn", "number", "name"),
)
GUESSED_TITLES = (*OTHER_TITLES, "question", "name", "label")
GUESSED_TEXTS = (
    *("page_content", "message", "description", "answer", "passage", "context", "abstract"),
    *("summary", "document", "article", "paragraph", "chunk", "sentence", "review", "comment"),
    *("transcript", "snippet", "notes", "value", "question"),
)
_SHOWN_FIELDS = 12


@dataclass(frozen=True, slots=True)
class Layout:
    """Which fields of the records of a source hold what; what is empty is found by name.

    Attributes
    ----------
    id, title : a field, in any case. A dotted path (``meta.source``) leads into an object. The id
        ``@content`` is made from the content of each record; with the title ``@none`` none
        is looked for, except in a field of that name.
    text : the fields that make the text, a line end between them.
    template : the text with fields in braces, ``"{headline}: {body}"``; instead of ``text``.

    Raises
    ------
    UsageError : text and template are both given, or the template names no field.
    """

    id: str = ""
    title: str = ""
    text: tuple[str, ...] = ()
    template: str = ""

    def __post_init__(self) -> None:
        if self.text and self.template:
            raise UsageError(
                "The text is named twice, by its fields and by a template. Leave one of them out."
            )
        if self.template and not template_fields(self.template):
            raise UsageError(
                f"The text template {self.template!r} names no field; expected one or more in "
                "braces, such as '{headline}: {body}'."
            )

    def __bool__(self) -> bool:
        """Whether anything is named."""
        return bool(self.id or self.title or self.text or self.template)

    def to_json(self) -> dict[str, str]:
        """Return what ``from_json`` reads: what is named."""
        named = {"id": self.id, "title": self.title, "text": ",".join(self.text)}
        named["template"] = self.template
        return {name: value for name, value in named.items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, str]) -> Layout:
        """Return the layout that ``to_json`` wrote; other entries are left out."""
        text = tuple(name for name in data.get("text", "").split(",") if name)
        return cls(data.get("id", ""), data.get("title", ""), text, data.get("template", ""))

    def filled(self, earlier: Layout, sample: Sequence[Row]) -> Layout:
        """Return this with what an earlier layout names besides, and these records have."""
        text: tuple[str, ...] = ()
        template = ""
        if not (self.text or self.template):
            template = earlier.template if _have(sample, template_fields(earlier.template)) else ""
            text = earlier.text if _have(sample, earlier.text) else ()
        made, none = earlier.id == CONTENT, earlier.title == NO_TITLE
        return Layout(
            self.id or (earlier.id if made or _have(sample, [earlier.id]) else ""),
            self.title or (earlier.title if none or _have(sample, [earlier.title]) else ""),
            self.text or text,
            self.template or template,
        )

    @property
    def named(self) -> Iterator[str]:
        """The fields that are named."""
        found = (name for name in (self.id, self.title) if name)
        yield from (name for name in found if name not in (CONTENT, NO_TITLE))
        yield from self.text
        yield from template_fields(self.template)


def choose_fields(sample: Sequence[Row], layout: Layout) -> tuple[Layout, str]:
    """Return the layout with what was found, which repeats the choice, and a line to tell.

    What ``layout`` leaves open is found by the usual names; where those are missing, by a list of
    names that are common. The layout that comes back also names what was taken from that list,
    and the line says it; it is empty if there was no need.

    Parameters
    ----------
    sample : the first records of the source, one or more.

    Raises
    ------
    RecordError : a field that is named is in none of the records, or none can be the text.
    """
    _check_named(sample, layout)
    chosen = layout
    if not (layout.text or layout.template or _has(sample, TEXTS)):
        chosen = replace(chosen, text=(_guess_text(sample, layout),))
    if not (layout.id or _has(sample, IDS)):
        chosen = replace(chosen, id=_guess_id(sample, set(chosen.named)))
    if not (layout.title or _has(sample, (TITLE,))):
        names = OTHER_TITLES if chosen == layout else GUESSED_TITLES
        chosen = replace(chosen, title=_guess_title(sample, names, chosen) or NO_TITLE)
    return chosen, _tell(sample[0], layout, chosen)


def _have(sample: Sequence[Row], names: Sequence[str]) -> bool:
    """Whether there are names, and each of them is a field of a record."""
    return bool(names) and all(
        any(look_up(row.values, name)[0] for row in sample) for name in names
    )


def _has(sample: Sequence[Row], names: Sequence[str]) -> bool:
    """Whether a record has a value under one of these names."""
    found = ((row.values, find_spelling(row.values, names)) for row in sample)
    return any(field is not None and values[field] is not None for values, field in found)


def find_spelling(values: Iterable[str], names: Sequence[str]) -> str | None:
    """Return the field that is the first of these names, exactly or else in any case."""
    fields = values if isinstance(values, Mapping) else list(values)
    for name in names:
        if name in fields:
            return name
    folded = {field.casefold(): field for field in fields}
    return next((folded[name.casefold()] for name in names if name.casefold() in folded), None)


def look_up(values: Mapping[str, Any], name: str) -> tuple[bool, Any]:
    """Return whether a record has a field, and its value.

    Looks for the name itself, in any case, along a dotted path, and in an object ``metadata``.
    """
    field = find_spelling(values, (name,))
    if field is not None:
        return True, values[field]
    head, dot, rest = name.partition(".")
    inner = values.get(head)
    if dot and isinstance(inner, Mapping):
        return look_up(inner, rest)
    nested = values.get("metadata")
    return look_up(nested, name) if isinstance(nested, Mapping) else (False, None)


def template_fields(template: str) -> list[str]:
    """Return the fields in the braces of a template.

    Raises
    ------
    UsageError : the braces do not match, or hold more than a name.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UsageError(
            f"The text template {template!r} cannot be read ({error}). Write a brace that is text "
            "twice: {{ or }}."
        ) from None
    for _, name, form, conversion in parts:
        if name is not None and (not name or form or conversion):
            raise UsageError(
                f"The text template {template!r} holds more than names of fields in its braces; "
                "expected such as '{headline}: {body}'."
            )
    return [name for _, name, _, _ in parts if name]


def _check_named(sample: Sequence[Row], layout: Layout) -> None:
    for name in layout.named:
        if not any(look_up(row.values, name)[0] for row in sample):
            fields = {field.casefold(): field for field in sample[0].values}
            near = difflib.get_close_matches(name.casefold(), fields, n=1)
            meant = f" Did you mean {fields[near[0]]!r}?" if near else ""
            raise sample[0].error(f"there is no field {name!r}; {_listing(sample[0])}.{meant}")


def _listing(row: Row) -> str:
    shown = ", ".join(shorten(name, 40) for name in list(row.values)[:_SHOWN_FIELDS])
    more = len(row.values) - _SHOWN_FIELDS
    return f"the fields are {shown}{f' and {more} more' if more > 0 else ''}"


def _guess_text(sample: Sequence[Row], layout: Layout) -> str:
    """Return the field that holds the text by its name; else raise RecordError."""
    first, taken = sample[0], set(layout.named)
    for name in GUESSED_TEXTS:
        field = find_spelling(first.values, (name,))
        if field is not None and field not in taken and isinstance(first.values[field], str):
            return field
    if (empty := find_spelling(first.values, TEXTS)) is not None:
        raise first.error(f"{empty!r} is null, here and in the records after it; expected text")
    if not first.values:
        raise first.error("the first record has no field; expected one that holds the text")
    texts = {name: value for name, value in first.values.items() if isinstance(value, str)}
    longest = max(texts, key=lambda name: len(texts[name]), default=next(iter(first.values)))
    raise RecordError(
        first.source,
        first.line,
        f"no field is known to hold the text; {_listing(first)}. Name it, such as: --text "
        f"{shlex.quote(longest)}",
    )


def _guess_id(sample: Sequence[Row], taken: set[str]) -> str:
    """Return a field whose values can be ids in all of the sample, or that they are made."""
    for name in GUESSED_IDS:
        field = find_spelling(sample[0].values, (name,))
        if field is None or field in taken:
            continue
        values = [row.values.get(field) for row in sample]
        if all(_is_id(value) for value in values) and len({str(v) for v in values}) == len(values):
            return field
    return CONTENT


def _is_id(value: object) -> bool:
    if isinstance(value, str):
        return 0 < len(value.encode(errors="replace")) <= MAX_ID_BYTES and value.isprintable()
    return isinstance(value, int) and not isinstance(value, bool)


def _guess_title(sample: Sequence[Row], names: Sequence[str], chosen: Layout) -> str:
    """Return a field that holds a title by its name, "" if none does; a name may also be the id."""
    first = sample[0].values
    taken = set(chosen.named)
    for name in names:
        field = find_spelling(first, (name,))
        free = field not in taken or (name == "name" and field == chosen.id)
        if field is not None and free and isinstance(first[field], str):
            return field
    return ""


def _tell(first: Row, asked: Layout, chosen: Layout) -> str:
    """Return one line on what was taken from the list of common names, "" if nothing was."""
    parts = []
    for what in ("id", "title"):
        name = getattr(chosen, what)
        if name not in ("", NO_TITLE) and not getattr(asked, what):
            parts.append(f"the {what} from " + ("the content" if name == CONTENT else repr(name)))
    if chosen.text and not asked.text:
        parts.append(f"the text from {chosen.text[0]!r}")
    if not parts:
        return ""
    made = ", so a changed record is a new document" if "the id from the content" in parts else ""
    listing = ", ".join([*parts[:-1]])
    taken = f"{listing} and {parts[-1]}" if listing else parts[-1]
    return f"{first.source}: took {taken}{made}. Others: --id, --title and --text FIELD."
