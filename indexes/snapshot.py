"""An index as it was when it was opened: what searches read, whatever stores its vectors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from indexes.backends.backend import Backend, OpenRequest, SearchEngine
from indexes.backends.registry import BACKENDS
from indexes.lexical.arm import LexicalArm, open_arm
from indexes.search.ranking import ExactScan, Found, make_hits, rank
from indexes.search.selection import RowTable, Selection
from indexes.storage.documents import DocumentStore
from indexes.storage.files import damaged, find_fault, refuse_links
from indexes.storage.manifest import Manifest, read_manifest
from indexes.storage.vectors import Shards, read_array
from retrieval import Hit, Vectors
from retrieval.errors import IndexCorruptError
from retrieval.protocols import Rows

__all__ = ["Snapshot", "damaged", "find_damage", "read_row_numbers", "verify_files"]

SMALL_SELECTION = 4096
"""With so few rows, comparing all of them is as fast as asking a graph or lists."""
PASSAGES_PER_HIT = 4
SMALL_ROLES = ("fields", "deleted", "blank")
"""The files that are checked at every open: one flipped bit there hides or shows documents."""


@dataclass(eq=False)
class Snapshot:
    """Finds candidates with an engine and scores them with the vectors in the folder.

    Writers replace files and never change them, so a snapshot stays what it was. Where the engine
    is exact, hits, scores and order do not depend on it. Otherwise it chooses the candidates;
    their scores are exact all the same.

    Attributes
    ----------
    engine : what the backend opened.
    stored, documents, rows : the same rows in the same order.
    lexical : the lexical arm; None where there is none, or where it is damaged.
    lexical_fault : what is wrong with the arm, as a clause; "" if nothing is.
    """

    manifest: Manifest
    engine: SearchEngine
    stored: Shards
    documents: DocumentStore
    rows: RowTable
    lexical: LexicalArm | None = None
    lexical_fault: str = ""

    @property
    def exact(self) -> bool:
        """Whether the engine compares every vector."""
        return self.engine.exact

    @classmethod
    def open(cls, folder: Path, *, checksums: bool = False) -> Snapshot:
        """Return the index in ``folder``, ready to search.

        Sizes, counts and the checksums of small files and of the engines' own are compared, and
        with ``checksums`` those of every file. No link in the folder is followed.

        Raises
        ------
        SourceNotFoundError : there is no such folder, or it holds no index.
        IndexCorruptError : the build was interrupted, or a file is missing or damaged.
        UsageError : a newer millpond wrote the index.
        UnknownNameError : this millpond has no such backend.
        MissingDependencyError : the backend's library is not installed.
        """
        manifest = read_manifest(folder)
        while True:
            # A writer may replace the index after the manifest was read.
            try:
                snapshot = cls._open_checked(folder, manifest, checksums)
            except IndexCorruptError:
                newer = read_manifest(folder)
                if newer == manifest:
                    raise
            else:
                newer = read_manifest(folder) if snapshot.lexical_fault else manifest
                if newer == manifest:
                    return snapshot
            manifest = newer

    @classmethod
    def _open_checked(cls, folder: Path, manifest: Manifest, checksums: bool) -> Snapshot:
        backend = BACKENDS[manifest.backend]
        for role in ("documents/00000", "vectors/00000", *backend.files):
            if role not in manifest.files:
                raise damaged(folder, f"its manifest lists no file for {role!r}")
        lexical_fault = ""
        shards, lexical = manifest.shard_files, manifest.lexical_files
        for role, entry in manifest.files.items():  # before an engine sees a damaged file
            whole = checksums or role in SMALL_ROLES
            # Blocks of shards are compared when they are read.
            fault = find_fault(folder, entry, checksum=whole, blocks=role not in shards)
            if fault and role in lexical and not checksums:
                lexical_fault = f"{folder / entry.name} is damaged: {fault}"
            elif fault:
                raise damaged(folder / entry.name, fault)
        tops = {entry.name.partition("/")[0] for entry in manifest.files.values()}
        for top in tops:  # an engine may open, and write, what is beside the listed files
            refuse_links((folder / top).rglob("*"))
        return cls.of(folder, manifest, backend, lexical_fault)

    @classmethod
    def of(
        cls, folder: Path, manifest: Manifest, backend: Backend, lexical_fault: str = ""
    ) -> Snapshot:
        """Return the index that ``manifest`` describes, whether or not it is published.

        Raises
        ------
        IndexCorruptError : a file cannot be read, or the files and the manifest disagree.
        MissingDependencyError : the backend's library is not installed.
        """
        documents = DocumentStore(manifest.shards(folder, "documents"))
        stored = Shards(manifest.shards(folder, "vectors"), manifest.dimension)
        fields = manifest.place(folder, "fields") if "fields" in manifest.files else None
        deleted, blank = (read_row_numbers(folder, manifest, role) for role in ("deleted", "blank"))
        stated = (manifest.rows, manifest.rows, manifest.documents)
        if (len(stored), len(documents), manifest.rows - len(deleted)) != stated:
            raise IndexCorruptError(
                f"{folder} is inconsistent: {len(stored)} vectors and {len(documents)} documents "
                f"with {len(deleted)} deleted, but the manifest states {manifest.rows} with "
                f"{manifest.rows - manifest.documents} deleted. "
                "Index the corpus again with --overwrite."
            )
        rows = RowTable(manifest, fields, deleted, blank)
        found = rows.meaningful.mask
        engine = backend.open(OpenRequest(folder, manifest, stored, documents, found))
        lexical, fault = (None, lexical_fault) if lexical_fault else open_arm(folder, manifest)
        return cls(manifest, engine, stored, documents, rows, lexical, fault)

    def as_exact(self) -> Snapshot:
        """Return the same index, searched by comparing every vector, to measure recall against."""
        return replace(self, engine=SearchEngine(self.engine.candidates, exact=True))

    def search(
        self,
        queries: Vectors,
        k: int,
        *,
        with_text: bool = True,
        selection: Selection | None = None,
    ) -> list[list[Hit]]:
        """Return at most k hits of a selection per row of ``queries`` (Q, D), k at least 1.

        No blank document is among them. Of passages, more are asked for until they belong to k
        documents.
        """
        chosen = selection or self.rows.everything
        passages = bool(self.manifest.passages)
        hits: dict[int, list[Hit]] = {}
        pending = list(range(len(queries)))
        wanted = min(PASSAGES_PER_HIT * k if passages else k, chosen.count)
        while pending:
            asked = queries if len(pending) == len(queries) else queries[pending]
            found = self.find(asked, wanted, chosen)
            answers = make_hits(found, self.documents, k, with_text=with_text, passages=passages)
            hits.update(zip(pending, answers, strict=True))
            if wanted == chosen.count:
                break
            pending = [
                query
                for query, (_, rows) in zip(pending, found, strict=True)
                if len(hits[query]) < k and wanted <= len(rows)
            ]
            wanted = min(PASSAGES_PER_HIT * wanted, chosen.count)
        return [hits[query] for query in range(len(queries))]

    def find(self, queries: Vectors, k: int, selection: Selection | None = None) -> list[Found]:
        """Return, per query, scores and rows of the k best and of all that tie with the kth.

        All rows of the selection that are not blank where there are no more than k; by default it
        is all that can be found. Where an approximate index gives fewer, every vector is compared.

        Raises
        ------
        IndexCorruptError : a vector that should have length 1 is longer.
        """
        chosen = self.rows.narrow(selection or self.rows.everything)
        k = min(k, chosen.count)
        scan = ExactScan(self.stored)
        small = chosen.mask is not None and chosen.count <= max(SMALL_SELECTION, 4 * k)
        if not self.exact and small:
            found = rank(scan, self.stored, queries, k, exact=True, selection=chosen)
        else:
            found = rank(
                self.engine.candidates,
                self.stored,
                queries,
                k,
                exact=self.exact,
                selection=chosen,
                unit=self.manifest.fingerprint.settings.get("normalize") is True,
                float_scores=self.engine.float_scores,
            )
        # Lists may hold too few, and a graph loses its way among rows that may not be returned.
        short = [number for number, (_, rows) in enumerate(found) if len(rows) < k]
        if short:
            again = rank(scan, self.stored, queries[short], k, exact=True, selection=chosen)
            for number, better in zip(short, again, strict=True):
                found[number] = better
        return found


def find_damage(folder: Path, manifest: Manifest, *roles: str) -> dict[str, str]:
    """Return what is wrong with each file that is not what the manifest lists, by file name.

    Reads every file, or those whose roles begin with one of ``roles``. Opens none: an engine may
    never return from a damaged one.
    """
    chosen = [entry for role, entry in manifest.files.items() if role.startswith(roles or "")]
    found = {entry.name: find_fault(folder, entry, checksum=True) for entry in chosen}
    return {name: fault for name, fault in found.items() if fault}


def verify_files(folder: Path, manifest: Manifest, *roles: str) -> None:
    """Compare the checksums of all files, or of those whose roles begin with one of ``roles``.

    What is copied or extended gets a new checksum, so the old one is compared before.

    Raises
    ------
    IndexCorruptError : a file is missing or is not what was written.
    """
    for name, fault in find_damage(folder, manifest, *roles).items():
        raise damaged(folder / name, fault)


def read_row_numbers(folder: Path, manifest: Manifest, role: str) -> Rows:
    """Return the rows int64, rising, in the file of a role, "deleted" or "blank"; none without.

    Raises
    ------
    IndexCorruptError : the file holds anything else.
    """
    if role not in manifest.files:
        return np.zeros(0, np.int64)
    path = manifest.place(folder, role)
    try:
        rows = read_array(path)
        fits = rows.dtype == np.int64 and rows.ndim == 1 and bool((np.diff(rows) > 0).all())
        if not fits or (len(rows) and not 0 <= rows[0] <= rows[-1] < manifest.rows):
            raise ValueError("it is not a rising list of row numbers")
    except ValueError as error:
        raise damaged(path, error) from error
    return rows
