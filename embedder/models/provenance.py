"""The files that a loaded model came from, by which later runs see whether one changed.

Asking for them needs the loaded model; comparing them needs neither torch nor the model.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from embedder.models.bases import BASES, converted_folder
from embedder.models.names import MANIFEST_NAME, find_saved_model

if TYPE_CHECKING:
    from embedder.embedder import Embedder

_COMMIT = re.compile(r"[0-9a-f]{40}")
_FOLDERS = ("", "adapter")


def model_sources(model: str, embedder: Embedder) -> list[Path] | None:
    """Return the files and folders that decide what ``Embedder.load(model)`` gives.

    Paths that do not exist are among them where creating them would change the answer. None where
    files cannot tell: a model hub can move a branch at any time.
    """
    from embedder.models.manifest import read_manifest  # imports torch

    base, revision = embedder.spec.base, embedder.spec.revision
    saved = find_saved_model(model)
    sources = _folders_that_would_win(model)
    if saved is not None:
        sources.append(saved.folder)
        manifest = read_manifest(saved.folder)
        if manifest.is_whole:
            return sources
        base, revision = manifest.spec.base, manifest.base.identity
    identity = embedder.backbone.identity
    place = Path(base).expanduser()
    if base in BASES:
        return [*sources, place.absolute(), converted_folder(identity)]
    if place.is_file():
        return [*sources, place.resolve(), converted_folder(identity)]
    if place.is_dir():
        return [*sources, place.resolve()]
    return [*sources, place.absolute()] if _COMMIT.fullmatch(revision or "") else None


def _folders_that_would_win(model: str) -> list[Path]:
    """Return the manifests which, once written, would make this name mean a trained model."""
    names = dict.fromkeys((model, model.partition(",")[0]))
    return [Path(name).expanduser().absolute() / MANIFEST_NAME for name in names]


def stamp_sources(sources: list[Path]) -> str:
    """Return a digest of the names, sizes and modification times of files and folders.

    Of a folder, its own files and those of its ``adapter`` count. Paths may be missing.
    """
    digest = hashlib.sha256()
    for source in sources:
        digest.update(f"{source}\n".encode(errors="surrogateescape"))
        for path in _files(source):
            stat = path.stat()
            row = f"{path}\t{stat.st_size}\t{stat.st_mtime_ns}\n"
            digest.update(row.encode(errors="surrogateescape"))
    return digest.hexdigest()


def stamp_code() -> str:
    """Return a digest of the sizes and modification times of this package's own code.

    The list of models that come with it counts as code.
    """
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted([*root.rglob("*.py"), *root.rglob("millpond.json")]):
        stat = path.stat()
        name = path.relative_to(root)
        digest.update(f"{name}\t{stat.st_size}\t{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        found = [path for name in _FOLDERS for path in (source / name).glob("*")]
        return sorted(path for path in found if path.is_file())
    return [source] if source.is_file() else []
