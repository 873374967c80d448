"""The model of an index: loaded by its name, in the arithmetic that made the vectors."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from embedder.models.bases import BASES
from embedder.models.names import (
    DEFAULT_MODEL,
    DEFAULT_VARIANT,
    PREFIX,
    find_saved_model,
    is_folder,
    is_hub_id,
    read_name,
    split_name,
)
from retrieval.errors import FingerprintError, UsageError
from retrieval.protocols import Notify, silent
from retrieval.types import Fingerprint

if TYPE_CHECKING:
    from embedder.embedder import Embedder
    from embedder.light import LightEncoder
    from embedder.models.sentence_transformers import SentenceTransformersEncoder

LoadedEncoder: TypeAlias = "Embedder | SentenceTransformersEncoder"
"""What computes a model that a user named."""

_LAYERS = "linear_layers"
"""The setting of a fingerprint that int8 layers add."""


def load_encoder(
    model: str | Path | None,
    device: str | None = None,
    speed: str = "exact",
    notify: Notify = silent,
    *,
    trust_remote_code: bool = False,
) -> LoadedEncoder:
    """Return the named model, or the default one, ready to encode.

    sentence-transformers computes what is named ``st:NAME``, and by itself every encoder (BERT,
    XLM-R, ModernBERT ...) and encoder-decoder. torch is imported here, and not with this module.

    Parameters
    ----------
    model : ``st:NAME``, or as ``Embedder.load`` takes it.
    device : "cuda", "mps" or "cpu"; the best there is by default.
    speed : "exact" or "fast", which sentence-transformers does not know.
    notify : receives one line for the user at each slow or notable step.
    trust_remote_code : whether sentence-transformers may run Python code that comes with a model.

    Raises
    ------
    UsageError : an encoder was named with a pooling and an attention.
    MissingDependencyError : sentence-transformers is needed and not installed.
    MillpondError : as ``Embedder.load``.
    """
    from embedder.embedder import Embedder
    from embedder.environment import check_speed

    name = read_name(DEFAULT_MODEL if model is None else model)
    known_speed = check_speed(speed)
    notify = cache(notify)  # each line once
    reason = _needs_library(name, trust_remote_code, notify)
    if reason is None:
        return Embedder.load(name, device=device, speed=known_speed, notify=notify)
    from embedder.models.sentence_transformers import load_sentence_transformers

    if known_speed == "fast":
        notify(f"speed fast: sentence-transformers computes {name} at the one speed it has.")
    return load_sentence_transformers(
        name, device, notify, reason=reason, trust_remote_code=trust_remote_code
    )


def _needs_library(name: str, trust_remote_code: bool, notify: Notify) -> str | None:
    """Return why sentence-transformers loads a model, "" if its name says so; None if we do."""
    if name.startswith(PREFIX):
        return ""
    if find_saved_model(name) is not None:
        return None
    from embedder.models.foreign.files import ask_commit, find_code
    from embedder.models.sentence_transformers import needs_sentence_transformers
    from embedder.variants import parse_model_name

    plain = split_name(name)[0]
    spec = parse_model_name(plain, DEFAULT_VARIANT)
    if spec.base in BASES or not (is_folder(spec.base) or is_hub_id(spec.base)):
        return None
    is_here = is_folder(spec.base)
    commit = None if is_here else ask_commit(spec.base, spec.revision, notify)
    reason = needs_sentence_transformers(spec.base, commit)
    if not reason and trust_remote_code and find_code(spec.base, commit):
        reason = "it comes with Python code of its own"
    if not reason:
        return None
    shown = f"{spec.base}@{spec.revision}" if spec.revision else spec.base
    if plain != shown and not is_folder(plain):
        raise UsageError(
            f"{plain!r} names a pooling and an attention, and sentence-transformers computes "
            f"{spec.base}: {reason}. It has its own; type --model {shown}."
        )
    return reason


def load_for_index(
    made: Fingerprint,
    model: str | None = None,
    speed: str | None = None,
    device: str | None = None,
    *,
    where: str = "The index",
    notify: Notify = silent,
    trust_remote_code: bool = False,
    instruction: str | None = None,
) -> LoadedEncoder:
    """Return the model that searches an index and adds to it.

    Parameters
    ----------
    made : the fingerprint of the index.
    model : by default the name of the model that made the index.
    speed : "exact" or "fast"; by default the one that the index was made with.
    device : "cuda", "mps" or "cpu"; the best there is by default.
    where : how messages name the index.
    notify : receives one line for the user at each slow or notable step.
    trust_remote_code : as ``load_encoder``.
    instruction : goes before queries in the model's template, in place of the index's query prompt.

    Raises
    ------
    FingerprintError : here the model computes in another arithmetic than the index was made with.
    MillpondError : as ``load_encoder``.
    """
    chosen = choose_speed(speed, made)
    name = model or made.model
    if instruction is not None:
        from embedder.instructions import replace_instruction

        name = replace_instruction(name, instruction, notify)
    encoder = load_encoder(name, device, chosen, notify, trust_remote_code=trust_remote_code)
    check_arithmetic(made, encoder.fingerprint, chosen, where)
    return encoder


def load_for_text(
    made: Fingerprint,
    model: str | None = None,
    speed: str | None = None,
    device: str | None = None,
    *,
    where: str = "The index",
    instruction: str | None = None,
) -> LightEncoder | None:
    """Return an encoder without torch, whose import takes longer than one search; None without one.

    It is for one text on a CPU. Parameters and errors are those of ``load_for_index``.
    """
    from embedder.light import load_light_encoder

    chosen = choose_speed(speed, made)
    int8 = chosen == "fast" and is_int8(made)
    if device not in (None, "cpu") or instruction is not None or (chosen == "fast" and not int8):
        return None
    light = load_light_encoder(model or made.model, is_int8=int8)
    if light is not None:
        check_arithmetic(made, light.fingerprint, chosen, where)
    return light


def is_int8(fingerprint: Fingerprint) -> bool:
    """Return whether linear layers in int8 made the vectors."""
    return str(fingerprint.settings.get(_LAYERS)).startswith("int8")


def choose_speed(asked: str | None, made: Fingerprint) -> str:
    """Return the speed that was asked for, or else the one that an index was made with."""
    return asked or ("fast" if is_int8(made) else "exact")


def check_arithmetic(made: Fingerprint, found: Fingerprint, speed: str, where: str) -> None:
    """Raise FingerprintError if this is the model of an index, in another arithmetic.

    Parameters
    ----------
    made, found : of the index, and of the model that was loaded with ``speed``.
    where : how messages name the index.
    """
    names = {*made.settings, *found.settings} - {_LAYERS}
    same = all(made.settings.get(name) == found.settings.get(name) for name in names)
    if not same or is_int8(made) == is_int8(found):
        return
    if is_int8(found):
        advice = "Leave --speed fast out"
    elif speed == "fast":
        advice = "Search where `millpond doctor` says that fast is int8, as where it was made"
    else:
        advice = "Leave --speed exact out"
    raise FingerprintError(
        f"{where} was made with {made.model!r} and {_name_speed(made)}, and here the same model "
        f"computes with {_name_speed(found)}: {'; '.join(made.differences(found))}. Their vectors "
        f"cannot be compared. {advice}, or index the corpus again."
    )


def _name_speed(fingerprint: Fingerprint) -> str:
    return "int8 layers (--speed fast)" if is_int8(fingerprint) else "float layers"
