"""BEIR data sets, fetched once from their public host.

The beir package's own utility downloads and unpacks; it keeps whatever arrived, be it half a file
or an error page, so everything happens in a scratch folder that is checked and then renamed.
"""

from __future__ import annotations

import errno
import io
import tempfile
import warnings
import zipfile
import zlib
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from benchmarks.optional import import_optional
from embedder import cache_folder
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
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        problem = "is full" if full else f"cannot be written ({error.strerror or error})"
        raise StorageError(
            f"The cache folder {parent} {problem}. Free some space, or set XDG_CACHE_HOME to a "
            f"folder on another disk."
        ) from error
    return target


def _fetch(name: str, scratch: Path, notify: Notify) -> Path:
    """Return the unpacked and checked folder inside the scratch folder."""
    url = BEIR_URL.format(name=name)
    size = _ask_size(url)
    megabytes = "" if size is None else f" ({size / 1e6:.1f} MB)"
    notify(f"Fetching BEIR's {name}{megabytes} from {url.split('/')[2]}")
    archive = scratch / f"{name}.zip"
    util = _beir_util()
    requests = import_optional("requests", "Fetching BEIR")
    try:
        with redirect_stderr(io.StringIO()):  # the utility draws a bar of its own
            util.download_url(url, str(archive), 1 << 20)
    except requests.RequestException as error:
        raise DownloadError(f"{url} broke off ({_reason(error)}). {_INSTEAD}") from error
    _check_archive(archive, url, size)
    util.unzip(str(archive), str(scratch))
    archive.unlink()
    unpacked = scratch / name
    if next(unpacked.rglob("corpus.jsonl"), None) is None:
        raise DownloadError(f"{url} holds no {name}/corpus.jsonl; nothing was kept. {_INSTEAD}")
    return unpacked


def _ask_size(url: str) -> int | None:
    """Return the file's size in bytes according to the host, None if it does not say."""
    requests = import_optional("requests", "Fetching BEIR")
    try:
        answer = requests.head(url, allow_redirects=True, timeout=_TIMEOUT_SECONDS)
    except requests.RequestException as error:
        raise DownloadError(f"{url} cannot be reached ({_reason(error)}). {_INSTEAD}") from error
    if answer.status_code != 200:
        raise DownloadError(
            f"{url} answers {answer.status_code} {answer.reason}; nothing was kept. {_INSTEAD}"
        )
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _check_archive(archive: Path, url: str, size: int | None) -> None:
    """Raise DownloadError unless the file has its size and every member its checksum."""
    found = archive.stat().st_size
    if size is not None and found != size:
        raise DownloadError(
            f"{url}: {found:,} bytes arrived of {size:,}; nothing was kept. {_INSTEAD}"
        )
    try:
        with zipfile.ZipFile(archive) as opened:
            damaged = opened.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DownloadError(f"{url} is no whole zip file ({error}). {_INSTEAD}") from error
    if damaged is not None:
        raise DownloadError(f"{url}: {damaged} is damaged; nothing was kept. {_INSTEAD}")


def _beir_util() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm calls its notebook bar experimental
        return import_optional("beir.util", "Fetching BEIR")


def _reason(error: Exception) -> str:
    """Return the innermost cause, which names what went wrong without the layers above it."""
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
