"""Searches an index by words: BM25 over titles and texts, in files of tantivy.

Found with tantivy 0.27, and relied on here:

- Opening writes a lock file beside the index. So a reader opens a temporary folder of links, which
  can go as soon as everything is mapped: the index folder stays as it is, and may be read-only.
- Damaged files make it panic, which arrives here as a ``PanicException``, no ``Exception``.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from indexes.search.ranking import Found
from indexes.search.selection import Selection
from indexes.storage.manifest import LEXICAL_NAME, Manifest
from retrieval.analysis import ANALYSER_VERSION, Analyser
from retrieval.errors import IndexCorruptError, StorageError
from retrieval.protocols import Floats, Mask, Rows

WORDS = "words"
ROW = "row"
K1, B = 1.2, 0.75
"""What tantivy computes BM25 with; it takes no others."""
REMOVALS = 20
EXTRA_CANDIDATES = 16
LANGUAGE, ANALYSER = "language", "analyser"
"""What a manifest states of an arm."""
FEW_ROWS = 1024
"""So many rows are scored one by one; more are picked out of all that match."""


class LexicalArm:
    """Ranks the rows of an index by BM25, k1 = 1.2 and b = 0.75.

    A score depends on the rows that were stored, deleted ones included until the index is
    compacted, and on nothing else: not on the order or the segments in which they were written.

    Parameters
    ----------
    files : what ``build.write_rows`` left.
    language : of the analyser that made the words.

    Raises
    ------
    IndexCorruptError : a file is missing or damaged.
    """

    def __init__(self, files: Sequence[Path], language: str) -> None:
        self._files = files
        self.language = language
        self._opened = _open_searcher(files)  # now: a writer may delete the files of an open index

    @cached_property
    def analyser(self) -> Analyser:
        """Turns texts into the words of this arm."""
        return Analyser(self.language)

    @property
    def holds_words(self) -> bool:
        """Whether any row has a word."""
        with _reading_arm(self._files[0].parent):
            _, searcher = self._opened
            return bool(searcher.terms_with_prefix(WORDS, "", limit=1))

    def search(self, text: str, k: int, selection: Selection) -> Found:
        """Return float32 scores and int64 rows (K,) of the k best rows that share a word.

        Best first, equal scores by row; fewer than k where fewer match.

        Parameters
        ----------
        selection : the rows that may be returned.

        Raises
        ------
        IndexCorruptError : a file of the arm is damaged.
        """
        return self.search_and_score(text, k, selection, np.zeros(0, np.int64))[0]

    def search_and_score(
        self, text: str, k: int, selection: Selection, rows: Rows
    ) -> tuple[Found, Floats]:
        """Return what ``search`` and ``score`` do, in less time than both; raises as they do."""
        with _reading_arm(self._files[0].parent):
            terms = self._terms(text)
            if not terms or not selection.count:
                nothing = np.zeros(0, np.float32), np.zeros(0, np.int64)
                return nothing, np.zeros(len(rows), np.float32)
            if selection.mask is not None and selection.count <= FEW_ROWS:
                among = np.flatnonzero(selection.mask)
                scores = self._scores(terms, np.concatenate([among, rows]))
                return _best(scores[: len(among)], among, k), scores[len(among) :]
            return self._search(terms, k, selection.mask, rows)

    def score(self, text: str, rows: Rows) -> Floats:
        """Return the BM25 of these rows, float32 (K,), 0 where no word matches; raises as search.

        The same numbers as ``search`` returns.
        """
        with _reading_arm(self._files[0].parent):
            terms = self._terms(text)
            if not terms:
                return np.zeros(len(rows), np.float32)
            return self._scores(terms, np.asarray(rows, np.int64))

    def matched(self, text: str, document: str) -> list[str]:
        """Return the words of a document, as they are written there, that the text asks for."""
        return self.analyser.matched(text, document)

    def _terms(self, text: str) -> list[Any]:
        """Return one query for each word of the text that a document holds."""
        import tantivy

        schema, searcher = self._opened
        make = tantivy.Query
        terms = []
        for word, count in Counter(self.analyser.query_tokens(text)).items():
            if searcher.doc_freq(WORDS, word):
                term = make.term_query(schema, WORDS, word, "freq")
                terms.append(make.boost_query(term, float(count)) if count > 1 else term)
        return terms

    def _search(
        self, terms: list[Any], k: int, mask: Mask | None, others: Rows
    ) -> tuple[Found, Floats]:
        """Ask for more rows until the k best that the mask lets through are certain."""
        total = self._opened[1].num_docs
        share = 1.0 if mask is None else max(1, int(np.count_nonzero(mask))) / len(mask)
        wanted = min(total, int((k + EXTRA_CANDIDATES) / share) + 1)
        query = _sum_of(terms)
        while True:
            scores, rows = self._collect(query, wanted)
            inside = slice(None) if mask is None else mask[rows]
            best = _best(scores[inside], rows[inside], k)
            every = len(rows) < wanted or wanted == total
            if every or (len(best[0]) == k and scores[-1] < best[0][-1]):
                break
            wanted = min(total, 4 * wanted)
        given, known = _look_up(others, rows, scores)
        if not every and not known.all():
            given[~known] = self._scores(terms, others[~known])
        return best, given

    def _collect(self, query: Any, wanted: int) -> Found:
        # As Lucene has it: without the constant k1 + 1, which tantivy multiplies by.
        _, searcher = self._opened
        hits = searcher.search(query, wanted, count=False).hits
        rows = searcher.fast_field_values(ROW, [place for _, place in hits])
        if None in rows:
            raise ValueError("a row number is missing")
        scores = np.fromiter((score for score, _ in hits), np.float32, len(hits))
        return scores / np.float32(K1 + 1), np.array(rows, np.int64)

    def _scores(self, terms: list[Any], rows: Rows) -> Floats:
        """Return the score of each row, added up in one order, whatever the engine would do."""
        import tantivy

        schema, searcher = self._opened
        make, occur = tantivy.Query, tantivy.Occur
        query, wanted = _sum_of(terms), searcher.num_docs
        if len(rows) <= FEW_ROWS:
            places = [make.term_query(schema, ROW, row) for row in rows.tolist()]
            chosen = make.const_score_query(_any_of(places), 0.0)
            query = make.boolean_query([(occur.Must, chosen), (occur.Should, query)])
            wanted = max(1, len(rows))
        scores, found = self._collect(query, wanted)
        return _look_up(rows, found, scores)[0]


def open_arm(folder: Path, manifest: Manifest) -> tuple[LexicalArm | None, str]:
    """Return the lexical arm of an index, if it has one, and why it cannot be searched, or ""."""
    if not manifest.lexical:
        return None, ""
    language, version = (manifest.lexical.get(name) for name in (LANGUAGE, ANALYSER))
    names = [entry.name for entry in manifest.lexical_files.values()]
    if version != ANALYSER_VERSION or not names:
        return None, (
            f"The lexical arm of {folder} was made by version {version} of the analyser, and this "
            f"millpond has {ANALYSER_VERSION}"
        )
    try:
        return LexicalArm([folder / name for name in names], str(language)), ""
    except IndexCorruptError as error:
        return None, _describe_damage(folder / LEXICAL_NAME, error.__cause__ or error)


def _any_of(queries: list[Any]) -> Any:
    import tantivy

    return tantivy.Query.boolean_query([(tantivy.Occur.Should, query) for query in queries])


def _sum_of(queries: list[Any]) -> Any:
    """Return a query whose score is the sum of others, added in pairs.

    Floats that are added in another order differ in the last digit, and an engine adds as it
    comes upon them. A sum of two has no order.
    """
    while len(queries) > 1:
        queries = [_any_of(queries[i : i + 2]) for i in range(0, len(queries), 2)]
    return queries[0]


def _look_up(rows: Rows, found: Rows, scores: Floats) -> tuple[Floats, Mask]:
    """Return the score of each row, 0 for one that was not found, and which were."""
    order = np.argsort(found)
    found, scores = np.append(found[order], -1), np.append(scores[order], np.float32(0))
    places = np.searchsorted(found[:-1], rows)
    known = found[places] == rows
    return np.where(known, scores[places], np.float32(0)), known


def _best(scores: Floats, rows: Rows, k: int) -> Found:
    """Return the k best of these rows whose score is above 0, equal scores by row."""
    matching = scores > 0
    scores, rows = scores[matching], rows[matching]
    order = np.lexsort((rows, -scores))[:k]
    return scores[order], rows[order]


def _open_searcher(files: Sequence[Path]) -> tuple[Any, Any]:
    """Return tantivy's schema and searcher of the arm that consists of these files.

    Raises
    ------
    IndexCorruptError : they are not what was written.
    StorageError : there is no room for temporary files.
    """
    import tantivy

    try:
        overlay = Path(tempfile.mkdtemp(prefix="millpond-lexical-"))
    except OSError as error:
        raise StorageError(
            f"{error.filename}: {error.strerror}. Name another place for temporary files in TMPDIR."
        ) from error
    try:
        for file in files:
            (overlay / file.name).symlink_to(file.resolve())
        with _reading_arm(files[0].parent):
            index = tantivy.Index.open(str(overlay))
            return index.schema, index.searcher()
    finally:
        for _ in range(REMOVALS):  # the engine's own thread may be making or removing a lock in it
            shutil.rmtree(overlay, ignore_errors=True)
            if not overlay.exists():
                break
            time.sleep(0.01)


@contextmanager
def _reading_arm(folder: Path) -> Iterator[None]:
    """Turn what damaged files make tantivy raise into IndexCorruptError."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, ValueError) and type(error).__name__ != "PanicException":
            raise
        raise IndexCorruptError(
            f"{_describe_damage(folder, error)}. Make it again with: "
            f"millpond reindex {shlex.quote(str(folder.parent))} --arms dense,lexical"
        ) from error


def _describe_damage(folder: Path, error: BaseException) -> str:
    """Return what a damaged arm made the engine say, as a clause."""
    return f"The lexical arm {folder} is damaged: {' '.join(str(error).split())}"
