"""``millpond add``, ``update`` and ``delete``: an index changes."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial, wraps
from inspect import Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cli.console import message, progress
from cli.models import ReportingEncoder, load_splitter, note_untrained, report_change
from cli.options import (
    DeviceOption,
    FolderArgument,
    IndexModelOption,
    IndexSpeedOption,
    RestartOption,
    SkipBadOption,
    TrustOption,
    argument,
    flag,
    option,
)
from cli.reading import (
    CorpusArgument,
    EncodingOption,
    Fields,
    IdOption,
    Reading,
    SqlOption,
    TemplateOption,
    TextOption,
    TitleOption,
    warn_changed_types,
)
from cli.store import StoredKeyOption, StoredUrlOption, use_stored_server
from embedder.environment import keep_freed_memory
from retrieval.errors import (
    EmptyCorpusError,
    FingerprintError,
    RecordError,
    SourceNotFoundError,
    UsageError,
    count_noun,
)

if TYPE_CHECKING:
    from embedder.loading import LoadedEncoder
    from indexes import Change, Manifest
    from retrieval import Corpus

COMPACT_SHARE = 0.25
"""What --help shows; a test holds it equal to ``IndexConfig.compact_share``."""

CompactAtOption = Annotated[
    float,
    option(
        "SHARE",
        "Remove deleted rows from disk when they exceed this share of all rows, 0 to 1.",
        "--compact-at",
        min=0,
        max=1,
    ),
]

Carry: TypeAlias = "Callable[..., Change]"
"""``Index.add`` or ``Index.update``, with the arguments that it alone takes."""


@dataclass(frozen=True)
class Embedding:
    """An add or update as it was typed: the fields are the options of both commands."""

    folder: FolderArgument
    corpus: CorpusArgument
    delete_missing: Annotated[
        bool, flag("--delete-missing", "Also delete every document that is not in CORPUS.")
    ] = False
    watch: Annotated[
        bool,
        flag(
            "--watch",
            "Stay, and do it again whenever files of the folder change, until Ctrl-C. Files "
            "that cannot be read are named and skipped.",
        ),
    ] = False
    model: IndexModelOption = None
    skip_bad: SkipBadOption = False
    doc_id: IdOption = ""
    title: TitleOption = ""
    text: TextOption = ""
    text_template: TemplateOption = ""
    encoding: EncodingOption = ""
    sql: SqlOption = ""
    restart: RestartOption = False
    compact_at: CompactAtOption = COMPACT_SHARE
    device: DeviceOption = None
    speed: IndexSpeedOption = None
    trust_remote_code: TrustOption = False
    url: StoredUrlOption = None
    ask_key: StoredKeyOption = False

    def read(self, manifest: Manifest) -> Corpus:
        """Return the corpus, read as the one that the index was made of.

        Raises
        ------
        UsageError : documents whose records are skipped would be deleted, or what is to be watched
            is no folder of documents.
        """
        skip_bad = self.skip_bad or self.watch
        fields = Fields(
            self.doc_id, self.title, self.text, self.text_template, self.encoding, self.sql
        )
        found = fields.read(self.corpus, skip_bad=skip_bad, manifest=manifest)
        if self.watch and not (found.only_files and all(Path(c).is_dir() for c in self.corpus)):
            raise UsageError(
                f"--watch follows folders of documents, and {found.name} is something else. Leave "
                "it out, or name a folder."
            )
        if self.delete_missing and self.skip_bad and not found.only_files:
            raise UsageError(
                "--delete-missing would delete the documents whose records --skip-bad skips. Leave "
                "one of them out."
            )
        return found


def embed_change(asked: Embedding, carry: Carry) -> None:
    """Read the corpus, load the model of the index, change the index, report what was done.

    Everything that can be checked without the model is checked before it is loaded.
    """
    from cli.changing import check_folders, check_watching, watch
    from embedder.loading import load_for_index
    from indexes import read_manifest

    if asked.watch:
        check_watching()
    use_stored_server(asked.folder, asked.url, asked.ask_key)
    manifest = read_manifest(asked.folder)
    source = asked.read(manifest)
    if asked.watch and asked.delete_missing:
        check_folders(manifest, asked.corpus)
    if "-" not in asked.corpus:
        next(iter(source), None)  # an empty or wholly unreadable corpus shows here
    made = manifest.fingerprint
    keep_freed_memory()
    encoder = load_for_index(
        made,
        asked.model,
        asked.speed,
        asked.device,
        where=str(asked.folder),
        notify=message,
        trust_remote_code=asked.trust_remote_code,
    )
    _check_model(asked, manifest, encoder)
    told: set[str] = set()
    _carry_out(asked, carry, source, encoder, told)
    note_untrained(encoder)
    if not asked.watch:
        return
    if not asked.delete_missing:
        message("Documents of files that go away stay in the index; --delete-missing deletes them.")
    rounds = replace(asked, restart=True)  # what an earlier round left is of other files

    def again(label: str) -> None:
        source = rounds.read(read_manifest(asked.folder))
        _carry_out(rounds, carry, source, encoder, told, label)

    watch(asked.folder, asked.corpus, again)


def _carry_out(
    asked: Embedding,
    carry: Carry,
    source: Corpus,
    encoder: LoadedEncoder,
    told: set[str],
    label: str | None = None,
) -> None:
    """Change the index and report what was done, in one line that begins with ``label``.

    With a label, a round that changed nothing is not reported. ``told`` are lines that were printed
    in the round before, and need not be again.
    """
    from indexes import Index, IndexConfig, read_manifest

    manifest = read_manifest(asked.folder)
    config = IndexConfig(
        corpus_name=source.name,
        reading={"skip_bad": asked.skip_bad or asked.watch},
        restart=asked.restart,
        compact_share=asked.compact_at,
    )
    split = load_splitter(encoder, manifest.passages)
    noun = "passage" if split else "document"
    started = time.monotonic()
    with progress("Embedding", None, f"{noun}s") as advance:
        encoding = asked.encoding or (manifest.layout or {}).get("encoding", "")
        advice = "index the corpus again with --passages N to embed all of each"
        reading = Reading(
            source,
            encoder,
            manifest.passages,
            encoding=encoding,
            advice=advice,
            changes=True,
            told=told,
        )
        change = carry(
            Index.open(asked.folder, ReportingEncoder(encoder, advance)),
            reading,
            config,
            split=split,
            resumed=lambda rows: message(
                f"Continuing: {count_noun(rows, f'{noun} was', f'{noun}s were')} stored before."
            ),
        )
    if label is None or change.count:
        report_change(change, asked.folder, time.monotonic() - started, label or "")
    reading.report(each_bad=asked.watch)
    warn_changed_types(manifest, change, asked.folder)


def _check_model(asked: Embedding, manifest: Manifest, encoder: LoadedEncoder) -> None:
    """Raise FingerprintError unless this model made the index."""
    made, found = manifest.fingerprint, encoder.fingerprint
    if made.digest == found.digest:
        return
    advice = f"Leave --model out, or type --model {made.model}"
    if asked.model is None:
        advice = f"{made.model!r} has changed since; bring the old one back"
    raise FingerprintError(
        f"{asked.folder} was made with {made.model!r}, and {found.model!r} makes other vectors: "
        f"{'; '.join(made.differences(found))}. {advice}, or index the corpus again."
    )


def as_typed(*left_out: str) -> Callable[[Callable[[Embedding], None]], Callable[..., None]]:
    """Make commands of functions of an ``Embedding``, whose fields are the options, but some."""

    def decorate(run: Callable[[Embedding], None]) -> Callable[..., None]:
        @wraps(run)
        def command(**typed: Any) -> None:
            run(Embedding(**typed))

        parameters = signature(Embedding, eval_str=True).parameters.values()
        kept = [one for one in parameters if one.name not in left_out]
        command.__signature__ = Signature(kept)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in kept}
        return command

    return decorate


@as_typed("delete_missing", "watch")
def add(asked: Embedding) -> None:
    """Add new documents to an index.

    Documents are identified by id. One that the index already holds with the same text and metadata
    is left alone; one with other text or metadata is an error, and nothing is added: see millpond
    update. Readers see the whole change or none of it. If a run is killed, the same command
    continues from what it had embedded.

    \b
    Examples:
      millpond add my-index new.jsonl
      cat new.jsonl | millpond add my-index -
    """
    from indexes import Index

    embed_change(asked, Index.add)


@as_typed()
def update(asked: Embedding) -> None:
    """Add new documents and replace changed ones.

    Documents are identified by id. One whose text is unchanged is not embedded again; if only its
    metadata changed, it is relabelled and keeps its vector. Files whose time and size are those of
    the index are not even read. Readers see the whole change or none of it. If a run is killed, the
    same command continues from what it had embedded.

    \b
    Examples:
      millpond update my-index changed.jsonl
      millpond update my-index corpus.jsonl --delete-missing
      millpond update my-index notes --watch --delete-missing
    """
    from indexes import Index

    embed_change(asked, partial(Index.update, delete_missing=asked.delete_missing))


JSON_SUFFIXES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")


def delete(
    folder: FolderArgument,
    doc_ids: Annotated[list[str] | None, argument("ID", "Ids of documents.")] = None,
    ids: Annotated[
        str | None,
        option(
            "FILE",
            "A file with one id per line, or a .jsonl file of records as the index "
            "was made from; - for lines on stdin.",
            "--ids",
        ),
    ] = None,
    where: Annotated[
        str | None,
        option(
            "FILTER",
            "Delete every document whose fields match, or those of one of its passages, as "
            "'millpond search' reads a filter.",
            "--filter",
        ),
    ] = None,
    ignore_missing: Annotated[
        bool, flag("--ignore-missing", "Skip unknown ids and count them.")
    ] = False,
    compact_at: CompactAtOption = COMPACT_SHARE,
    url: StoredUrlOption = None,
    ask_key: StoredKeyOption = False,
) -> None:
    """Delete documents from an index, by id or by a filter.

    No model is loaded. Readers see the whole change or none of it. Put ids that begin with a dash
    after --.

    \b
    Examples:
      millpond delete my-index doc-17 doc-18
      millpond delete my-index --ids gone.txt --ignore-missing
      millpond delete my-index --filter 'year < 2000'
    """
    from indexes import Index, IndexConfig
    from retrieval.filters import parse_filter

    if not doc_ids and ids is None and where is None:
        place = shlex.quote(str(folder))
        raise UsageError(
            f"No ids were given. Type: millpond delete {place} ID ..., or: "
            f"millpond delete {place} --ids FILE, or: millpond delete {place} --filter FILTER"
        )
    use_stored_server(folder, url, ask_key)
    config = IndexConfig(compact_share=compact_at)
    chosen = None if where is None else parse_filter(where)
    wanted = [*(doc_ids or ()), *(_read_ids(ids, folder) if ids is not None else ())]
    started = time.monotonic()
    change = Index.open(folder).delete(wanted, config, where=chosen, ignore_missing=ignore_missing)
    report_change(change, folder, time.monotonic() - started)


def _read_ids(name: str, folder: Path) -> list[str]:
    """Return the ids of a file, one or more; of records, as the index reads them.

    Raises
    ------
    SourceNotFoundError : there is no such file.
    RecordError : a line is not UTF-8 or, in a .jsonl file, holds no id.
    EmptyCorpusError : it holds no id.
    StorageError : it cannot be read.
    """
    path = None if name == "-" else Path(name)
    source = "stdin" if path is None else name
    if path is not None and not path.exists():
        raise SourceNotFoundError(
            f"{name}: there is no such file; expected a file with one id per line, or - for stdin."
        )
    if path is not None and path.is_dir():
        raise UsageError(f"{name}: this is a folder; expected a file with one id per line.")
    as_json = name.lower().endswith(JSON_SUFFIXES)
    found = [*(_json_ids(path, source, folder) if as_json else _plain_ids(path, source))]
    if not found:
        raise EmptyCorpusError(
            f"{source}: it holds no id; expected one or more, one per line. Check that "
            f"this is the file you meant."
        )
    return found


def _plain_ids(path: Path | None, source: str) -> Iterator[str]:
    """Yield the lines that are not blank, without the blanks around them."""
    from retrieval.corpus.lines import open_bytes, read_lines

    with open_bytes(path, source) as stream:
        for number, text, problem in read_lines(stream):
            if problem:
                raise RecordError(source, number, problem)
            if text.strip():
                yield text.strip()


def _json_ids(path: Path | None, source: str, folder: Path) -> Iterator[str]:
    from indexes.storage.manifest import read_manifest
    from retrieval.corpus.lines import jsonl_rows
    from retrieval.corpus.records import read_id
    from retrieval.corpus.roles import CONTENT, look_up
    from retrieval.corpus.values import read_identifier

    field = (read_manifest(folder).layout or {}).get("id", "")
    if field == CONTENT:
        raise UsageError(
            f"The ids of {folder} were made from the content of its records. Give a file with one "
            "id per line, as search --json prints them."
        )

    for row in jsonl_rows(path, source):
        if isinstance(row, RecordError):
            raise row
        if not field:
            yield read_id(row)
            continue
        there, value = look_up(row.values, field)
        if not there:
            raise row.error(f"there is no field {field!r}, which holds the ids of {folder}")
        yield read_identifier(row, field, value)
