"""``millpond doctor``: this machine and installation, and their problems."""

from __future__ import annotations

import json as json_format
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

import typer

from cli.console import clean, format_size, print_json, print_line, print_table
from cli.options import JsonOption
from cli.output import read_version
from embedder.environment import choose_device
from retrieval.errors import count_noun

PROBE = """
import json, faiss
gpu = hasattr(faiss, "StandardGpuResources")
print(json.dumps([faiss.__version__, gpu, faiss.get_num_gpus() if gpu else 0]))
"""
PROBE_SECONDS = 60


def doctor(json: JsonOption = False) -> None:
    """Check this installation.

    Prints versions, device, caches, and where each of our packages is imported from.
    Exits with 1 if something is wrong.

    \b
    Example:
      millpond doctor
    """
    found = _examine()
    if json:
        print_json({**found, "faiss": asdict(found["faiss"])})
    else:
        print_table(_list_rows(found))
        for problem in found["problems"]:
            print_line(f"PROBLEM: {clean(problem)}")
        if not found["problems"]:
            print_line("No problem found.")
    if found["problems"]:
        raise typer.Exit(1)


@dataclass(frozen=True)
class FaissBuild:
    """What ``import faiss`` brings.

    Attributes
    ----------
    version : empty where it cannot be imported.
    gpu : it was built for CUDA.
    gpus : how many GPUs it sees.
    error : why it cannot be imported; else empty.
    """

    version: str = ""
    gpu: bool = False
    gpus: int = 0
    error: str = ""


def list_wheels() -> dict[str, str]:
    """Return version by installed distribution that ships ``faiss``; one is right."""
    owners = sorted(set(metadata.packages_distributions().get("faiss", ())))
    return {name: metadata.version(name) for name in owners}


def probe_faiss() -> FaissBuild:
    """Import faiss in a fresh process; asking CUDA for GPUs may end it."""
    command = [sys.executable, "-W", "ignore", "-c", PROBE]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return FaissBuild(error=f"it did not answer in {PROBE_SECONDS} seconds")
    if done.returncode == 0:
        version, gpu, gpus = json_format.loads(done.stdout.splitlines()[-1])
        return FaissBuild(version, gpu, gpus)
    said = done.stderr.strip().splitlines()
    return FaissBuild(error=said[-1] if said else f"it ended with {done.returncode}")


def describe_faiss(wheels: Mapping[str, str], build: FaissBuild, device: str | None) -> str:
    """Return a description of the wheels and what they can do."""
    if not wheels and build.error:
        return "(not installed)"
    names = " and ".join(f"{name} {version}" for name, version in wheels.items())
    names = names or f"faiss {build.version}, not from a wheel"
    if build.error:
        return f"{names}; it cannot be imported"
    if build.gpu:
        seen = {0: "no GPU", 1: "1 GPU"}.get(build.gpus, f"{build.gpus} GPUs")
        return f"{names}; built for GPUs, sees {seen}"
    hint = ""
    if _is_cuda(device):
        hint = "; for the GPU: pip uninstall faiss-cpu, then pip install 'millpond[gpu]'"
    return f"{names}; for CPUs{hint}"


def find_faiss_problems(
    wheels: Mapping[str, str], build: FaissBuild, device: str | None
) -> list[str]:
    """Return the problems of faiss, each a sentence with what to type."""
    if not wheels and build.error:
        return ["faiss is not installed. Type: pip install 'millpond[cpu]', or 'millpond[gpu]'"]
    names = " ".join(wheels) or "faiss"
    if len(wheels) > 1:
        wins = "" if build.error else f"; now the {'GPU' if build.gpu else 'CPU'} build is in force"
        return [
            f"{' and '.join(wheels)} are installed together and overwrite each other's files"
            f"{wins}. Type: pip uninstall {names}, then pip install 'millpond[cpu]' or "
            f"'millpond[gpu]'"
        ]
    if build.error:
        return [
            f"faiss cannot be imported: {build.error}. Type: pip install --force-reinstall {names}"
        ]
    if build.gpu and not build.gpus and _is_cuda(device):
        return [
            f"{names} sees no GPU, though torch sees one. Type nvidia-smi: its driver has to "
            f"know CUDA 12; or type: pip uninstall {names}, then pip install 'millpond[cpu]'"
        ]
    return []


def _is_cuda(device: str | None) -> bool:
    return device is not None and device.startswith("cuda")


OUR_PACKAGES = ("retrieval", "embedder", "indexes", "benchmarks", "cli")
REQUIRED = (
    "torch",
    "transformers",
    "tokenizers",
    "accelerate",
    "peft",
    "safetensors",
    "gguf",
    "numpy",
    "pyarrow",
    "filelock",
    "rich",
    "typer",
)
OPTIONAL = ("qdrant-client", "qdrant-edge-py", "beir", "requests")


def _examine() -> dict[str, Any]:
    """Return what ``--json`` prints of this machine and installation.

    ``packages`` and ``modules`` hold None for what is not there, ``device`` where torch cannot be
    imported; ``intruders`` are other distributions that ship a package of our name.
    """
    from embedder.models.bases import cache_folder

    packages = {name: _version(name) for name in (*REQUIRED, *OPTIONAL)}
    wheels, faiss = list_wheels(), probe_faiss()
    modules = {name: _folder_of(name) for name in OUR_PACKAGES}
    intruders = _find_intruders()
    found = _find_device()
    error = found["device_error"]
    cache = cache_folder()
    there = next(folder for folder in (cache, *cache.parents) if folder.exists())
    return {
        "millpond": read_version(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "packages": packages,
        "faiss_wheels": wheels,
        "faiss": faiss,
        **found,
        "cache": str(cache),
        "cache_bytes": sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()),
        "free_bytes": shutil.disk_usage(there).free,
        "modules": modules,
        "intruders": intruders,
        "problems": [
            *find_problems(packages, modules, intruders),
            *find_faiss_problems(wheels, faiss, found["device"]),
            *([f"torch cannot be imported: {error}"] if error else []),
        ],
    }


def find_problems(
    packages: Mapping[str, str | None],
    modules: Mapping[str, str | None],
    intruders: Mapping[str, Sequence[str]],
) -> list[str]:
    """Return the problems of packages, each a sentence with what to type."""
    problems = [
        f"{name} is not installed. Type: pip install {name}"
        for name in REQUIRED
        if packages.get(name) is None
    ]
    problems += [
        f"our package {name!r} cannot be imported. Install millpond again"
        for name, folder in modules.items()
        if folder is None
    ]
    homes = {str(Path(folder).parent) for folder in modules.values() if folder}
    if len(homes) > 1:
        problems.append(
            f"our packages come from {len(homes)} places ({', '.join(sorted(homes))}), so another "
            f"package of the same name is in the way. Use a fresh virtual environment"
        )
    problems += [
        f"the package {name!r} is shipped by {', '.join(owners)} too, which overwrites ours. "
        f"Uninstall it, or use a fresh virtual environment"
        for name, owners in intruders.items()
    ]
    return problems


def _list_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the report as pairs of name and value."""
    threads = count_noun(found["threads"], "thread")
    device = found["device"]
    return [
        ("millpond", found["millpond"]),
        ("python", f"{found['python']}, {found['executable']}"),
        ("platform", found["platform"]),
        ("device", f"{device}, {threads}" if device else "(unknown)"),
        ("speed exact", found["exact"] or "(unknown)"),
        ("speed fast", found["fast"] or "(unknown)"),
        ("faiss", describe_faiss(found["faiss_wheels"], found["faiss"], device)),
        *((name, version or "(not installed)") for name, version in found["packages"].items()),
        ("cache", f"{found['cache']}, {format_size(found['cache_bytes'])}"),
        ("disk", f"{format_size(found['free_bytes'])} free"),
        *((f"import {name}", place or "(not found)") for name, place in found["modules"].items()),
    ]


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _find_device() -> dict[str, Any]:
    """Return where models run, and what "exact" and "fast" do there, or why nobody knows."""
    try:
        import torch

        from embedder.engine.speed import describe_speeds

        device = choose_device()
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        exact, fast = describe_speeds(device)
        shown, threads = f"{device} {name}".strip(), torch.get_num_threads()
        found: tuple[object, ...] = (shown, "", exact, fast, threads)
    except (ImportError, OSError, RuntimeError) as error:
        found = None, str(error).partition("\n")[0] or type(error).__name__, "", "", 0
    return dict(zip(("device", "device_error", "exact", "fast", "threads"), found, strict=True))


def _folder_of(package: str) -> str | None:
    spec = util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return str(Path(next(iter(spec.submodule_search_locations))).resolve())


def _find_intruders() -> dict[str, list[str]]:
    """Return, for each of our package names, the other distributions that ship it too."""
    shipped = metadata.packages_distributions()
    found = {
        name: sorted({owner for owner in shipped.get(name, ()) if owner.lower() != "millpond"})
        for name in OUR_PACKAGES
    }
    return {name: owners for name, owners in found.items() if owners}
