"""The C functions of ``fused.c``, compiled for this machine when they are first wanted."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from embedder.cache import cache_folder, keep

__all__ = ["BuildError", "load_functions"]

SOURCE = Path(__file__).with_name("fused.c")
HEADER = Path(__file__).with_name("fused_rows.h")

_FLAGS = (
    "-O3",
    "-march=native",
    "-mprefer-vector-width=512",
    "-fopenmp",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
)
_SECONDS = 60

_POINTER, _FLOAT, _LONG, _INT = ctypes.c_void_p, ctypes.c_float, ctypes.c_long, ctypes.c_int
_SCALED = [_POINTER] * 4  # sums, row scales, column scales, bias
_ROUNDED = [_POINTER] * 2  # rows, scales
_NORM = [_POINTER, _FLOAT]  # gains, epsilon
_ARGUMENTS = {
    "millpond_norm_float": [_POINTER, *_NORM, *[_LONG] * 2, _POINTER, _INT],
    "millpond_place": [_POINTER, *_NORM, *[_POINTER] * 2, *[_LONG] * 3, _INT],
    "millpond_gate_float": [*[_POINTER] * 2, *[_LONG] * 2, _INT],
    "millpond_attend": [*[_POINTER] * 4, *[_LONG] * 4, _FLOAT, _INT, _POINTER, _INT],
    "millpond_norm": [_POINTER, *_NORM, *[_LONG] * 3, *_ROUNDED, _INT],
    "millpond_add": [_POINTER, *_SCALED, *[_LONG] * 2, _POINTER, _INT],
    "millpond_add_norm": [_POINTER, *_SCALED, *_NORM, *[_LONG] * 3, _POINTER, *_ROUNDED, _INT],
    "millpond_heads": [
        *[*_SCALED, _POINTER, *_NORM, *[_POINTER] * 2],
        *[*[_LONG] * 4, *[_POINTER] * 3, _INT],
    ],
    "millpond_round": [_POINTER, *[_LONG] * 2, *_ROUNDED, _INT],
    "millpond_gate": [*_SCALED, *[_LONG] * 3, *_ROUNDED, _INT],
}


class BuildError(Exception):
    """The functions cannot be had here; the message says why in a few words."""


@cache
def load_functions() -> ctypes.CDLL:
    """Return the functions, compiled by ``$CC`` or ``cc`` unless the cache folder has them.

    What is cached is for this source, compiler and CPU; a folder that cannot be written costs a
    second for each process. They run on torch's own OpenMP threads, so they are not linked with
    another OpenMP library, and torch has to be imported before.

    Raises
    ------
    BuildError : not Linux on x86-64, no compiler, or one that fails.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise BuildError(f"only for Linux on x86-64, not {sys.platform} on {platform.machine()}")
    compiler = shlex.split(os.environ.get("CC") or "cc")
    if shutil.which(compiler[0]) is None:
        raise BuildError(f"no C compiler {compiler[0]!r}")
    key = hashlib.sha256("\n".join([*_FLAGS, _run([*compiler, "--version"]), _cpu()]).encode())
    key.update(SOURCE.read_bytes() + HEADER.read_bytes())
    kept = cache_folder() / "compiled" / f"fused-{key.hexdigest()[:16]}.so"
    try:
        return _load(kept)
    except OSError:  # not there yet, or damaged
        pass
    with TemporaryDirectory(prefix="millpond-compile-") as folder:
        unit, library = Path(folder) / "fused.o", Path(folder) / "fused.so"
        _run([*compiler, *_FLAGS, "-c", str(SOURCE), "-o", str(unit)])
        # Without -fopenmp: what the unit needs of OpenMP is torch's, which is there already.
        _run([*compiler, "-shared", str(unit), "-o", str(library)])
        try:
            loaded = _load(library)
        except OSError as error:
            raise BuildError(f"what was compiled cannot be loaded: {error}") from error
        keep(kept, library.read_bytes())
    return loaded


def _load(library: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(library))
    for name, arguments in _ARGUMENTS.items():
        try:
            function = getattr(loaded, name)
        except AttributeError as error:
            raise OSError(f"it has no {name}") from error
        function.argtypes, function.restype = arguments, None
    return loaded


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]}: {error}") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise BuildError(f"{command[0]} ended with {done.returncode}: {lines[0]}")
    return done.stdout


def _cpu() -> str:
    """Return what tells CPUs with other instructions apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(
        next((line for line in lines if line.startswith(name)), "")
        for name in ("model name", "flags")
    )
