"""Hits on stdout: lines for people, objects for machines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len

from cli.console import clean, collapse, print_json, print_line, stdout_width, truncate, wrap

if TYPE_CHECKING:
    from retrieval import Hit

__all__ = ["explain", "lay_out", "print_hits", "to_json"]

_SNIPPET_LINES = 2
_PIPED_SNIPPET_CELLS = 160
_INDENT = "    "
_NARROWEST_TITLE = 10
_SENTENCE = re.compile(r"[.!?\u2026]\s+|[\u3002\uff01\uff1f]|\n\s*")
_BEFORE_SNIPPET = 10
_PLACES_COMPARED = 200


def print_hits(
    hits: Sequence[Hit], *, as_json: bool, query: Mapping[str, object] | None = None
) -> None:
    """Print hits; ``query`` goes before the fields of each JSON object."""
    if as_json:
        for hit in hits:
            print_json({**(query or {}), **to_json(hit)})
        return
    width = stdout_width()
    for hit in hits:
        for line in lay_out(hit, width):
            _print_styled(line, hit) if width else print_line(line)


def to_json(hit: Hit) -> dict[str, object]:
    """Return the fields of a hit; those that only some searches give where there are any."""
    data: dict[str, object] = {
        "rank": hit.rank,
        "doc_id": hit.doc_id,
        "score": hit.score,
        "title": hit.title,
        "text": hit.text,
    }
    if hit.metadata:
        data["metadata"] = dict(hit.metadata)
    if hit.passage is not None:
        part = hit.passage
        data["passage"] = {"number": part.number, "start": part.start, "stop": part.stop}
    if hit.arms:
        data["arms"] = {
            name: {"score": arm.score, "rank": arm.rank} for name, arm in hit.arms.items()
        }
    if hit.first_stage is not None:
        first = hit.first_stage
        data["first_stage"] = {"score": first.score, "rank": first.rank}
    if hit.arms or hit.matched:
        data["matched"] = list(hit.matched)
    return data | ({"index": hit.index} if hit.index else {})


def lay_out(hit: Hit, width: int | None) -> Iterator[str]:
    """Yield the lines of one hit: rank, score, id and title, then at most two of its text.

    Between them stands where in its document a passage is, if that is known.
    On a terminal, another line says why it is one. Piped (``width`` None), the text is one line
    that is cut but never wrapped.
    """
    place = f"{clean(hit.index)}: " if hit.index else ""
    head = f"{hit.rank:>2}  {hit.score:.4f}  {place}{clean(hit.doc_id)}"
    title = collapse(hit.title)
    if title and title != hit.doc_id:
        head += "  " + title if width is None else _fit("  " + title, width - cell_len(head))
    yield head.rstrip()
    place = name_place(hit)
    if place:
        yield _INDENT + (place if width is None else truncate(place, width - len(_INDENT)))
    room = (width or _PIPED_SNIPPET_CELLS + len(_INDENT)) - len(_INDENT)
    lines = _SNIPPET_LINES if width else 1
    start = _find_snippet(hit.text, hit.matched, lines * room)
    shown = ("… " if start else "") + collapse(hit.text[start : start + 8 * room])
    for line in wrap(shown, room, lines):
        yield _INDENT + line
    why = explain(hit)
    if width is not None and why:
        yield _INDENT + truncate(why, room)


def _find_snippet(text: str, matched: Sequence[str], room: int) -> int:
    """Return where to begin: at the start, or if that shows none of these words, where most do."""
    words = "|".join(re.escape(word) for word in sorted(matched, key=len, reverse=True))
    places = [(found.start(), found[0]) for found in re.finditer(words, text)] if words else []

    def count(start: int) -> int:
        last = start + room - _BEFORE_SNIPPET
        return len({word.casefold() for place, word in places if start <= place < last})

    if not places or count(0):
        return 0
    starts = []
    for place, _ in places[:_PLACES_COMPARED]:
        before = text[max(0, place - room // 2) : place]
        ends = [end.end() for end in _SENTENCE.finditer(before)]
        starts.append(place - len(before) + (ends[-1] if ends else before.find(" ") + 1))
    return max(starts, key=count)  # the first of equals


def name_place(hit: Hit) -> str:
    """Return where in its document a passage is, as "Guide > Install, page 12"; "" if unknown."""
    if hit.passage is None:
        return ""
    heading, page = hit.metadata.get("heading"), hit.metadata.get("page")
    parts = [collapse(str(heading))] if heading else []
    return ", ".join(parts + ([f"page {page}"] if page is not None else []))


def explain(hit: Hit) -> str:
    """Return what each arm gave a hit and the words that matched; "" where there is nothing.

    A rank is missing where that arm did not return the document and only scored it.
    """
    parts = []
    if hit.first_stage is not None:
        parts.append(f"before {hit.first_stage.score:.4f} (rank {hit.first_stage.rank})")
    for name, arm in hit.arms.items():
        digits = 4 if name == "dense" else 2
        rank = f" (rank {arm.rank})" if arm.rank is not None else ""
        parts.append(f"{name} {arm.score:.{digits}f}{rank}")
    told: dict[str, str] = {}
    for word in map(collapse, hit.matched):  # "Mill" and "mill" once
        told.setdefault(word.casefold(), word)
    words = ", ".join(told.values())
    return ", ".join(parts) + (": " if parts and words else "") + words


def _fit(text: str, room: int) -> str:
    """Return the text cut to the room, "" if the room is too small to be useful."""
    return truncate(text, room) if room >= _NARROWEST_TITLE else ""


def _print_styled(line: str, hit: Hit) -> None:
    """Print a line on a terminal, the document id in bold and the text dim."""
    from rich.console import Console
    from rich.text import Text

    shown = Text(line)
    if line.startswith(_INDENT):
        shown.stylize("dim")
    else:
        start = line.index(clean(hit.doc_id), line.index("  ", 3))
        shown.stylize("bold", start, start + len(clean(hit.doc_id)))
    Console(highlight=False, markup=False, emoji=False).print(shown, soft_wrap=True)
