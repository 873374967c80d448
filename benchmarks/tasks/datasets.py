"""BEIR data sets, fetched once from their public host.

A set is unpacked in a scratch folder, whose name changes once it is whole.
"""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from pathlib import Path

from benchmarks.optional import import_optional
from embedder import cache_folder
from retrieval.disk import FULL_DISK
from retrieval.errors import DownloadError, StorageError, UnknownNameError
from retrieval.protocols import Notify

BEIR_PREFIX = "beir:"
BEIR_URL = "https://public.ukp.informatik.tu-darmstadt.de/thakur/BEIR/datasets/{name}.zip"
BEIR_NAMES = (
    "arguana",
    "climate-fever",
    "cqadupstack",
    "dbpedia-entity",
    "fever",
    "fiqa",
    "hotpotqa",
    "msmarco",
    "nfcorpus",
    "nq",
    "quora",
    "scidocs",
    "scifact",
    "trec-covid",
    "webis-touche2020",
)
"""The public sets of arXiv 2104.08663 and of its repository."""

BEIR_CLOSED = ("bioasq", "robust04", "signal1m", "trec-news")
"""Those that their owners do not let anyone pass on; BEIR's repository says how to make them."""

BEIR_DEV = ("msmarco",)
"""Sets that BEIR scores on their dev split."""

BEIR_OWN_IDS = ("arguana", "quora")
"""Sets whose queries are documents too: a hit with the query's id is the query itself."""

_TIMEOUT_SECONDS = 30
_INSTEAD = "Check the network and type the same command again, or name a local BEIR folder instead."


def fetch_beir(name: str, notify: Notify) -> Path:
    """Return the folder of a BEIR set in the cache, fetching it the first time.

    Raises
    ------
    UnknownNameError : BEIR has no set of this name.
    DownloadError : the host cannot be reached, what it sent is not whole, or the set is one that
        has to be made.
    StorageError : the cache folder is full or not writable.
    """
    parent = cache_folder() / "beir"
    target = parent / name
    if name not in (*BEIR_NAMES, *BEIR_CLOSED):
        known = [*BEIR_NAMES, *BEIR_CLOSED]
        raise UnknownNameError("BEIR set", name, known, "Or name a local folder.")
    if target.is_dir():
        return target
    if name in BEIR_CLOSED:
        raise DownloadError(
            f"{name} is one of BEIR's sets that only their owners may pass on. Make it as BEIR's "
            f"repository describes, and put corpus.jsonl, queries.jsonl and qrels/test.tsv into "
            f"{target}."
        )
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix=".fetch-") as scratch:
            unpacked = _fetch(name, Path(scratch), notify)
            try:
                unpacked.rename(target)
            except OSError:
                if not target.is_dir():  # another process may have been first
                    raise
    except OSError as error:
        problem = (
            "is full"
            if error.errno in FULL_DISK
            else f"cannot be written ({error.strerror or error})"
        )
        raise StorageError(
            f"The cache folder {parent} {problem}. Free some space, or set XDG_CACHE_HOME to a "
            f"folder on another disk."
        ) from error
    return target


def _fetch(name: str, scratch: Path, notify: Notify) -> Path:
    """Return the unpacked and checked folder inside the scratch folder."""
    url, archive = BEIR_URL.format(name=name), scratch / f"{name}.zip"
    requests = import_optional("requests", "Fetching BEIR")
    try:
        with requests.get(url, stream=True, timeout=_TIMEOUT_SECONDS) as answer:
            if answer.status_code != 200:
                raise DownloadError(
                    f"{url} answers {answer.status_code} {answer.reason}; nothing was kept. "
                    f"{_INSTEAD}"
                )
            length = answer.headers.get("Content-Length", "")
            megabytes = f" ({int(length) / 1e6:.1f} MB)" if length.isdigit() else ""
            notify(f"Fetching BEIR's {name}{megabytes} from {url.split('/')[2]}")
            with archive.open("wb") as sink:
                for block in answer.iter_content(1 << 20):
                    sink.write(block)
    except requests.RequestException as error:
        raise DownloadError(f"{url} cannot be fetched ({_reason(error)}). {_INSTEAD}") from error
    try:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(scratch)  # checks the checksum of each file
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DownloadError(f"{url} is no whole zip file ({error}). {_INSTEAD}") from error
    archive.unlink()
    unpacked = scratch / name
    if next(unpacked.rglob("corpus.jsonl"), None) is None:
        raise DownloadError(f"{url} holds no {name}/corpus.jsonl; nothing was kept. {_INSTEAD}")
    return unpacked


def _reason(error: Exception) -> str:
    """Return the innermost cause, which names what went wrong without the layers above it."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
