"""What one run keeps for the next: which files a model came from, and checksums of data files.

Both only save time. Where a file's size or modification time is another one, or a library's
version, what was remembered is not used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.optional import read_versions
from benchmarks.scoring.models import LoadedModel
from embedder.models.bases import file_sha256
from embedder.models.provenance import stamp_code, stamp_sources
from retrieval import Fingerprint
from retrieval.disk import replace_file
from retrieval.errors import StorageError
from retrieval.typed import load_json

_LIBRARIES = ("millpond", "torch", "transformers", "tokenizers", "safetensors", "peft")
_HASHED_ANEW_BYTES = 16 << 20


class Remembered:
    """A folder of small JSON files; a damaged one counts as absent.

    Parameters
    ----------
    folder : made when something is first kept.
    """

    def __init__(self, folder: Path) -> None:
        self._models_path = folder / "models.json"
        self._files_path = folder / "files.json"
        self._models = _read(self._models_path)
        self._files = _read(self._files_path)
        self._circumstances: dict[str, str] | None = None

    def find_fingerprint(self, model: str) -> Fingerprint | None:
        """Return the fingerprint that this name had, if nothing that decides it has changed."""
        entry = self._models.get(model)
        if not isinstance(entry, dict) or entry.get("circumstances") != self._now():
            return None
        try:
            sources = [Path(source) for source in entry["sources"]]
            if stamp_sources(sources) == entry["stamp"]:
                return Fingerprint.from_json(entry["fingerprint"])
        except (KeyError, TypeError, AttributeError, ValueError, OSError):
            pass
        return None

    def keep_model(self, model: str, loaded: LoadedModel) -> None:
        """Keep a model's fingerprint if a later run can tell that it still holds."""
        if loaded.sources is None:
            return
        self._models[model] = {
            "circumstances": self._now(),
            "sources": [str(source) for source in loaded.sources],
            "stamp": stamp_sources(list(loaded.sources)),
            "fingerprint": loaded.fingerprint.to_json(),
        }
        _write(self._models_path, self._models)

    def hash_files(self, files: Mapping[str, Path]) -> dict[str, str]:
        """Return the SHA-256 of each file, by role.

        Raises
        ------
        StorageError : a file cannot be read.
        """
        try:
            return {role: self._hash(path) for role, path in files.items()}
        except OSError as error:
            where = error.filename or next(iter(files.values()))
            raise StorageError(f"{where}: cannot be read ({error.strerror}).") from error

    def _hash(self, path: Path) -> str:
        stat = path.stat()
        if stat.st_size < _HASHED_ANEW_BYTES:
            return file_sha256(path)
        key, stamp = str(path.resolve()), [stat.st_size, stat.st_mtime_ns]
        entry = self._files.get(key)
        if isinstance(entry, dict) and entry.get("stamp") == stamp and "sha256" in entry:
            return str(entry["sha256"])
        sha256 = file_sha256(path)
        self._files[key] = {"stamp": stamp, "sha256": sha256}
        _write(self._files_path, self._files)
        return sha256

    def _now(self) -> dict[str, str]:
        """Return what decides a fingerprint besides the model's own files."""
        if self._circumstances is None:
            self._circumstances = {
                "folder": str(Path.cwd()),  # a name may be a relative path
                "code": stamp_code(),
                **read_versions(*_LIBRARIES),
            }
        return self._circumstances


def digest(parts: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return the SHA-256 of a JSON value, as 64 hexadecimal digits."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        data = load_json(path)
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def _write(path: Path, data: Mapping[str, Any]) -> None:
    """Write what only saves time; a full disk is reported when results are written."""
    with suppress(OSError, StorageError):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, (json.dumps(data, indent=1) + "\n").encode())
