"""``millpond duplicates``: documents of an index that are nearly the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cli.console import clean, collapse, message, print_json, print_line, progress
from cli.options import FolderArgument, JsonOption, option
from cli.store import StoredKeyOption, StoredUrlOption, use_stored_server
from retrieval.errors import count_noun
from retrieval.passages import read_passage, split_passage_id

if TYPE_CHECKING:
    from retrieval import Document

ABOVE = 0.95
"""What --help shows; a test holds it equal to ``indexes.search.duplicates.ALIKE``."""
_SHOWN_TOGETHER = 256


def duplicates(
    folder: FolderArgument,
    above: Annotated[
        float, option("COSINE", "How alike two documents have to be, up to 1.", "--above")
    ] = ABOVE,
    where: Annotated[
        str | None, option("FILTER", "Only among documents whose fields match.", "--filter")
    ] = None,
    json: JsonOption = False,
    url: StoredUrlOption = None,
    ask_key: StoredKeyOption = False,
) -> None:
    """List groups of documents that are nearly the same.

    No model is loaded: the stored vectors are compared, each with each. A group is the document
    that was stored first and those that are like it; without those, no two are alike. Of an index
    of passages, passages are compared.
    With --json, one object per group: doc_id, title, and duplicates with doc_id, similarity and
    title; of passages also passage.

    \b
    Examples:
      millpond duplicates my-index
      millpond duplicates my-index --above 0.99 --json | jq -r '.duplicates[].doc_id' > copies.txt
      millpond delete my-index --ids copies.txt
    """
    import numpy as np

    from indexes import Index
    from indexes.search.duplicates import find_alike

    use_stored_server(folder, url, ask_key)
    snapshot = Index.open(folder).snapshot
    passages = bool(snapshot.manifest.passages)
    noun = "passage" if passages else "document"
    with progress("Comparing", snapshot.manifest.findable, f"{noun}s") as advance:
        groups = find_alike(snapshot, above, where, advance)
    for start in range(0, len(groups), _SHOWN_TOGETHER):
        some = groups[start : start + _SHOWN_TOGETHER]
        rows = [row for group in some for row in (group.row, *(row for row, _ in group.others))]
        documents = snapshot.documents.documents(np.array(rows, np.int64))
        for number, group in enumerate(some, start=start + 1):
            first = _describe(documents[group.row], passages)
            others = [
                {"similarity": round(cosine, 6), **_describe(documents[row], passages)}
                for row, cosine in sorted(group.others, key=lambda one: (-one[1], one[0]))
            ]
            if json:
                print_json({**first, "duplicates": others})
            else:
                print_line(f"{number:>2}          {_name(first)}")
                for other in others:
                    print_line(f"    {other['similarity']:.4f}  {_name(other)}")
    copies = sum(len(group.others) for group in groups)
    message(
        f"{count_noun(len(groups), 'group')} with {count_noun(copies, noun)} that repeat an "
        f"earlier one, of {snapshot.manifest.documents:,}."
        if groups
        else f"No two {noun}s have a cosine of {above:g} or more."
    )


def _describe(document: Document, passages: bool) -> dict[str, object]:
    if not passages:
        return {"doc_id": document.doc_id, "title": document.title}
    place = read_passage(document.doc_id, document.text)
    part = {"number": place.number, "start": place.start, "stop": place.stop}
    doc_id = split_passage_id(document.doc_id)[0]
    return {"doc_id": doc_id, "title": document.title, "passage": part}


def _name(found: dict[str, object]) -> str:
    part = found.get("passage")
    number = f" passage {part['number'] + 1}" if isinstance(part, dict) else ""
    title = collapse(str(found["title"]))
    return f"{clean(str(found['doc_id']))}{number}{'  ' + title if title else ''}"
