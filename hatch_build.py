"""Compiles ``embedder/engine/fused.c`` where a wheel is built, if this machine can.

Two libraries serve every CPU with AVX2 or AVX-512 under Linux, whatever CPU they are compiled on.
Without them ``--speed fast`` is slower, or computes in float32; ``millpond doctor`` says which it
is.
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
ARCHITECTURES = {
    "avx2": ("-march=haswell",),
    "avx512": ("-march=skylake-avx512", "-mprefer-vector-width=512"),
}
"""What torch says that a CPU can do, in small letters, and the first one that can."""

FLAGS = (
    "-std=gnu11",
    "-O3",
    "-fopenmp-simd",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",
    "-Wno-pass-failed",  # clang leaves a few short loops as they are
    "-fPIC",
    "-shared",
)


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Hatchling's hook for wheels, editable ones too."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the libraries to the wheel, which then is for this platform alone."""
        try:
            libraries = compile_libraries(Path(self.root) / ENGINE)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self.app.display_warning(f"{ENGINE / 'fused.c'} was not compiled: {error}")
            return
        build_data["artifacts"] += [str(path.relative_to(self.root)) for path in libraries]
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().translate(UNDERSCORES)}"


UNDERSCORES = str.maketrans("-.", "__")


def compile_libraries(folder: Path) -> list[Path]:
    """Compile ``fused.c`` of a folder by ``$CC`` or ``cc``; return the libraries beside it.

    Raises
    ------
    ValueError, OSError, SubprocessError : another platform, no compiler, or one that fails.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise ValueError(f"it is for Linux on x86-64, not {sys.platform} on {platform.machine()}")
    digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in SOURCES))
    flags = (*FLAGS, f'-DSOURCES="{digest.hexdigest()}"')
    return [
        _compile(folder / "fused.c", folder / f"libfused-{name}.so", (*architecture, *flags))
        for name, architecture in ARCHITECTURES.items()
    ]


def _compile(source: Path, library: Path, flags: tuple[str, ...]) -> Path:
    compiler = shlex.split(os.environ.get("CC") or "cc")
    made = library.with_suffix(f".{os.getpid()}")
    try:
        subprocess.run(
            [*compiler, *flags, "-o", made, source],
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
