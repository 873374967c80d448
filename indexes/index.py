"""The index: a folder of documents and vectors that is searched, and changed by transactions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Self

from indexes.backends.backend import Backend
from indexes.build import compact, rebuild, retarget
from indexes.changes import Change, Merge, check_fit, delete_rows, find_ids
from indexes.search.hybrid import Part
from indexes.search.ids import IdLookup, read_ids
from indexes.search.modes import Searchable
from indexes.search.selection import Where
from indexes.snapshot import Snapshot
from indexes.storage.manifest import BUILDING_NAME, Manifest
from indexes.storage.staging import has_finished_shards
from indexes.transaction import Transaction, begin
from indexes.writing import Engine, IndexConfig, Source, create_index, read_source
from retrieval import Document, Encoder, Fingerprint, Progress, Vectors, check_fingerprints
from retrieval.errors import MillpondError, UsageError, check_type
from retrieval.passages import Splitter
from retrieval.protocols import check_encoder, no_progress
from retrieval.types import Blend


class Index(Searchable):
    """An index folder, opened; a ``VectorIndex``. Made by ``Index.create`` and ``Index.open``.

    An open index stays what it is while other processes change the folder. A change made with it
    starts from the newest state, and the object shows what came of it.

    Parameters
    ----------
    folder : where the index is.
    state : the index as it was opened, or the manifest of what has not been opened yet.
    encoder : turns texts into vectors; see ``Index.open``.
    """

    def __init__(
        self, folder: Path, state: Snapshot | Manifest, encoder: Encoder | None = None
    ) -> None:
        self.folder = folder
        self.encoder = encoder
        self._state = state
        self._lookup: tuple[Snapshot, IdLookup] | None = None

    @classmethod
    def create(
        cls,
        path: Path | str,
        encoder: Encoder,
        corpus: Source,
        config: IndexConfig | None = None,
        *,
        store: Backend | None = None,
        engine: Engine | None = None,
        split: Splitter | None = None,
        skipped: Callable[[], int] = lambda: 0,
        progress: Progress = no_progress,
        resumed: Progress = no_progress,
    ) -> Self:
        """Encode a corpus, write the index folder ``path`` and return the index.

        Until the last step, one rename, readers find what was there before: nothing, or the
        earlier index. What was embedded survives an error, Ctrl-C and a kill in finished shards;
        the same call goes on from the last of them and ends with the same ids and vectors as one
        that was never broken off.

        Parameters
        ----------
        path : the index folder, made if missing.
        encoder : its ``dimension`` and ``fingerprint`` go into the manifest.
        corpus : see ``Source``; read once, a chunk at a time.
        config : the defaults of ``IndexConfig`` where None.
        store : a backend with options of its own, such as the server of
            ``indexes.backends.qdrant``; by default the one that the config names.
        engine : what runs the encoder; by default this thread, one chunk after the other.
        split : cuts each text into passages, which are embedded one by one; a search returns the
            document of the best passage, with that passage's text.
        skipped : called after the last document; returns how many records the reader left out.
        progress : called after each chunk with the number of documents in it.
        resumed : called once with the number of documents that an earlier run had embedded, if
            any.

        Raises
        ------
        IndexExistsError : ``path`` holds an index and ``overwrite`` is false.
        UsageError : ``path`` is something else, the factory cannot be built, or the corpus, the
            model or the reading is another one than an unfinished run had.
        EmptyCorpusError : there was no document.
        DuplicateIdError, RecordError : two documents share an id, or one cannot be stored.
        MissingDependencyError : the backend's library is not installed.
        VectorError : the encoder returned a wrong shape or dtype, NaN or infinity.
        StorageError : the disk is full or not writable, or another process writes this index.
        """
        folder = _folder(path)
        check_encoder(encoder)
        documents, chosen = read_source(corpus, config)
        manifest = create_index(
            folder,
            encoder,
            documents,
            chosen,
            store=store,
            engine=engine,
            split=split,
            skipped=skipped,
            progress=progress,
            resumed=resumed,
        )
        return cls(folder, manifest, encoder)

    @classmethod
    def open(
        cls, path: Path | str, encoder: Encoder | None = None, *, checksums: bool = False
    ) -> Self:
        """Return the index in folder ``path``, ready to search.

        Parameters
        ----------
        encoder : the model that made the index, to search for texts and to add documents; not
            needed for vectors and deletions.
        checksums : read every file and compare its checksum before the engine opens any;
            otherwise only sizes and counts are checked.

        Raises
        ------
        SourceNotFoundError : there is no such folder, or it holds no index.
        IndexCorruptError : the build was interrupted, or a file is missing or damaged.
        FingerprintError : another model made the index.
        UsageError : a newer millpond wrote the index, or one with another backend.
        MissingDependencyError : the backend's library is not installed.
        """
        folder = _folder(path)
        snapshot = Snapshot.open(folder, checksums=checksums)
        if encoder is not None:
            check_encoder(encoder)
            check_fingerprints(snapshot.manifest.fingerprint, encoder.fingerprint)
        return cls(folder, snapshot, encoder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files; they are opened again when they are needed."""
        self._state = self.manifest
        self._lookup = None

    @property
    def snapshot(self) -> Snapshot:
        """The state that is searched; opened when it is first needed after a change."""
        if isinstance(self._state, Manifest):
            self._state = Snapshot.open(self.folder)
        return self._state

    @property
    def manifest(self) -> Manifest:
        """What is known of the index: model, backend, counts, files."""
        return self._state if isinstance(self._state, Manifest) else self._state.manifest

    @property
    def dimension(self) -> int:
        """D, the length of every stored vector."""
        return self.manifest.dimension

    @property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint of the encoder that made the stored vectors."""
        return self.manifest.fingerprint

    def __len__(self) -> int:
        """Return how many documents, or passages, can be found."""
        return self.manifest.documents

    @property
    def parts(self) -> list[Part]:
        """This index alone, with all of its rows."""
        return [Part.of("", self.folder, self.snapshot)]

    def _encode(self, texts: Sequence[str]) -> Vectors:
        return self._needed_encoder().encode_queries(texts)

    def fetch(self, doc_ids: Iterable[str]) -> dict[str, Document]:
        """Return the stored documents with these ids, by id; ids that are not there are left out.

        A document that was cut into passages is put together again. The first call reads every
        id of the index.
        """
        snapshot = self.snapshot
        if self._lookup is None or self._lookup[0] is not snapshot:
            self._lookup = (snapshot, IdLookup(snapshot))
        return self._lookup[1].fetch(read_ids(doc_ids))

    def add(
        self,
        corpus: Source,
        config: IndexConfig | None = None,
        *,
        split: Splitter | None = None,
        progress: Progress = no_progress,
        resumed: Progress = no_progress,
    ) -> Change:
        """Add documents whose ids the index does not hold, and say what was done.

        A document that is stored already, with the same text and metadata, is left alone. Only
        new documents are embedded, by the encoder that the index was opened with.

        Parameters
        ----------
        corpus : see ``Source``.
        config : how the corpus is read and embedded; see ``IndexConfig``.
        split : what cut the documents of this index into passages, if it was cut.
        progress : called with the number of documents read since the last call.
        resumed : called once with the number of documents, or passages, that an earlier run of
            the same change had stored, if any.

        Raises
        ------
        UsageError : a document is stored with another text or other metadata (``update``
            replaces it); the index was opened without an encoder; the index is cut into passages
            and ``split`` is None, or the other way round.
        SourceNotFoundError, IndexCorruptError, StorageError, RecordError, DuplicateIdError,
        VectorError : as ``Index.create`` and ``Index.open``.
        """
        return self._merge(corpus, config, split, progress, resumed)

    def update(
        self,
        corpus: Source,
        config: IndexConfig | None = None,
        *,
        delete_missing: bool = False,
        split: Splitter | None = None,
        progress: Progress = no_progress,
        resumed: Progress = no_progress,
    ) -> Change:
        """Add new documents and replace those that differ, and say what was done.

        Where only metadata differs, the stored vector is kept: nothing is embedded whose title
        and text are stored under its id already. With ``delete_missing`` the index holds these
        documents and no others afterwards. Parameters and errors as ``add``.
        """
        return self._merge(
            corpus, config, split, progress, resumed, replaces=True, missing=delete_missing
        )

    def delete(
        self,
        doc_ids: Iterable[str] = (),
        config: IndexConfig | None = None,
        *,
        where: Where = None,
        ignore_missing: bool = False,
    ) -> Change:
        """Delete documents by id, and those that a filter lets through, and say what was done.

        Raises
        ------
        UsageError : an id is not in the index and ``ignore_missing`` is false, no document would
            be left, or the filter does not fit the index.
        UnknownNameError : the filter names a field that no document has.
        SourceNotFoundError, IndexCorruptError, StorageError : as ``Index.open``.
        """
        with self.transaction() as transaction:
            found = [] if where is None else find_ids(transaction, where)
            done = delete_rows(
                transaction, chain(read_ids(doc_ids), found), ignore_missing=ignore_missing
            )
        return self._compact_if_needed(done, config or IndexConfig())

    def compact(self) -> Manifest:
        """Write the index again without its deleted rows, and return its manifest.

        Vectors and documents are copied, nothing is embedded. Readers see the index as it was
        until the new one is whole. Raises as ``delete``.
        """
        with self.transaction() as transaction:
            compact(transaction)
        return self.manifest

    def reindex(
        self,
        *,
        out: Path | str | None = None,
        backend: str | None = None,
        factory: str | None = None,
        overwrite: bool = False,
        store: Backend | None = None,
        arms: Sequence[str] | None = None,
        language: str | None = None,
    ) -> Index:
        """Build another index of the same vectors and return it; nothing is embedded.

        Parameters
        ----------
        out : the new folder, which shares the shards on disk where the file system allows; by
            default the index is replaced in its own folder, in one step.
        backend, factory : as in ``IndexConfig``; by default those of the index, and where the
            backend changes, "Flat".
        store : a backend with options of its own, of the kind that ``backend`` names.
        arms, language : as in ``IndexConfig``; by default those of the index. An arm that is
            added, or that is damaged, is made from the stored documents.

        Raises
        ------
        IndexExistsError : ``out`` holds an index and ``overwrite`` is false.
        UsageError : the factory cannot be built, or ``out`` holds an unfinished index and
            ``overwrite`` is false.
        SourceNotFoundError, IndexCorruptError, StorageError : as ``Index.open``.
        """
        target = partial(
            retarget, backend=backend, factory=factory, store=store, arms=arms, language=language
        )
        draft, chosen = target(self.manifest)
        chosen.check(draft.dimension, draft.factory)
        folder = self.folder if out is None else _folder(out)
        if folder.resolve() == self.folder.resolve():
            with self.transaction() as transaction:
                rebuild(transaction, target)
            return self
        if not overwrite and has_finished_shards(folder / BUILDING_NAME):
            raise UsageError(
                f"{folder} holds an unfinished index, whose embedded documents would be lost. Type "
                "its command again first, name another folder, or type --overwrite."
            )
        with begin(folder, overwrite=overwrite) as transaction:
            manifest = rebuild(transaction, target, self.folder)
        return Index(folder, manifest, self.encoder)

    def keep_weight(self, weight: float | None) -> Manifest:
        """Keep the dense arm's share in hybrid search, None for the default.

        Raises
        ------
        UsageError : the weight is outside 0 to 1, or an interrupted change is still to be finished.
        SourceNotFoundError, IndexCorruptError, StorageError : as ``delete``.
        """
        Blend("hybrid", weight=weight)
        with self.transaction(restart=False) as transaction:
            if has_finished_shards(transaction.staging):
                raise UsageError(
                    f"An interrupted change of {self.folder} has embedded documents that would be "
                    "lost. Type its command again first, then this one."
                )
            manifest = transaction.snapshot.manifest
            return transaction.publish(replace(manifest, weight=weight))

    def check(self) -> Manifest:
        """Read every file as it is now, compare its checksum, and return the manifest.

        Raises
        ------
        IndexCorruptError : a file is missing or is not what was written; and as ``Index.open``.
        """
        self._state = Snapshot.open(self.folder, checksums=True)
        return self.manifest

    @contextmanager
    def transaction(self, *, restart: bool = True) -> Iterator[Transaction]:
        """Lock the folder to change it; afterwards this object is what the folder holds.

        ``restart`` drops what an unfinished change has embedded.

        Raises
        ------
        StorageError : another process is writing, or the folder is not writable.
        """
        known = self._state if isinstance(self._state, Snapshot) else None
        with begin(self.folder, restart=restart, known=known) as transaction:
            try:
                yield transaction
            finally:
                self._state = transaction.published or transaction.read or self._state

    def _merge(
        self,
        corpus: Source,
        config: IndexConfig | None,
        split: Splitter | None,
        progress: Progress,
        resumed: Progress,
        *,
        replaces: bool = False,
        missing: bool = False,
    ) -> Change:
        encoder = self._needed_encoder()
        documents, chosen = read_source(corpus, config, self.manifest)
        check_fit(self.folder, self.manifest, encoder, split)
        with self.transaction(restart=chosen.restart) as transaction:
            merge = Merge(transaction, encoder, chosen, split, replaces, missing)
            done = merge.run(documents, progress=progress, resumed=resumed)
        return self._compact_if_needed(done, chosen)

    def _compact_if_needed(self, done: Change, config: IndexConfig) -> Change:
        deleted = done.manifest.rows - done.manifest.documents
        if deleted > config.compact_share * done.manifest.rows:
            try:
                self.compact()
                done.compacted = True
            except MillpondError as error:  # the change itself is done
                done.postponed = str(error)
            done.manifest = self.manifest
        return done

    def _needed_encoder(self) -> Encoder:
        if self.encoder is None:
            raise UsageError(
                f"Texts need the model that made the index, {self.fingerprint.model!r}, and "
                f"{self.folder} was opened without one. Type Index.open(folder, encoder), or "
                "Retriever.open(folder), which loads it."
            )
        return self.encoder


def _folder(path: Path | str) -> Path:
    """Return a path, which "" is not: it would be the current folder."""
    check_type("path", path, (str, os.PathLike), "the folder of an index")
    if path == "":
        raise UsageError("path is empty; expected the folder of an index.")
    return Path(path)
