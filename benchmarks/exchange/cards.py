"""Scores on model cards: the model-index of their metadata, in hundredths as MTEB's is."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.integrations.mteb_tasks import TASK_TYPE_OF, rename_cuts
from benchmarks.optional import import_optional
from benchmarks.scoring.results import Result, read_results
from embedder.environment import first_line
from embedder.models.names import PREFIX
from retrieval.disk import replace_file
from retrieval.errors import SourceNotFoundError, UsageError

_PURPOSE = "Writing a model card"
_CARD = "README.md"
_TYPES = {ours: theirs for theirs, ours in reversed(TASK_TYPE_OF.items())}


def render_metadata(model: str, results: Sequence[Result]) -> str:
    """Return the metadata for the top of a model's card, with the scores of its results."""
    cards = import_optional("huggingface_hub.repocard_data", _PURPOSE)
    name = re.split(r"[/\\]", model.rstrip("/\\"))[-1] or model
    data = cards.ModelCardData(model_name=name, eval_results=_evaluations(results))
    return f"---\n{data.to_yaml()}\n---\n"


def write_card(folder: Path, model: Path) -> tuple[Path, int]:
    """Put a model's scores into the card of its folder; return the card, and how many tasks.

    Scores that the card has of other tasks stay.

    Parameters
    ----------
    folder : of results, as ``read_results`` takes it.
    model : its folder, with a README.md.

    Raises
    ------
    SourceNotFoundError : there is no such folder or card.
    UsageError : no result is of this folder, or the card's metadata cannot be read.
    RecordError, StorageError : as ``read_results``; a full disk.
    """
    path = model / _CARD
    if not path.is_file():
        raise SourceNotFoundError(
            f"{model} holds no {_CARD}. Name a model's folder, such as 'millpond train' writes."
        )
    found = read_results(folder)
    own = [one for one in found if _is_of(one, model) and not one.source]
    if not own:
        models = ", ".join(dict.fromkeys(one.model for one in found if not one.source))
        raise UsageError(
            f"No result of {folder} is of {model}; there are those of {models or 'none'}. Type: "
            f"millpond bench --model {model} --task TASK --out {folder}"
        )
    module, yaml = (import_optional(one, _PURPOSE) for one in ("huggingface_hub.repocard", "yaml"))
    try:
        card = module.ModelCard(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: its metadata cannot be read ({first_line(error)}).") from error
    rows = _evaluations(own)
    new = {row.unique_identifier for row in rows}
    kept = [one for one in card.data.eval_results or [] if one.unique_identifier not in new]
    card.data.eval_results = [*kept, *rows]
    card.data.model_name = card.data.model_name or model.resolve().name
    replace_file(path, str(card).encode())
    return path, len({one.task for one in own})


def _is_of(result: Result, model: Path) -> bool:
    name = str(result.recipe.get("model", result.model)).removeprefix(PREFIX)
    return Path(name).expanduser().resolve() == model.expanduser().resolve()


def _evaluations(results: Sequence[Result]) -> list[Any]:
    cards = import_optional("huggingface_hub.repocard_data", _PURPOSE)
    return [
        cards.EvalResult(
            task_type=_TYPES.get(result.task_type, "Other"),
            dataset_type=result.source.get("task", result.task),
            dataset_name=result.task,
            dataset_split=result.data.get("split"),
            dataset_revision=result.source.get("dataset_revision", result.data.get("revision")),
            metric_type=name,
            metric_value=round(100 * score, 4),
        )
        for result in results
        for name, score in rename_cuts(result.metrics).items()
        if math.isfinite(score)
    ]
