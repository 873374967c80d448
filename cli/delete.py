"""``millpond delete``: documents leave an index."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli._change import COMPACT_SHARE, CompactAtOption, FolderArgument
from cli._server_key import StoredKeyOption, use_asked_key
from cli._summary import report_change

if TYPE_CHECKING:
    from retrieval.corpus.records import Row

__all__ = ["delete"]

ID_FIELDS = ("doc_id", "_id", "docid", "id")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")


def delete(
    folder: FolderArgument,
    doc_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Ids of documents.")
    ] = None,
    ids: Annotated[
        str | None,
        typer.Option(
            "--ids",
            metavar="FILE",
            help="One id a line, or a .jsonl file whose records have one in doc_id, _id or id; "
            "- for lines on stdin.",
        ),
    ] = None,
    ignore_missing: Annotated[
        bool, typer.Option("--ignore-missing", help="Count ids that are not there, and go on.")
    ] = False,
    compact_at: CompactAtOption = COMPACT_SHARE,
    ask_key: StoredKeyOption = False,
) -> None:
    """Delete documents from an index by id.

    No model is loaded. Readers see all of the change or nothing. An id that begins with a dash
    goes after --.

    \b
    Examples:
      millpond delete my-index doc-17 doc-18
      millpond delete my-index --ids gone.txt --ignore-missing
    """
    from indexes import ChangeConfig, delete_documents
    from retrieval.errors import UsageError

    if not doc_ids and ids is None:
        place = shlex.quote(str(folder))
        raise UsageError(
            f"No id arrived. Type: millpond delete {place} ID ..., or: "
            f"millpond delete {place} --ids FILE"
        )
    use_asked_key(folder, ask_key)
    config = ChangeConfig(compact_share=compact_at)
    wanted = [*(doc_ids or ()), *(_read_ids(ids) if ids is not None else ())]
    started = time.monotonic()
    change = delete_documents(folder, wanted, config, ignore_missing=ignore_missing)
    report_change(change, folder, time.monotonic() - started)


def _read_ids(name: str) -> list[str]:
    """Return the ids of a file, one or more.

    Raises
    ------
    SourceNotFoundError : there is no such file.
    RecordError : a line is not UTF-8 or, in a .jsonl file, holds no id.
    EmptyCorpusError : it holds no id.
    StorageError : it cannot be read.
    """
    from retrieval.errors import EmptyCorpusError, SourceNotFoundError, UsageError

    path = None if name == "-" else Path(name)
    source = "stdin" if path is None else name
    if path is not None and not path.exists():
        raise SourceNotFoundError(
            f"{name}: there is no such file; accepted is a file of ids, one a line, or - for stdin."
        )
    if path is not None and path.is_dir():
        raise UsageError(f"{name}: this is a folder; accepted is a file of ids, one a line.")
    as_json = name.lower().endswith(JSON_SUFFIXES)
    found = [*(_json_ids(path, source) if as_json else _plain_ids(path, source))]
    if not found:
        raise EmptyCorpusError(
            f"{source}: it holds no id; accepted is one or more, one a line. Check that this is "
            f"the file you meant."
        )
    return found


def _plain_ids(path: Path | None, source: str) -> Iterator[str]:
    """Yield the lines that are not blank, without the blanks around them."""
    from retrieval.corpus.lines import open_bytes, read_lines
    from retrieval.errors import RecordError

    with open_bytes(path, source) as stream:
        for number, text, problem in read_lines(stream):
            if problem:
                raise RecordError(source, number, problem)
            if text.strip():
                yield text.strip()


def _json_ids(path: Path | None, source: str) -> Iterator[str]:
    from retrieval.corpus.lines import jsonl_rows
    from retrieval.errors import RecordError

    for row in jsonl_rows(path, source):
        if isinstance(row, RecordError):
            raise row
        yield _id_of(row)


def _id_of(row: Row) -> str:
    """Return the id of a record, as the corpus reader would."""
    name = next((name for name in ID_FIELDS if name in row.values), None)
    if name is None:
        raise row.error(f"no id; accepted is one of {', '.join(ID_FIELDS)}")
    value = row.values[name]
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise row.error(f"{name!r} is {value!r}; accepted is a string or an integer")
    return str(value)
