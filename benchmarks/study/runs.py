"""The runs of a study: one training run and its scores, for each base, variant and seed."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import Any

from benchmarks.study.config import StudyBase, StudyConfig, StudyVariant, choose_layers
from embedder.pooling import PoolingOptions, get_pooling
from embedder.training.config import TrainConfig
from embedder.variants import VariantSpec, get_variant
from retrieval.errors import UsageError

__all__ = ["StudyRun", "list_runs"]


@dataclass(frozen=True)
class StudyRun:
    """One training run.

    Attributes
    ----------
    base, variant, seed : names, as tables show them.
    train : all that decides its weights.
    """

    base: str
    variant: str
    seed: int
    train: TrainConfig

    @property
    def name(self) -> str:
        """What results and messages call it."""
        return f"{self.base}: {self.variant}, seed {self.seed}"

    @property
    def folder_name(self) -> str:
        """A name that a file system takes."""
        parts = (re.sub(r"[^A-Za-z0-9.+=-]+", "_", part) for part in (self.base, self.variant))
        return "--".join([*parts, f"seed-{self.seed}"])


def list_runs(config: StudyConfig) -> list[StudyRun]:
    """Return every run, all variants of a seed before the next seed.

    So a study that is stopped early has whole seeds.

    Raises
    ------
    UsageError : a variant cannot be had on a base, or two names cannot be told apart in a folder.
    """
    runs = [
        StudyRun(base.name, variant.name, seed, _train_config(config, base, variant, seed))
        for seed in config.seeds
        for base in config.bases
        for variant in config.variants
        if not variant.bases or base.name in variant.bases
    ]
    known: dict[str, StudyRun] = {}
    for run in runs:
        other = known.setdefault(run.folder_name, run)
        if other is not run:
            raise UsageError(
                f"{other.name!r} and {run.name!r} would share the folder {run.folder_name!r}. "
                f"Rename a base or a variant."
            )
    return runs


def _train_config(
    config: StudyConfig, base: StudyBase, variant: StudyVariant, seed: int
) -> TrainConfig:
    budget = {field.name: getattr(config.train, field.name) for field in fields(config.train)}
    return TrainConfig(**budget, model=_spec(config, base, variant, seed), seed=seed)


def _spec(config: StudyConfig, base: StudyBase, variant: StudyVariant, seed: int) -> VariantSpec:
    found = get_variant(variant.variant)
    settings = asdict(base)
    del settings["name"]
    accepted = get_pooling(found.pooling).options
    shared: dict[str, Any] = {"seed": seed, **config.pooling.changed()}
    options = {name: value for name, value in shared.items() if name in accepted}
    options |= variant.options.changed()
    if variant.layers != "all":
        if base.base_layers is None:
            raise UsageError(
                f"The variant {variant.name!r} reads {variant.layers!r} of the layers, so "
                f"base_layers of {base.name} must be given, also where all are kept."
            )
        options["layers"] = choose_layers(variant.layers, base.base_layers)
    return VariantSpec(
        **settings,
        pooling=found.pooling,
        attention=found.attention,
        pooling_options=PoolingOptions(**options),
    )
