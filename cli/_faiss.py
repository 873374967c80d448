"""Which faiss is installed, whether it works, and how many GPUs it sees."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

__all__ = ["FaissBuild", "describe_faiss", "find_faiss_problems", "list_wheels", "probe_faiss"]

PROBE = """
import json, faiss
gpu = hasattr(faiss, "StandardGpuResources")
print(json.dumps([faiss.__version__, gpu, faiss.get_num_gpus() if gpu else 0]))
"""
PROBE_SECONDS = 60


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
    """Return what a fresh process finds; CUDA may end the process that asks for GPUs."""
    command = [sys.executable, "-W", "ignore", "-c", PROBE]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return FaissBuild(error=f"it did not answer in {PROBE_SECONDS} seconds")
    if done.returncode == 0:
        version, gpu, gpus = json.loads(done.stdout.splitlines()[-1])
        return FaissBuild(version, gpu, gpus)
    said = done.stderr.strip().splitlines()
    return FaissBuild(error=said[-1] if said else f"it ended with {done.returncode}")


def describe_faiss(wheels: Mapping[str, str], build: FaissBuild, device: str | None) -> str:
    """Return the wheels and what they can do, for people."""
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
    """Return what is wrong with faiss, one sentence each with what to type."""
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
