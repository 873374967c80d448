"""The model of an index: loaded by its name, in the arithmetic that made the vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedder.models.names import DEFAULT_MODEL
from retrieval.errors import FingerprintError
from retrieval.protocols import Notify, silent
from retrieval.types import Fingerprint

if TYPE_CHECKING:
    from embedder.embedder import Embedder
    from embedder.light import LightEncoder

__all__ = [
    "check_arithmetic",
    "choose_speed",
    "is_int8",
    "load_encoder",
    "load_for_index",
    "load_for_text",
]

_LAYERS = "linear_layers"
"""The setting of a fingerprint that int8 layers add."""


def load_encoder(
    model: str | None, device: str | None = None, speed: str = "exact", notify: Notify = silent
) -> Embedder:
    """Return the named model, or the default one, ready to encode; raises as ``Embedder.load``.

    Here torch is imported, and not with this module.
    """
    from embedder.embedder import Embedder
    from embedder.environment import check_speed

    name = model or DEFAULT_MODEL
    return Embedder.load(name, device=device, speed=check_speed(speed), notify=notify)


def load_for_index(
    made: Fingerprint,
    model: str | None = None,
    speed: str | None = None,
    device: str | None = None,
    *,
    where: str = "The index",
    notify: Notify = silent,
) -> Embedder:
    """Return the model that searches an index and adds to it.

    Parameters
    ----------
    made : the fingerprint of the index.
    model : by default the name of the model that made the index.
    speed : "exact" or "fast"; by default the one that the index was made with.
    device : "cuda", "mps" or "cpu"; the best there is by default.
    where : how messages name the index.
    notify : receives one line for the user at each slow or notable step.

    Raises
    ------
    FingerprintError : here the model computes in another arithmetic than the index was made with.
    MillpondError : as ``Embedder.load``.
    """
    chosen = choose_speed(speed, made)
    encoder = load_encoder(model or made.model, device, chosen, notify)
    check_arithmetic(made, encoder.fingerprint, chosen, where)
    return encoder


def load_for_text(
    made: Fingerprint,
    model: str | None = None,
    speed: str | None = None,
    device: str | None = None,
    *,
    where: str = "The index",
    notify: Notify = silent,
) -> Embedder | LightEncoder:
    """Return what embeds a single text soonest; parameters and errors as ``load_for_index``.

    On a CPU that is an encoder without torch, whose import takes longer than one search, if there
    is one for this model.
    """
    from embedder.light import load_light_encoder

    chosen = choose_speed(speed, made)
    int8 = chosen == "fast" and is_int8(made)
    light = None
    if device in (None, "cpu") and (int8 or chosen == "exact"):
        light = load_light_encoder(model or made.model, is_int8=int8)
    if light is None:
        return load_for_index(made, model, speed, device, where=where, notify=notify)
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
        advice = "Search on a CPU with VNNI, as the one that made it"
    else:
        advice = "Leave --speed exact out"
    raise FingerprintError(
        f"{where} was made with {made.model!r} and {_name_speed(made)}, and here the same model "
        f"computes with {_name_speed(found)}: {'; '.join(made.differences(found))}. Their vectors "
        f"cannot be compared. {advice}, or index the corpus again."
    )


def _name_speed(fingerprint: Fingerprint) -> str:
    return "int8 layers (--speed fast)" if is_int8(fingerprint) else "float layers"
