"""What mteb is told about a model; mteb itself is imported where it is used."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.optional import import_optional
from benchmarks.scoring.models import LoadedModel
from embedder.models.names import PREFIX, find_path
from embedder.models.sentence_transformers import SentenceTransformersEncoder
from retrieval import Encoder, Fingerprint
from retrieval.errors import MissingDependencyError

OWNER = "millpond"

_DIGITS = 12
_NAME_CHARACTERS = 100
_PURPOSE = "A model for mteb.evaluate"
_LICENCES = {"Apache-2.0": "apache-2.0", "Gemma Terms of Use": "gemma"}
"""Of the built-in bases, as mteb spells them."""


@dataclass(frozen=True)
class ModelFacts:
    """What mteb wants to know about a model and an ``Encoder`` does not tell; None if unknown.

    Attributes
    ----------
    parameters : their number.
    licence : of the weights, one of mteb's names or a URL.
    open_weights : whether anyone can have the weights.
    frameworks : of mteb's names, what computes.
    """

    parameters: int | None = None
    licence: str | None = None
    open_weights: bool | None = None
    frameworks: tuple[str, ...] = ()


def import_mteb(module: str) -> Any:
    """Return a module of mteb 2.

    Raises
    ------
    MissingDependencyError : it is not installed.
    """
    try:
        return import_optional(module, _PURPOSE)
    except MissingDependencyError as error:
        raise MissingDependencyError("mteb 2", _PURPOSE, 'pip install "millpond[mteb]"') from error


def find_facts(model: str, loaded: LoadedModel) -> ModelFacts:
    """Return what is known of a model that was just loaded."""
    from embedder import Embedder
    from embedder.models.bases import BASES

    parameters = loaded.costs.get("parameters")
    count = None if parameters is None else int(parameters)
    if isinstance(loaded.encoder, SentenceTransformersEncoder):
        return ModelFacts(count, frameworks=("Sentence Transformers",))
    if not isinstance(loaded.encoder, Embedder):
        return ModelFacts(count)
    frameworks = ("PyTorch", "Transformers")
    base = BASES.get(loaded.encoder.spec.base)
    if base is None or loaded.encoder.trained:  # whoever trained it decides
        return ModelFacts(count, frameworks=frameworks)
    return ModelFacts(count, _LICENCES.get(base.licence), True, frameworks)


def describe_model(encoder: Encoder, facts: ModelFacts) -> Any:
    """Return a ``mteb.models.ModelMeta`` in which None stands for unknown."""
    return describe_fingerprint(encoder.fingerprint, facts, encoder.dimension)


def describe_fingerprint(
    fingerprint: Fingerprint, facts: ModelFacts, dimension: int | None, name: str | None = None
) -> Any:
    """Return a ``mteb.models.ModelMeta`` of a model that is known by its fingerprint alone.

    Parameters
    ----------
    name : OWNER/NAME, where it is not made from the fingerprint's.
    """
    settings = fingerprint.settings
    prompts = [settings.get(f"{side}_prompt") for side in ("query", "document")]
    return import_mteb("mteb.models.model_meta").ModelMeta(
        loader=None,
        name=name or mteb_model_name(fingerprint.model),
        revision=fingerprint.digest[:_DIGITS],
        release_date=None,
        languages=None,
        n_parameters=facts.parameters,
        memory_usage_mb=None,
        max_tokens=settings.get("max_tokens"),
        embed_dim=dimension,
        license=facts.licence,
        open_weights=facts.open_weights,
        public_training_code=None,
        public_training_data=None,
        framework=list(facts.frameworks),
        similarity_fn_name="dot" if settings.get("normalize") is False else "cosine",
        use_instructions=None if None in prompts else any(prompts),
        training_datasets=None,
    )


def mteb_model_name(model: str) -> str:
    """Return OWNER/NAME in characters that a file name can hold; of a path only the last part."""
    prefix = "st-" if model.startswith(PREFIX) else ""
    model = model.removeprefix(PREFIX)
    place = re.split(r"[:,]", model, maxsplit=1)[0]
    rest = model[len(place) :]
    path = find_path(place)
    if path is not None or place.startswith((".", "/", "~")):
        place = (path or Path(place)).resolve().name
    plain = re.sub(r"[^A-Za-z0-9.+=_-]+", "-", place + rest)[:_NAME_CHARACTERS].strip("-.")
    return f"{OWNER}/{prefix}{plain or 'model'}"
