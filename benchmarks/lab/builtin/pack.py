"""Packs a trained model to be shipped.

    python -m benchmarks.lab.builtin.pack builtin-model/distil --out packed

The weights stay as they are; of paths in the training record, the last part stays.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedder.models.card import write_card
from embedder.models.manifest import Manifest, read_manifest
from embedder.models.names import MANIFEST_NAME
from embedder.models.saving import new_folder

_MORE = (
    "How it was made, what it scores and the licences of the data: "
    "`docs/builtin-model.md`\nin millpond's repository.\n"
)


def pack_model(folder: Path, out: Path) -> None:
    """Write the MODEL_DIR ``folder`` to the new folder ``out``, its record without paths.

    Raises
    ------
    SourceNotFoundError, ModelError : ``folder`` is no model, or damaged.
    UsageError : ``out`` is not empty.
    """
    manifest = read_manifest(folder)
    manifest.check_files(folder)
    packed: Manifest = replace(manifest, record=_without_paths(manifest.record))
    with new_folder(out) as beside:
        shutil.copytree(folder, beside, dirs_exist_ok=True, ignore=_beside_the_model)
        (beside / MANIFEST_NAME).write_text(packed.to_json(), encoding="utf-8")
        (beside / "README.md").write_text(write_card(packed) + _MORE, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lab.builtin.pack")
    parser.add_argument("folder", type=Path, help="what millpond train wrote")
    parser.add_argument("--out", type=Path, required=True, help="the new folder")
    given = parser.parse_args(arguments)
    pack_model(given.folder, given.out)


def _beside_the_model(folder: str, names: list[str]) -> list[str]:
    """Name what a training run leaves in its folder that is not part of the model."""
    return [
        name for name in names if name in ("metrics.jsonl", "loss.svg", "agreement.svg", "run.json")
    ]


def _without_paths(value: Any) -> Any:
    """Return a record with the last part alone of every absolute path in it."""
    if isinstance(value, Mapping):
        return {key: _without_paths(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_paths(part) for part in value]
    if isinstance(value, str) and value.startswith("/"):
        return Path(value).name
    return value


if __name__ == "__main__":
    main()
