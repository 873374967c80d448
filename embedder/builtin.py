"""Models that are trained already and come with millpond, in the folder ``builtin_models``.

Each is a MODEL_DIR (see ``embedder.manifest``) that holds trained weights only; its base is
fetched when it is first used. Imports neither torch nor transformers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TrainedModel", "builtin_folder", "list_builtin_models"]

_HOME = Path(__file__).resolve().parent / "builtin_models"
_MANIFEST = "millpond.json"


@dataclass(frozen=True)
class TrainedModel:
    """One trained model of ``millpond models``.

    Attributes
    ----------
    name : what a user types.
    base : the built-in base it was trained on.
    variant : POOLING+ATTENTION.
    base_layers : how many of the base's layers it keeps; None for all.
    weights_bytes : of the files with trained weights.
    """

    name: str
    base: str
    variant: str
    base_layers: int | None
    weights_bytes: int

    @property
    def summary(self) -> str:
        """One phrase on what it is."""
        depth = f"the first {self.base_layers} layers of " if self.base_layers else ""
        return f"{self.variant} on {depth}{self.base}"


def builtin_folder(name: str) -> Path | None:
    """Return the folder of the built-in model of this name, None where there is no such model."""
    return {folder.name: folder for folder in _folders()}.get(name)


def list_builtin_models() -> list[TrainedModel]:
    """Return the models that come with millpond, by name."""
    return [_read(folder) for folder in _folders()]


def _folders() -> list[Path]:
    return sorted(path.parent for path in _HOME.glob(f"*/{_MANIFEST}"))


def _read(folder: Path) -> TrainedModel:
    data = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    spec = data["spec"]
    return TrainedModel(
        folder.name,
        data["base"]["name"],
        f"{spec['pooling']}+{spec['attention']}",
        spec.get("base_layers"),
        sum(path.stat().st_size for path in folder.rglob("*.safetensors")),
    )
