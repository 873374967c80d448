"""Compiles ``embedder/engine/fused.c`` where a wheel is built, if this machine can.

It serves every CPU with AVX512-VNNI under Linux, whatever CPU it is compiled on. Without it
millpond computes the same by torch's operations, slower with ``--speed fast``; ``millpond doctor``
says which it is.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ENGINE = Path("embedder/engine")
SOURCES = ("fused.c", "fused.h", "rows.h")
FLAGS = (
    "-march=cascadelake",  # the first architecture with AVX512-VNNI
    "-std=gnu11",
    "-O3",
    "-mprefer-vector-width=512",
    "-fopenmp-simd",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",
    "-fPIC",
    "-shared",
)


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Hatchling's hook for wheels, editable ones too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the library to the wheel, which then is for this platform alone."""
        try:
            library = compile_library(Path(self.root) / ENGINE)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self.app.display_warning(f"{ENGINE / 'fused.c'} was not compiled: {error}")
            return
        build_data["artifacts"].append(str(library.relative_to(self.root)))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().translate(UNDERSCORES)}"


UNDERSCORES = str.maketrans("-.", "__")


def compile_library(folder: Path) -> Path:
    """Compile ``fused.c`` of a folder by ``$CC`` or ``cc``; return the library beside it.

    Raises
    ------
    ValueError, OSError, SubprocessError : another platform, no compiler, or one that fails.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise ValueError(f"it is for Linux on x86-64, not {sys.platform} on {platform.machine()}")
    digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in SOURCES))
    compiler = shlex.split(os.environ.get("CC") or "cc")
    flags = [*FLAGS, f'-DSOURCES="{digest.hexdigest()}"']
    library = folder / "libfused.so"
    made = library.with_suffix(f".{os.getpid()}")
    try:
        subprocess.run(
            [*compiler, *flags, "-o", made, folder / "fused.c"],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        made.replace(library)  # at once: a process may be loading the one before
    except subprocess.CalledProcessError as error:
        said = (error.stderr.strip().splitlines() or ["no message"])[0]
        raise ValueError(f"{compiler[0]} ended with {error.returncode}: {said}") from error
    finally:
        made.unlink(missing_ok=True)
    return library
