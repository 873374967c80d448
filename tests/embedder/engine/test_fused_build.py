"""How the functions of fused.c are compiled and kept, and every way out."""

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from embedder.engine import fused
from embedder.engine.fused import BuildError, load_functions
from embedder.engine.speed import describe_speeds


@pytest.fixture(autouse=True)
def anew(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)


def build():
    return load_functions.__wrapped__()  # not what an earlier call has built


def kept(tmp_path):
    return sorted((tmp_path / "cache").rglob("*.so"))


@pytest.mark.usefixtures("functions")
def test_it_is_compiled_once(tmp_path, monkeypatch):
    build()
    [library] = kept(tmp_path)
    commands = []
    run = fused._run
    monkeypatch.setattr(fused, "_run", lambda command: commands.append(command[-1]) or run(command))
    build()
    assert commands == ["--version"]
    assert kept(tmp_path) == [library]


@pytest.mark.usefixtures("functions")
def test_a_damaged_file_is_made_again(tmp_path, monkeypatch):
    build()
    [library] = kept(tmp_path)
    whole = library.read_bytes()
    damaged = tmp_path / "other" / library.relative_to(tmp_path / "cache")
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(whole[:100])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    build()
    assert len(damaged.read_bytes()) == len(whole)


@pytest.mark.usefixtures("functions")
def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path):
    (tmp_path / "cache").write_text("a file in its place")
    build()


@pytest.mark.usefixtures("functions")
def test_flags_and_cpu_are_part_of_the_name(tmp_path, monkeypatch):
    build()
    monkeypatch.setattr(fused, "_cpu", lambda: "another")
    build()
    assert len(kept(tmp_path)) == 2


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ("/nonexistent/cc", "no C compiler '/nonexistent/cc'"),
        ("false", "false ended with 1: no message"),
    ],
)
def test_without_a_compiler(base_folder, fast, monkeypatch, compiler, message):
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("tells of the platform first")
    monkeypatch.setenv("CC", compiler)
    with pytest.raises(BuildError, match=message):
        build()
    for module in ("fused", "fused_int8"):
        monkeypatch.setattr(f"embedder.engine.{module}.load_functions", build)
    notes = []
    embedder = fast(base_folder["llama"], notify=notes.append)
    assert embedder.is_int8 and not embedder.backbone.is_fused
    assert embedder.compiler is not None
    assert notes == [f"speed fast: {message}; so layers are not fused, which is slower."]
    assert np.isfinite(embedder.encode_documents(["a", "the mill"])).all()


def test_a_compiler_that_refuses_the_source_is_quoted(tmp_path, monkeypatch):
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("tells of the platform first")
    refuses = tmp_path / "cc"
    refuses.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\necho "no -O3" >&2\nexit 4\n')
    refuses.chmod(0o755)
    monkeypatch.setenv("CC", str(refuses))
    with pytest.raises(BuildError, match="ended with 4: no -O3"):
        build()
    assert kept(tmp_path) == []


def test_other_platforms(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(BuildError, match="only for Linux on x86-64, not linux on aarch64"):
        monkeypatch.setattr(sys, "platform", "linux")
        build()


@pytest.mark.usefixtures("functions")
def test_no_second_openmp_library_is_loaded():
    """Two would keep twice as many threads spinning as there are cores."""
    script = (
        "import torch\n"
        "from pathlib import Path\n"
        "from embedder.engine.fused import load_functions\n"
        "load_functions()\n"
        "maps = Path('/proc/self/maps').read_text().splitlines()\n"
        "print(*sorted({line.split()[-1] for line in maps if 'omp' in line and '.so' in line}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    libraries = [Path(path).name for path in done.stdout.split()]
    assert len([name for name in libraries if "gomp" in name or "iomp" in name]) == 1, libraries


@pytest.mark.parametrize(
    ("device", "has_vnni", "error", "expected"),
    [
        ("cuda", True, None, ("torch's own layers", "compiled layers in long runs")),
        ("cpu", False, None, ("fused layers", "fused layers (int8 needs VNNI)")),
        ("cpu", True, None, ("fused layers", "fused layers, int8")),
        (
            *("cpu", True, "no C compiler 'cc'"),
            (
                "torch's own layers (no C compiler 'cc')",
                "torch's own layers (no C compiler 'cc'), int8",
            ),
        ),
    ],
)
def test_what_the_speeds_do_on_a_machine(monkeypatch, device, has_vnni, error, expected):
    def load():
        if error is not None:
            raise BuildError(error)

    monkeypatch.setattr("embedder.engine.speed.cpu_has_vnni", lambda: has_vnni)
    monkeypatch.setattr("embedder.engine.speed.load_functions", load)
    assert describe_speeds(torch.device(device)) == expected
