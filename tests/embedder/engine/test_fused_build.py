"""How fused.c is compiled when millpond is installed, how it is loaded, and every way out."""

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from embedder import Embedder, VariantSpec
from embedder.engine import fused
from embedder.engine.fused import SOURCES, FusedLayer, UnavailableError, load_functions
from embedder.engine.speed import describe_speeds

ENGINE = Path(fused.__file__).parent
ON_LINUX = (sys.platform, platform.machine()) == ("linux", "x86_64")


@pytest.fixture(scope="module")
def compile_libraries():
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    sys.path.insert(0, str(ENGINE.parents[1]))
    try:
        from hatch_build import compile_libraries
    finally:
        sys.path.pop(0)
    return compile_libraries


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A copy of the sources, from whose folder the libraries are loaded."""
    for name in SOURCES:
        shutil.copy(ENGINE / name, tmp_path)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(fused, "FOLDER", tmp_path)
    yield tmp_path
    fused._load.cache_clear()


def load_anew():
    fused._load.cache_clear()  # not what an earlier call has loaded
    return load_functions()


@pytest.mark.usefixtures("functions")
def test_what_is_compiled_has_every_function_with_its_arguments(sources, compile_libraries):
    assert sorted(compile_libraries(sources)) == [
        sources / "libfused-avx2.so",
        sources / "libfused-avx512.so",
    ]
    loaded = load_anew()
    header = (sources / "fused.h").read_text()
    names = [line.split("(")[0].split()[-1] for line in header.splitlines() if "void mill" in line]
    assert len(names) == 8
    for name in names:
        declared = header.split(f"{name}(")[1].split(")")[0].count(",") + 1
        assert len(getattr(loaded, name).argtypes) == declared


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize("compiler", ["gcc-9", "gcc-11", "gcc", "clang"])
def test_it_compiles_without_a_warning(sources, compile_libraries, monkeypatch, compiler):
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler} here")
    monkeypatch.setenv("CC", f"{compiler} -Wall -Wextra -Werror")
    compile_libraries(sources)
    load_anew()


@pytest.mark.usefixtures("functions")
def test_a_library_of_other_sources_is_not_loaded(sources, compile_libraries):
    compile_libraries(sources)
    (sources / "rows.h").write_text((ENGINE / "rows.h").read_text() + "\n")
    with pytest.raises(UnavailableError, match="of another version; install millpond again"):
        load_anew()


@pytest.mark.usefixtures("functions")
def test_a_library_that_is_missing_or_damaged_is_named(sources):
    with pytest.raises(UnavailableError, match="millpond was installed without a C compiler"):
        load_anew()
    for name in ("libfused-avx2.so", "libfused-avx512.so"):
        (sources / name).write_bytes(b"no library")
    with pytest.raises(UnavailableError, match=r"libfused-avx\d+.so cannot be loaded: .*"):
        load_anew()


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        ("/nonexistent/cc", "No such file or directory: '/nonexistent/cc'"),
        ("false", "false ended with 1: no message"),
    ],
)
def test_without_a_compiler_nothing_is_made(
    sources, compile_libraries, monkeypatch, compiler, message
):
    if not ON_LINUX:
        pytest.skip("tells of the platform first")
    monkeypatch.setenv("CC", compiler)
    with pytest.raises((ValueError, OSError), match=message):
        compile_libraries(sources)
    assert sorted(path.name for path in sources.iterdir()) == sorted(SOURCES)


def test_other_platforms(sources, compile_libraries, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(ValueError, match="for Linux on x86-64, not linux on aarch64"):
        compile_libraries(sources)


def test_other_cpus_are_told(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    with pytest.raises(UnavailableError, match="this CPU has no AVX2"):
        load_anew()


def test_without_the_library_layers_are_int8_and_one_line_says_why(base_folder, monkeypatch):
    def load():
        raise UnavailableError("millpond was installed without a C compiler")

    monkeypatch.setattr("embedder.engine.speed.load_functions", load)
    monkeypatch.setattr("embedder.engine.speed.cpu_has_vnni", lambda: True)
    notes = []
    spec = VariantSpec(base=str(base_folder["llama"]), pooling="mean", attention="causal")
    embedder = Embedder.from_spec(spec, device="cpu", speed="fast", notify=notes.append)
    assert embedder.is_int8
    assert not any(isinstance(block, FusedLayer) for block in embedder.backbone.blocks())
    assert notes == [
        "speed fast: millpond was installed without a C compiler; so layers are not fused, which "
        "is slower."
    ]
    assert np.isfinite(embedder.encode_documents(["a", "the mill"])).all()


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
        ("cuda", True, None, ("packed", "as exact (int8 is for CPUs)")),
        ("cpu", False, None, ("float32, packed", "int8, fused layers")),
        (
            *("cpu", False, "no library"),
            (
                "float32, packed",
                "as exact (int8 needs AVX512-VNNI, or AVX2 and the C functions, and no library)",
            ),
        ),
        ("cpu", True, None, ("float32, packed", "int8, fused layers")),
        ("cpu", True, "no library", ("float32, packed", "int8, layers not fused (no library)")),
    ],
)
def test_what_the_speeds_do_on_a_machine(monkeypatch, device, has_vnni, error, expected):
    def load():
        if error is not None:
            raise UnavailableError(error)

    monkeypatch.setattr("embedder.engine.speed.cpu_has_vnni", lambda: has_vnni)
    monkeypatch.setattr("embedder.engine.speed.load_functions", load)
    assert describe_speeds(torch.device(device)) == expected
