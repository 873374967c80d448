"""Indexes that change as files do (``update --watch``), and as clients of a server ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cli.console import message, write_error
from cli.models import load_splitter
from retrieval.errors import MillpondError, MissingDependencyError, StorageError, UsageError

if TYPE_CHECKING:
    from embedder.loading import LoadedEncoder
    from indexes import Change, Manifest
    from retrieval import Document, Encoder

QUIET_MS = 1000
"""Files are read once nothing has changed for so long, so that none is read half written ..."""
LONGEST_WAIT_MS = 60_000
"""... but no later than this, where something changes all the time."""
RETRY_MS = 2000
SHOWN_FILES = 3


def check_watching() -> None:
    """Raise MissingDependencyError unless folders can be watched here."""
    try:
        import watchfiles  # noqa: F401
    except ImportError as error:
        from retrieval.corpus.documents.registry import EXTRA

        raise MissingDependencyError("watchfiles", "--watch", EXTRA) from error


def check_folders(manifest: Manifest, folders: Sequence[str]) -> None:
    """Raise UsageError if the index holds files of other folders, which would be deleted."""
    from retrieval.corpus.roots import NO_FOLDERS, Roots

    watched = [Path(folder).resolve() for folder in folders]
    known = Roots.from_json((manifest.layout or {}).get("folders", NO_FOLDERS))
    others = [
        str(root.path)
        for root in known
        if root.path.exists() and not any(root.path.is_relative_to(one) for one in watched)
    ]
    if others:
        raise UsageError(
            "--watch with --delete-missing would delete the documents of "
            f"{', '.join(dict.fromkeys(others))}, which the index holds too. Name that as well, or "
            "leave --delete-missing out."
        )


def watch(index: Path, folders: Sequence[str], again: Callable[[str], None]) -> None:
    """Call ``again`` with what has changed in the folders, whenever it does, until Ctrl-C.

    What happened before it began to watch is seen too. An error of ``again`` is one line; one that
    may pass, as while another process changes the index, makes it try again.
    """
    from watchfiles import watch

    roots = [Path(folder).resolve() for folder in folders]
    own = index.resolve()

    def counts(_: object, path: str) -> bool:
        return _counts(Path(path), roots, own)

    message(f"Watching {', '.join(folders)}. Ctrl-C ends it.")
    pending, told, changed = True, "", dict[str, None]()
    try:
        for found in watch(
            *roots,
            watch_filter=counts,
            step=QUIET_MS,
            debounce=LONGEST_WAIT_MS,
            rust_timeout=RETRY_MS,
            yield_on_timeout=True,
        ):
            changed |= dict.fromkeys(_name(Path(path), roots) for _, path in sorted(found))
            pending = pending or bool(found)
            if not pending:
                continue
            try:
                again(_label([*changed]))
                pending, told = False, ""
            except MillpondError as error:
                if str(error) != told:
                    write_error(str(error))
                pending, told = isinstance(error, StorageError), str(error)
            if not pending:
                changed.clear()
    except KeyboardInterrupt:
        message("Stopped.")


def _counts(path: Path, roots: Sequence[Path], index: Path) -> bool:
    """Whether a change of a path can change what is read; that of the index itself does not."""
    from retrieval.corpus.folders import IGNORE_FILE, LEFT_OUT

    root = _root_of(path, roots)
    if root is None or path.is_relative_to(index):
        return False
    parts = path.relative_to(root).parts
    return not any(p in LEFT_OUT or (p[:1] == "." and p != IGNORE_FILE) for p in parts)


def _root_of(path: Path, roots: Sequence[Path]) -> Path | None:
    return next((root for root in roots if path.is_relative_to(root)), None)


def _name(path: Path, roots: Sequence[Path]) -> str:
    """Return what messages call a file: its path from the folder that is watched."""
    root = _root_of(path, roots)
    return str(path.relative_to(root.parent)) if root is not None else str(path)


def _label(names: Sequence[str]) -> str:
    more = len(names) - SHOWN_FILES
    shown = ", ".join(names[:SHOWN_FILES]) + (f" and {more} more" if more > 0 else "")
    return f"{shown}: " if shown else ""


@dataclass(frozen=True)
class IndexEdit:
    """Changes the index in a folder and publishes it; an ``embedder.serving.served.Edit``.

    Attributes
    ----------
    name : what clients call the index.
    model : the one that made it, which counts tokens for passages.
    encoder : the same one, as the server lets it embed.
    """

    folder: Path
    name: str
    model: LoadedEncoder
    encoder: Encoder

    def put(self, documents: Sequence[Document]) -> Mapping[str, int]:
        """Add documents, or replace those with their ids; see ``Index.update``."""
        from indexes import Index, IndexConfig

        with self._without_place():
            index = Index.open(self.folder, self.encoder)
            split = load_splitter(self.model, index.manifest.passages)
            config = IndexConfig(corpus_name="documents")
            return _count(index.update(documents, config, split=split))

    def delete(self, doc_ids: Sequence[str], ignore_missing: bool) -> Mapping[str, int]:
        """Delete documents; see ``Index.delete``."""
        from indexes import Index

        with self._without_place():
            index = Index.open(self.folder)
            return _count(index.delete(doc_ids, ignore_missing=ignore_missing))

    @contextmanager
    def _without_place(self) -> Iterator[None]:
        """Let messages call the index as clients do, not by its place on this machine."""
        try:
            yield
        except UsageError as error:
            raise UsageError(str(error).replace(str(self.folder), self.name)) from None


def _count(change: Change) -> Mapping[str, int]:
    names = ("added", "replaced", "relabelled", "unchanged", "deleted", "missing")
    return {name: getattr(change, name) for name in names}
