"""``millpond whiten``: fit a whitening on texts and save it with a model."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cli.commands.convert import report_model
from cli.console import message, progress, warn
from cli.models import warn_skipped
from cli.options import DeviceOption, NewModelOption, SkipBadOption, argument, option
from embedder.environment import keep_freed_memory
from retrieval.errors import UsageError

if TYPE_CHECKING:
    from embedder.models.saving import WeightsDtype


def whiten(
    model: Annotated[str, argument("MODEL", "As --model of 'millpond index'; untrained or not.")],
    out: NewModelOption,
    corpus: Annotated[
        list[str] | None,
        option("CORPUS", "Documents to fit on: anything that 'millpond embed' reads; repeatable."),
    ] = None,
    pairs: Annotated[
        list[Path] | None,
        option(
            "FILE",
            "Queries and positives to fit on: anything that 'millpond train' reads; repeatable.",
        ),
    ] = None,
    power: Annotated[
        float, option("P", "0 only subtracts the mean, 0.5 makes all variances equal.")
    ] = 0.25,
    mean_share: Annotated[float, option("S", "How much of the mean is subtracted, 0 to 1.")] = 1.0,
    texts: Annotated[
        int, option("N", "Fit on at most N texts, drawn evenly from all.", min=1)
    ] = 8192,
    seed: Annotated[int, option("N", "Seed of the draw.")] = 0,
    weights_dtype: Annotated[
        str | None, option("DTYPE", "float32 or bfloat16.", shown="as the model was saved")
    ] = None,
    skip_bad: SkipBadOption = False,
    device: DeviceOption = None,
) -> None:
    """Whiten a model's vectors by texts alone, without training.

    The states of a decoder point in much the same direction whatever the text says. Whitening
    subtracts their mean and evens out their variances, which usually helps an untrained model a lot
    and a trained one a little. It needs no labels, only texts like those that will be searched.

    \b
    Examples:
      millpond whiten smollm2-135m:mean+causal --corpus corpus.jsonl --out my-model
      millpond whiten millpond-135m --pairs pairs.jsonl --power 0.1 --out my-model
    """
    from embedder.models.saving import check_new_folder
    from embedder.models.whiten import whiten_model

    if not corpus and not pairs:
        raise UsageError("There is nothing to fit on. Add --corpus CORPUS or --pairs FILE.")
    check_new_folder(out)
    share = max(1, texts // (len(corpus or []) + len(pairs or [])))
    dice = random.Random(seed)
    queries, documents, record = _draw(corpus or [], pairs or [], share, dice, skip_bad)
    keep_freed_memory()
    with progress("Embedding", len(queries) + len(documents), "texts") as advance:
        whiten_model(
            model,
            queries,
            documents,
            out,
            power=power,
            mean_share=mean_share,
            record={"sources": record, "seed": seed},
            weights_dtype=cast("WeightsDtype | None", weights_dtype),
            device=device,
            notify=message,
            progress=advance,
        )
    report_model(out, f", whitened on {len(queries) + len(documents):,} texts.")


def _draw(
    corpora: Iterable[str], pairs: Iterable[Path], share: int, dice: random.Random, skip_bad: bool
) -> tuple[list[str], list[str], list[dict[str, Any]]]:
    """Return distinct queries, distinct documents, and a record of the sources."""
    from embedder.training.config import DataSource
    from embedder.training.data import PairSource
    from retrieval.texts import open_texts

    queries: list[str] = []
    documents: list[str] = []
    record: list[dict[str, Any]] = []
    for name in corpora:
        texts = open_texts(name, skip_bad=skip_bad)
        drawn = _reservoir((document.content for document in texts), share, dice)
        warn_skipped(texts)
        documents += drawn
        record.append({"path": name, "texts": len(drawn)})
    for path in pairs:
        source = PairSource(DataSource(path=path), skip_bad=skip_bad)
        for note in source.notes:
            warn(note)
        chosen = sorted(dice.sample(range(len(source)), min(len(source), (share + 1) // 2)))
        for pair in (source[index] for index in chosen):
            queries.append(pair.query)
            documents.append(pair.positive)
        record.append({"path": path.name, "sha256": source.sha256, "texts": 2 * len(chosen)})
    return list(dict.fromkeys(queries)), list(dict.fromkeys(documents)), record


def _reservoir(texts: Iterable[str], count: int, dice: random.Random) -> list[str]:
    """Return ``count`` of the non-empty texts, each as likely as another, or all if fewer."""
    kept: list[str] = []
    for number, text in enumerate(text for text in texts if text.strip()):
        if number < count:
            kept.append(text)
        elif (place := dice.randrange(number + 1)) < count:
            kept[place] = text
    return kept
