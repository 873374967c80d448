"""Packs a trained model to be shipped.

    python -m benchmarks.lab.builtin.pack builtin-model/stage10-white --out packed

The weights stay as they are; in the training record, the topics of a source become one entry.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from embedder.models.card import write_card
from embedder.models.manifest import Manifest, read_manifest
from embedder.models.names import MANIFEST_NAME
from embedder.models.saving import new_folder

__all__ = ["join_topics", "main", "pack_model"]

_TOPIC = re.compile(r"(?P<source>.+)-\d{3}(?P<kind>\.jsonl)")
_MORE = (
    "How it was made, what it scores and the licences of the data: "
    "`docs/builtin-model.md`\nin millpond's repository.\n"
)


def join_topics(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a training record in which the topics of a source are one entry.

    Topics are the files ``SOURCE-000.jsonl`` and on that ``split_by_topic`` makes. The hash of a
    joined entry is the SHA-256 over the topics' hexadecimal SHA-256s, one after another.
    """
    joined = dict(record)
    if "data" in joined:
        joined["data"] = [_join_data(name, rows) for name, rows in _by_source(joined["data"])]
    if "data" in joined.get("config", {}):
        rows = [{**same[0], "path": name} for name, same in _by_source(joined["config"]["data"])]
        joined["config"] = {**joined["config"], "data": rows}
    if "start" in joined:
        start = joined["start"]
        joined["start"] = {**start, "record": join_topics(start["record"])}
    return joined


def pack_model(folder: Path, out: Path) -> None:
    """Write the MODEL_DIR ``folder`` to the new folder ``out``, its record shortened.

    Raises
    ------
    SourceNotFoundError, ModelError : ``folder`` is no model, or damaged.
    UsageError : ``out`` is not empty.
    """
    manifest = read_manifest(folder)
    manifest.check_files(folder)
    packed: Manifest = replace(manifest, record=_without_paths(join_topics(manifest.record)))
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
    return [name for name in names if name in ("metrics.jsonl", "loss.svg", "run.json")]


def _by_source(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """Group neighbours that are topics of one source; return each group with its name."""
    groups = []
    for source, group in groupby(rows, key=lambda row: _source(row["path"])):
        same = list(group)
        topics = f", {len(same)} topics" if _TOPIC.fullmatch(Path(same[0]["path"]).name) else ""
        groups.append((source + topics, same))
    return groups


def _source(path: str) -> str:
    name = Path(path).name
    match = _TOPIC.fullmatch(name)
    return match["source"] + match["kind"] if match else name


def _join_data(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if len(rows) == 1 and not name.endswith("topics"):
        return {**rows[0], "path": name}
    hashes = "".join(sha256 for row in rows for sha256 in row["sha256"].values())
    return {
        "path": name,
        "sha256": {"sha256 of the topics' sha256": hashlib.sha256(hashes.encode()).hexdigest()},
        "pairs": sum(row["pairs"] for row in rows),
        "negatives": sum(row["negatives"] for row in rows),
        "weight": rows[0]["weight"],
    }


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
