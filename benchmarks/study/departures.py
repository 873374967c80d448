"""What differs between a study and the paper's own setting, read from the study's config."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.study.config import StudyConfig

__all__ = ["list_departures"]

_PAPER_BASE = "Mistral-7B-v0.1"
_PAPER = {
    "train.steps": 1000,
    "train.batch_pairs": 2048,
    "train.loss.scale": 50.0,
    "train.optimiser.learning_rate": 1e-5,
    "train.adapter.kind": "lora",
    "train.adapter.rank": 16,
    "train.adapter.alpha": 32,
    "train.adapter.dropout": 0.1,
    "train.adapter.targets": "all-linear",
    "pooling.latents": 768,
    "pooling.heads": 32,
    "pooling.head_width": 2048,
    "pooling.feedforward_multiple": 4,
    "pooling.init": "random",
}
"""The setting of arXiv 2409.02727, as far as millpond has a name for it."""


def list_departures(config: StudyConfig) -> list[str]:
    """Return a sentence for each thing that is not as in arXiv 2409.02727."""
    return [*config.departures, *_found(config)]


def _found(config: StudyConfig) -> Iterator[str]:
    others = [base.name for base in config.bases if not base.base.endswith(_PAPER_BASE)]
    if others:
        yield f"Base: {', '.join(others)}; the paper's main base is {_PAPER_BASE}."
    for key, paper in _PAPER.items():
        value: object = config
        for name in key.split("."):
            value = getattr(value, name)
        if value != paper:
            shown = "by width" if value is None else value
            yield f"{key} is {shown}; the paper's is {paper}."
    rate = config.train.optimiser.pooling_learning_rate
    if rate is not None and rate != config.train.optimiser.learning_rate:
        yield f"The poolings have a learning rate of their own, {rate:g}."
    layers = [base for base in config.bases if base.base_layers is not None]
    for base in layers:
        yield f"{base.name}: {base.base_layers} decoder layers are kept."
    for base in config.bases:
        yield f"{base.name}: texts are cut to {base.max_tokens} tokens."
    prompts = {base.query_prompt or base.document_prompt for base in config.bases}
    own = "none" if prompts == {""} else ", ".join(sorted(repr(one) for one in prompts if one))
    yield f"Prompts: {own}. The paper's prompts are not reproduced."
    sources = ", ".join(source.path.name for source in config.train.data)
    yield f"Training data: {sources}; not the paper's 1.4 million pairs."
    yield "Scores are of the tasks named here, not of the whole MTEB."
    yield "Padding is masked in every pooling; the authors' code lets last_layer attend to it."
