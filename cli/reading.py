"""What index, add and update read: the options that name fields, and what is told of a corpus."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cli.console import message, warn
from cli.models import warn_skipped
from cli.options import OVERLAP, OVERLAP_SHARE, TOKENS, argument, option
from retrieval.errors import count_noun

if TYPE_CHECKING:
    from embedder.loading import LoadedEncoder
    from embedder.splitting import Coverage
    from indexes import Change, Manifest
    from retrieval import Corpus, Document
    from retrieval.corpus.values import StoredFiles

PANEL = "Fields, where they are not called id, title and text"
SAMPLE = 1000
SAMPLE_CHARACTERS = 1 << 24

CorpusArgument = Annotated[
    list[str],
    argument(
        "CORPUS",
        "A .jsonl, .csv, .tsv or .parquet file, a BEIR folder, files of text, Markdown, HTML, "
        "PDF, DOCX, EPUB, e-mail, notebooks or code, a folder of them, an address (https://, "
        "s3://, gs://, hf://datasets/OWNER/NAME), - for JSON lines on stdin, or python-stdlib "
        "(built in).",
    ),
]
IdOption = Annotated[
    str,
    option(
        "FIELD",
        "Holds the id; a.b leads into an object, @content makes one from each record.",
        "--id",
        panel=PANEL,
        shown="found by name",
    ),
]
TitleOption = Annotated[str, option("FIELD", "", "--title", panel=PANEL, shown="found by name")]
TextOption = Annotated[
    str,
    option(
        "FIELD[,FIELD]",
        "Holds the text; several are joined.",
        "--text",
        panel=PANEL,
        shown="found by name",
    ),
]
TemplateOption = Annotated[
    str,
    option(
        "TEMPLATE",
        "The text, with fields in braces: '{headline}: {body}'.",
        "--text-template",
        panel=PANEL,
        shown=False,
    ),
]
EncodingOption = Annotated[
    str,
    option(
        "NAME",
        "Of text files, such as windows-1252.",
        "--encoding",
        panel=PANEL,
        shown="UTF-8, or what the file is in",
    ),
]

SqlOption = Annotated[
    str,
    option(
        "QUERY",
        "CORPUS is a database: a file of SQLite or DuckDB, or postgresql://USER@HOST/DB. Its "
        "documents are what this SELECT finds.",
        "--sql",
        shown=False,
    ),
]


@dataclass(frozen=True)
class Fields:
    """The options that name fields, as they were typed."""

    id: str = ""
    title: str = ""
    text: str = ""
    text_template: str = ""
    encoding: str = ""
    sql: str = ""

    def read(
        self,
        corpus: list[str],
        *,
        skip_bad: bool,
        limit: int | None = None,
        manifest: Manifest | None = None,
    ) -> Corpus:
        """Return the documents of these sources, read as those that an index holds.

        What was typed comes before what the index was made with.
        """
        from retrieval.corpus import read_corpus

        return read_corpus(
            corpus[0] if len(corpus) == 1 else corpus,
            skip_bad=skip_bad,
            limit=limit,
            **vars(self),
            types=None if manifest is None else manifest.schema.type_names,
            earlier=None if manifest is None else manifest.layout or {},
        )


class Reading:
    """A corpus as it is read: counts documents, keeps samples, and tells what should be known.

    Parameters
    ----------
    source : read once.
    encoder, passages : what the documents are split for, and how.
    documents : the rest of the source, if its beginning was read; by default all of it.
    encoding : of text files, as it was typed.
    advice : what reads long documents whole; by default --passages.
    changes : whether only documents that ``count_embedded`` is told of are embedded.
    told : lines that need not be printed; afterwards those of this corpus.

    Attributes
    ----------
    count : the documents that have passed.
    question : a few words of the first document that has any.
    """

    def __init__(
        self,
        source: Corpus,
        encoder: LoadedEncoder,
        passages: Mapping[str, int],
        documents: Iterable[Document] | None = None,
        encoding: str = "",
        advice: str = "",
        changes: bool = False,
        told: set[str] | None = None,
    ) -> None:
        self._changes = changes
        self.count, self.question = 0, ""
        self._advice = advice
        self._source = source
        self._documents = source if documents is None else documents
        self._encoder = encoder
        self._encoding = encoding
        self._tokens = passages.get(TOKENS, 0)
        self._longest_title = -1  # an empty one is looked at too
        self._warned = not passages
        self._told = set() if told is None else told
        self._coverage: Coverage | None = None
        if not passages:
            from embedder.splitting import Coverage

            self._coverage = Coverage(encoder)

    def __iter__(self) -> Iterator[Document]:
        return self._look_at(self._documents)

    def since(self, files: StoredFiles) -> Iterator[Document]:
        """Iterate without the files that an index holds as they are now; see ``Corpus.since``."""
        return self._look_at(self._source.since(files))

    def _look_at(self, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            if self.count == 0:
                self.tell()
            self.count += 1
            self.question = self.question or find_question(document.title, document.text)
            if not self._changes:
                self.count_embedded(document)
            if not self._warned and len(document.title) > self._longest_title:
                self._longest_title = len(document.title)
                self._check(document)
            yield document

    @property
    def layout(self) -> Mapping[str, str]:
        """The fields that were named or guessed, and the encoding that was named."""
        named = {"encoding": self._encoding} if self._encoding else {}
        return {**self._source.layout, **named}

    @property
    def cut(self) -> Mapping[str, int]:
        """How many documents the model reads in part; empty where passages are embedded."""
        return self._coverage.to_json() if self._coverage else {}

    def count_embedded(self, document: Document) -> None:
        """Count a document as one that is embedded, whole or in part."""
        if self._coverage is not None:
            self._coverage.add(document.content)

    def tell(self) -> None:
        """Print what is known of the source and was not printed before."""
        for note in self._source.notes:
            if note not in self._told:
                self._told.add(note)
                message(note)

    def report(self, *, each_bad: bool = False) -> None:
        """Print what is known after the last document; ``each_bad`` for a line for a bad file."""
        self.tell()
        if each_bad:
            for line in self._source.first_skipped:
                if line not in self._told:
                    warn(f"{line}. What the index holds of it stays.")
            more = self._source.skipped - len(self._source.first_skipped)
            if more:
                warn(f"{more:,} more could not be read.")
        else:
            warn_skipped(self._source)
        self._told.clear()
        self._told.update(self._source.notes, self._source.first_skipped)
        warn_cut(self._coverage, advice=self._advice)

    def _check(self, document: Document) -> None:
        """Warn once if title, prompt and passage are more than the model reads."""
        from embedder.splitting import tokens_beside, tokens_read

        beside = tokens_beside(self._encoder, document.title)
        longest = tokens_read(self._encoder)
        if beside + self._tokens <= longest:
            return
        self._warned = True
        what = f"the title of {document.doc_id!r}" if document.title else "the end of a text"
        room = longest - beside
        advice = f"Type --passages {room} or less" if room > 0 else "Shorten the title"
        warn(
            f"The model reads {longest} tokens. {beside} of them are taken by {what} and the "
            f"model's prompt, so the end of passages of {self._tokens} tokens is not read. "
            f"{advice}, or choose a model with a larger max_tokens."
        )


def warn_cut(coverage: Coverage | None, noun: str = "document", advice: str = "") -> None:
    """Warn of texts whose end the model does not read, if there are any."""
    if coverage is None or not coverage.cut:
        return

    advice = advice or f"--passages {coverage.passage_tokens} embeds all of each"
    are = count_noun(coverage.texts, noun) + (" is" if coverage.cut == 1 else " are")
    share = f"{coverage.unread_share:.0%}" if coverage.unread_share >= 0.01 else "less than 1%"
    warn(
        f"{coverage.cut:,} of {are} longer than the model reads, and {share} "
        f"of all tokens were not read: {advice}."
    )


def decide_passages(
    source: Corpus, encoder: LoadedEncoder, whole: bool
) -> tuple[dict[str, int], Iterable[Document]]:
    """Return how to cut documents where the user left it open, and all documents.

    Passages are the default if more than a tenth of the first 1,000 documents are longer than the
    model reads; a line says so. ``source`` is read from its beginning.
    """
    if whole:
        return {}, source
    from embedder.splitting import Coverage

    documents = iter(source)
    sample: list[Document] = []
    characters = 0
    for document in islice(documents, SAMPLE):
        sample.append(document)
        characters += len(document.text)
        if characters > SAMPLE_CHARACTERS:
            break
    found = Coverage(encoder).add_all(sample)
    everything = chain(sample, documents)
    if not found.wants_passages:
        return {}, everything
    tokens = found.passage_tokens
    first = "the" if len(sample) < SAMPLE else "the first"
    texts = count_noun(found.texts, "document") + (" is" if found.cut == 1 else " are")
    message(
        f"Passages of at most {tokens} tokens are embedded, since {found.cut:,} of {first} "
        f"{texts} longer than the model reads. Type --whole to embed only "
        f"the beginning of each."
    )
    return {TOKENS: tokens, OVERLAP: tokens // OVERLAP_SHARE}, everything


def warn_changed_types(before: Manifest, change: Change, folder: Path) -> None:
    """Warn of every field whose type another one of the new documents changed."""
    old, new = before.schema.types, change.manifest.schema.types
    for name, kind in old.items():
        now = new.get(name)
        gone = not set(change.manifest.fields.get(name, ())) - {"null"}
        if gone or now == kind or (now is not None and str(kind) == "int" and str(now) == "float"):
            continue
        kinds = ", ".join(sorted(set(change.manifest.fields[name]) - {"null"}))
        result = f"it is {now} now" if now is not None else "it can no longer be filtered"
        warn(
            f"The field {name!r} was {kind} in {folder}, and the new documents hold other values "
            f"({kinds}): {result}. Correct them, and type: millpond update "
            f"{shlex.quote(str(folder))} CORPUS"
        )


WORDS = 6


def find_question(title: str, text: str) -> str:
    """Return a few words of a document, to search for; "" if it has none."""
    line: Any = next((part for part in (title, *text.splitlines()) if part.strip(" #=-*")), "")
    words = [word.strip("\"'`$\\!#*=-<>|") for word in line.split()]
    return " ".join([word for word in words if word][:WORDS])
