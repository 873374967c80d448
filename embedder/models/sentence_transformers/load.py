"""Finds and loads what sentence-transformers computes: ``st:NAME``, and published encoders."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedder.environment import (
    choose_device,
    first_line,
    quiet_loggers,
    quiet_transformers,
    refuse_missing_weights,
)
from embedder.models.cards import say_which_prompts
from embedder.models.foreign.files import ask_commit, find_code, name_encoder, read_model_json
from embedder.models.names import (
    PREFIX,
    is_folder,
    is_hub_id,
    is_saved_model,
    parse_changes,
    split_name,
)
from embedder.models.sentence_transformers.encoder import (
    PROMPT_NAMES,
    SentenceTransformersEncoder,
    check_threads,
    find_document_prompt,
)
from retrieval.errors import ModelError, SourceNotFoundError, UsageError, import_optional
from retrieval.protocols import Notify

if TYPE_CHECKING:
    import torch

_OURS = "sentence_transformers."
_EMBEDDER = "SentenceTransformer"
TEXT_SETTINGS = "sentence_bert_config.json"
_REVISION = re.compile(r"(?P<place>[^/]+(?:/[^/]+)?)@(?P<revision>[\w.\-]+)")


@dataclass(frozen=True)
class Asked:
    """A model that a user named.

    Attributes
    ----------
    name : what names it from any folder.
    place : its folder, or its id on the model hub.
    revision : of a hub id.
    options : what is to differ from what its files say.
    """

    name: str
    place: str
    revision: str | None
    options: Mapping[str, Any]

    @property
    def shown(self) -> str:
        """The name as messages show it."""
        return self.name.removeprefix(PREFIX)

    def find_commit(self) -> str | None:
        """Return the commit that all files are to come from, None for a folder."""
        return None if is_folder(self.place) else ask_commit(self.place, self.revision)


def find_folder(name: str) -> Path | None:
    """Return the folder that a name with or without ``st:`` names, None for a model of the hub.

    Raises
    ------
    SourceNotFoundError : the name is a path, and there is no such folder.
    """
    place = name.removeprefix(PREFIX)
    written, _ = split_name(place)
    if is_folder(written):
        return Path(written).expanduser().resolve()
    if place.startswith((".", "/", "~")):
        raise SourceNotFoundError(f"{place}: there is no such folder; it was named by {name!r}.")
    return None


def find_place(name: str) -> tuple[str, str | None]:
    """Return the folder or hub id that a name with or without ``st:`` means, and its commit.

    Raises
    ------
    SourceNotFoundError : as ``find_folder``.
    UsageError, UnknownNameError : an option does not exist, or a value is not of its type.
    ModelError : the model hub does not give it.
    """
    asked = _read_name(name)
    return asked.place, asked.find_commit()


def needs_sentence_transformers(base: str, revision: str | None = None) -> str:
    """Return why sentence-transformers has to compute a folder or hub id, in words; else "".

    Raises
    ------
    ModelError : a file of the folder cannot be read.
    """
    place = str(Path(base).expanduser())
    parts = _read_modules(place, revision)
    for number, part in enumerate(parts):
        kind = str(part.get("type"))
        if not kind.startswith(_OURS):
            return f"its modules.json names {kind}"
        if number == 0 and not kind.endswith(".Transformer"):
            return f"its modules.json begins with {kind.rpartition('.')[2]}"
    subfolder = parts[0].get("path", "") if parts else ""
    settings = read_model_json(place, f"{subfolder}/{TEXT_SETTINGS}".lstrip("/"), revision)
    kinds = settings.get("modality_config") if isinstance(settings, dict) else None
    if isinstance(kinds, dict) and "message" in kinds:
        return f"its {TEXT_SETTINGS} puts texts into a chat template"
    config = read_model_json(place, f"{subfolder}/config.json".lstrip("/"), revision)
    if not isinstance(config, dict):
        return _name_adapted_encoder(read_model_json(place, "adapter_config.json", revision))
    return name_encoder(str(config.get("model_type")), bool(config.get("is_encoder_decoder")))


def _name_adapted_encoder(adapter: Any) -> str:
    """Return why sentence-transformers has to compute an adapter, "" where we do."""
    base = adapter.get("base_model_name_or_path") if isinstance(adapter, dict) else None
    if not isinstance(base, str) or not (is_folder(base) or is_hub_id(base)):
        return ""
    config = read_model_json(str(Path(base).expanduser()), "config.json")
    if not isinstance(config, dict):
        return ""
    kind = name_encoder(str(config.get("model_type")), bool(config.get("is_encoder_decoder")))
    return f"it is an adapter of {base}, and {kind}" if kind else ""


def _read_modules(place: str, revision: str | None) -> list[dict[str, Any]]:
    """Return the entries of modules.json, none where there is no such file."""
    found = read_model_json(place, "modules.json", revision)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(part, dict) for part in found):
        raise ModelError(f"{place}: its modules.json is no list of modules.")
    return found


def load_sentence_transformers(
    name: str,
    device: str | None,
    notify: Notify,
    *,
    reason: str = "",
    trust_remote_code: bool = False,
) -> SentenceTransformersEncoder:
    """Return a model as sentence-transformers computes it, on a CPU in float32.

    Parameters
    ----------
    name : a folder or hub id, with or without ``st:`` before it and ``,OPTION=VALUE...`` after it.
    reason : why it is loaded in this way, where its name does not say so.
    trust_remote_code : whether Python code that comes with the model may be run.

    Raises
    ------
    MissingDependencyError : sentence-transformers is not installed.
    SourceNotFoundError : as ``find_folder``.
    UsageError, UnknownNameError : an option does not exist or does not fit the model; or this
        process was forked from one that had computed.
    ModelError : it comes with code and is not trusted, or cannot be loaded.
    """
    library = import_library(name, reason)
    check_threads()
    chosen = choose_device(device)
    asked = find_model(name, notify, reason, trust_remote_code=trust_remote_code)
    with loading(repr(asked.shown), "that it saved") as missing:
        how = load_options(asked, chosen, trust_remote_code=trust_remote_code)
        model = library.SentenceTransformer(asked.place, **how)
        limit_positions(model)
        _apply(asked, model)
        encoder = SentenceTransformersEncoder(asked.name, model)
    # Poolings read the states of tokens, so no vector depends on BERT's own pooler.
    refuse_missing_weights(asked.shown, [name for name in missing if "pooler" not in name])
    _say_what_differs(asked, encoder, model, notify)
    return encoder


def find_model(
    name: str, notify: Notify, reason: str = "", *, trust_remote_code: bool = False
) -> Asked:
    """Return the model that a name means, at one commit, after saying that it is loaded.

    Raises
    ------
    SourceNotFoundError, UsageError, UnknownNameError, ModelError : as
        ``load_sentence_transformers``.
    """
    asked = _read_name(name)
    notify(f"Loading {asked.shown} with sentence-transformers" + (f": {reason}" if reason else ""))
    asked = replace(asked, revision=asked.find_commit())
    if not trust_remote_code:
        _refuse_code(asked)
    return asked


def _say_what_differs(
    asked: Asked, encoder: SentenceTransformersEncoder, model: Any, notify: Notify
) -> None:
    """Tell what the user might not expect of this model."""
    shown = asked.shown
    settings = read_model_json(asked.place, "config_sentence_transformers.json", asked.revision)
    kind = settings.get("model_type", _EMBEDDER) if isinstance(settings, dict) else _EMBEDDER
    no_modules = read_model_json(asked.place, "modules.json", asked.revision) is None
    if no_modules or kind != _EMBEDDER:
        modes = [mode for part in model if (mode := getattr(part, "pooling_mode", None))]
        pooling = f"{modes[0]} pooling" if modes else "no pooling"
        why = "has no modules.json" if no_modules else f"was saved as a {kind}, no embedding model"
        notify(f"{shown} {why}; sentence-transformers' default, {pooling}, is used.")
    if model.similarity_fn_name not in ("cosine", "dot"):
        notify(f"{shown} compares by {model.similarity_fn_name}; here vectors compare by cosine.")
    document_prompt = find_document_prompt(shown, model.prompts, notify)
    if not {"query_prompt", "document_prompt"} & asked.options.keys():
        used = (encoder.prompt("query"), document_prompt)
        say_which_prompts(asked.place, used, model.prompts or {}, notify)


def import_library(name: str, reason: str) -> Any:
    """Return sentence-transformers; raise MissingDependencyError where it is not installed."""
    purpose = f"The model {name!r}" + (f" ({reason})" if reason else "")
    install = 'pip install "millpond[sentence-transformers]"'
    return import_optional("sentence_transformers", purpose, install, "sentence-transformers")


def _read_name(name: str) -> Asked:
    folder = find_folder(name)
    prefix = PREFIX if name.startswith(PREFIX) else ""
    text = name.removeprefix(PREFIX)
    plain, written = split_name(text)
    options = parse_changes(written, "option of a model of sentence-transformers")
    if folder is not None:
        return Asked(f"{prefix}{folder}{written}", str(folder), None, options)
    found = _REVISION.fullmatch(plain)
    place, revision = (found["place"], found["revision"]) if found else (plain, None)
    if "/" not in place:
        place = _add_owner(place)
    return Asked(f"{prefix}{plain}{written}", place, revision, options)


def _add_owner(name: str) -> str:
    """Return the hub id of a name without an owner, as sentence-transformers completes it."""
    util = importlib.import_module("sentence_transformers.util.misc")
    known = name.lower() in util.ORIGINAL_TRANSFORMER_MODELS
    return name if known else f"sentence-transformers/{name}"


def _refuse_code(asked: Asked) -> None:
    """Raise ModelError where a model names Python code that it comes with."""
    advice = (
        "Without it this would be another model. If you have read the code and trust it, add "
        "--trust-remote-code (in Python: trust_remote_code=True)"
    )
    if is_saved_model(asked.place):
        advice = f"Type {asked.place} without st:"
    if found := _find_code(asked.place, asked.revision):
        raise ModelError(f"The model {asked.name!r} {found}. {advice}.")


def _find_code(place: str, revision: str | None) -> str:
    """Return a clause on the Python code that a model comes with, "" for none."""
    own = "comes with Python code of its own"
    parts = _read_modules(place, revision)
    for kind in (str(part.get("type")) for part in parts):
        if not kind.startswith(_OURS):
            return f"{own}: modules.json names the class {kind}"
    for path in (str(part.get("path")) for part in parts if str(part.get("type"))[-6:] == ".Dense"):
        dense = read_model_json(place, f"{path}/config.json", revision)
        said = str((dense if isinstance(dense, dict) else {}).get("activation_function", "torch."))
        if not said.startswith("torch."):
            return f"{own}: {path}/config.json names the activation {said}"
    for subfolder in dict.fromkeys(("", *(str(part.get("path", "")) for part in parts))):
        if named := find_code(place, revision, subfolder):
            return f"{own}, which {f'{subfolder}/{named}'.lstrip('/')} names as auto_map"
    adapter = read_model_json(place, "adapter_config.json", revision)
    base = adapter.get("base_model_name_or_path") if isinstance(adapter, dict) else None
    if base and (named := find_code(str(base))):
        return f"is an adapter of {base!r}, which {own}: {named} names it as auto_map"
    return ""


def load_options(asked: Asked, device: torch.device, *, trust_remote_code: bool) -> dict[str, Any]:
    """Return how a model of sentence-transformers is loaded, on a CPU in float32."""
    return {
        "device": str(device),
        "revision": asked.revision,
        "trust_remote_code": trust_remote_code,
        "model_kwargs": {"dtype": "float32"} if device.type == "cpu" else None,
    }


class _MissingWeights(logging.Filter):
    """Takes the names of weights that transformers reports as missing, and lets nothing through."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        for line in record.getMessage().splitlines():
            name, _, said = line.partition("|")
            if "MISSING" in said:
                self.names.append(name.strip())
        return record.levelno >= logging.ERROR


@contextmanager
def _note_missing_weights() -> Iterator[list[str]]:
    """Give a list that is filled with the names of the weights that a model lacks."""
    logger, found = logging.getLogger("transformers.modeling_utils"), _MissingWeights()
    level = logger.level
    logger.setLevel(logging.WARNING)
    logger.addFilter(found)
    try:
        yield found.names
    finally:
        logger.removeFilter(found)
        logger.setLevel(level)


@contextmanager
def loading(what: str, folder: str) -> Iterator[list[str]]:
    """Silence what the libraries log below an error, and turn what they raise into ModelError.

    Gives a list, which is filled with the names of the weights that the model lacks.

    Parameters
    ----------
    what, folder : how the message names the model, and which folder it asks for instead.
    """
    try:
        with (
            quiet_transformers(),
            quiet_loggers("sentence_transformers"),
            _note_missing_weights() as missing,
        ):
            yield missing
    except UsageError:
        raise
    except Exception as error:  # every library below raises its own kinds
        raise ModelError(
            f"sentence-transformers cannot load {what}: {first_line(error)} Name a folder "
            f"{folder}, or OWNER/NAME on the hub."
        ) from error


def limit_positions(model: Any) -> None:
    """Shorten the longest input to the positions that a model has; RoBERTa's begin after padding.

    sentence-transformers fails on longer texts where no file names the longest input.
    """
    for path, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if path.endswith(".position_embeddings") and padding is not None:
            _shorten(model, module.num_embeddings - padding - 1)


def _shorten(model: Any, tokens: int) -> bool:
    """Have each input module read no more tokens; return whether one can be told to.

    A Router has several; those that read every token, such as StaticEmbedding, take no limit.
    """
    routes = getattr(model[0], "sub_modules", None)
    inputs = [model[0]] if routes is None else [parts[0] for parts in routes.values() if len(parts)]
    told = False
    for part in inputs:
        limit = getattr(type(part), "max_seq_length", None)
        if not hasattr(part, "max_seq_length") or (
            isinstance(limit, property) and limit.fset is None
        ):
            continue
        told = True
        if part.max_seq_length is None or part.max_seq_length > tokens:
            part.max_seq_length = tokens
    return told


def _apply(asked: Asked, model: Any) -> None:
    """Give the model what was typed as options, or raise UsageError."""
    for option, value in asked.options.items():
        if option.endswith("_prompt"):
            if "{text}" in value.removesuffix("{text}"):
                raise UsageError(
                    f"{option} is {value!r}; sentence-transformers puts a prompt before the text, "
                    f"so expected {{text}} at its end or not at all."
                )
            for other in PROMPT_NAMES[option.removesuffix("_prompt")]:
                model.prompts.pop(other, None)
            model.prompts[option.removesuffix("_prompt")] = value.removesuffix("{text}")
            continue
        most = model.max_seq_length if option == "max_tokens" else model.get_embedding_dimension()
        if value < 1 or (most is not None and value > most):
            raise UsageError(f"{option} is {value}; expected 1 to {most}, the model's own.")
        if option == "dimension":
            model.truncate_dim = value
        elif not _shorten(model, value):
            raise UsageError(
                f"max_tokens is {value}, but this model ({type(model[0]).__name__}) reads every "
                f"token of a text. Leave max_tokens out."
            )
