"""What the files of a published embedding model say: how its authors' vectors are made.

Such a folder or hub id has ``modules.json`` as sentence-transformers writes it. Where our own
engine can compute the model, that becomes a ``VariantSpec``; a part that it cannot represent is
refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from embedder.engine.text import count_positions, find_around, special_tokens
from embedder.environment import first_line, quiet_transformers
from embedder.models.bases import BASES
from embedder.models.cards import say_which_prompts
from embedder.models.foreign.adapters import find_chain, read_adapter
from embedder.models.foreign.files import ask_commit, find_code, read_model_json
from embedder.models.foreign.known import (
    LLM2VEC_CONFIG,
    read_llm2vec,
    read_nv_embed,
    spec_of,
)
from embedder.models.locate import locate_base
from embedder.models.names import (
    DEFAULT_VARIANT,
    find_path,
    is_folder,
    is_hub_id,
    is_saved_model,
    parse_changes,
    split_name,
    write_value,
)
from embedder.models.sentence_transformers import needs_sentence_transformers
from embedder.models.sentence_transformers.encoder import POOLING_MODES, find_document_prompt
from embedder.models.sentence_transformers.load import TEXT_SETTINGS
from embedder.pooling import HeadLayer
from embedder.variants import VariantSpec, attends_both_ways, parse_model_name
from retrieval.errors import MillpondError, ModelError, UsageError
from retrieval.protocols import Notify, silent

_POOLINGS = {mode: name for name, mode in POOLING_MODES.items()}
_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid")
LIBRARY_SETTINGS = "config_sentence_transformers.json"
_USUAL_SETTINGS: dict[str, Any] = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "modality_config": None,
    "unpad_inputs": None,
}
"""Settings of the Transformer that change nothing at these values; None for at any value."""
_PROMPTS = ("query_prompt", "document_prompt")
_USUAL_LIMIT = 512
_NO_LIMIT = 10**9
"""Tokenizers without a longest input say a number above this."""


@dataclass(frozen=True)
class _Files:
    """The JSON files of one model."""

    base: str
    revision: str | None

    @property
    def place(self) -> str:
        return str(find_path(self.base) or self.base)

    def read(self, name: str) -> dict[str, Any]:
        """Return what a file holds, nothing where there is no such file."""
        found = read_model_json(self.place, name, self.revision)
        if found is None:
            return {}
        if not isinstance(found, dict):
            raise ModelError(f"{self.base}: its {name} holds no JSON object.")
        return found

    def refuse(self, what: str) -> ModelError:
        """Return the error for a part that our engine does not compute."""
        return ModelError(
            f"{self.base}: {what}. This engine does not compute that; type --model st:{self.base} "
            f"to let sentence-transformers do it."
        )


@dataclass(frozen=True)
class Named:
    """What a user's name of an untrained or a published model means.

    Attributes
    ----------
    published_name : what names a published model from any folder; None for another.
    commit : of a hub id, at which everything is read; else None.
    """

    spec: VariantSpec
    published_name: str | None = None
    commit: str | None = None


def resolve_name(name: str, notify: Notify) -> Named:
    """Return what a name means: a published model's own spec where that was named plainly.

    One line says what a name with a variant of its own overrides.

    Parameters
    ----------
    name : BASE[:POOLING+ATTENTION][,OPTION=VALUE...].

    Raises
    ------
    ModelError : the model hub does not give it, or it has a part that our engine does not compute.
    UnknownNameError, UsageError : no such variant or option, or a value is not of its type.
    """
    plain, written = split_name(name)
    typed = parse_model_name(plain, DEFAULT_VARIANT)
    if typed.base in BASES or not (is_folder(typed.base) or is_hub_id(typed.base)):
        return Named(parse_model_name(name, DEFAULT_VARIANT))
    is_here = is_folder(typed.base)
    commit = None if is_here else ask_commit(typed.base, typed.revision, notify)
    if typed == parse_model_name(plain, "eos+bidirectional"):  # it has a variant of its own
        typed = parse_model_name(name, DEFAULT_VARIANT)
        _say_overridden(typed, commit, notify)
        return Named(typed, commit=commit)
    published = read_published(typed.base, commit or typed.revision, notify, written)
    if published is None:
        _refuse_plain_adapter(typed, commit)
        return Named(parse_model_name(name, DEFAULT_VARIANT), commit=commit)
    spec = replace(published, revision=typed.revision)
    at = f"@{typed.revision}" if typed.revision else ""
    if spec.adapter_base:  # a path in it means the same from another folder
        changes = parse_changes(written, "option of a published model", ("adapter_base",))
        written = "".join(f",{name}={write_value(value)}" for name, value in changes.items())
    return Named(spec, f"{typed.base}{at}{written}", commit)


def _refuse_plain_adapter(typed: VariantSpec, commit: str | None) -> None:
    """Raise UsageError for an adapter whose files do not say how it embeds."""
    if read_adapter(typed.base, commit or typed.revision):
        raise UsageError(
            f"{typed.base} is an adapter, and its files do not say how it embeds (no modules.json "
            f"and no {LLM2VEC_CONFIG}). Type how: {typed.base}:eos+causal, or another pooling and "
            f"attention of: millpond variants."
        )


def read_published(
    base: str, revision: str | None, notify: Notify, written: str = ""
) -> VariantSpec | None:
    """Return what the files of a folder or hub id say; None where they do not say how it embeds.

    None too where sentence-transformers has to compute it.

    Parameters
    ----------
    written : options of the model's name, ",OPTION=VALUE...", which replace what the files say.

    Raises
    ------
    ModelError : a file cannot be read, or names a part that our engine does not compute.
    UnknownNameError, UsageError : an option does not exist, or a value is not of its type.
    """
    is_place = is_folder(base) or is_hub_id(base)
    if base in BASES or not is_place or is_saved_model(base):
        return None
    files = _Files(base, revision)
    if known := read_nv_embed(files.place, revision):
        options = parse_changes(written, "option of a published model")
        return replace(spec_of(files.place, revision, known, base), **options)
    if needs_sentence_transformers(base, revision):
        return None
    modules = read_model_json(files.place, "modules.json", revision)
    if modules is None and (config := files.read(LLM2VEC_CONFIG)):
        return _read_llm2vec(files, config, written, notify)
    if modules is None or find_code(files.place, revision):  # loading it says what is wrong
        return None
    options = parse_changes(written, "option of a published model", ("adapter_base",))
    try:
        return _read_spec(files, modules, options, notify)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{base}: its JSON files hold a value of another type than sentence-transformers "
            f"writes ({error}). Copy the folder again."
        ) from error


def _read_spec(
    files: _Files, modules: Any, options: Mapping[str, Any], notify: Notify
) -> VariantSpec:
    """Return what the files of a decoder say, as far as no option says otherwise."""
    paths, kinds = _read_modules(files, modules)
    config, tokenizer = _load_description(files, options.get("adapter_base", ""))
    pooling, pools_prompt = _read_pooling(files, paths[1], int(config.hidden_size))
    settings = files.read(LIBRARY_SETTINGS)
    head, normalizes = _read_head(files, paths[2:], kinds[2:], int(config.hidden_size))
    if pooling == "weighted_mean" and not pools_prompt:
        raise files.refuse(f"{paths[1]}/config.json leaves prompts out of a weighted mean")
    lowercase, limit = _read_text_settings(
        files, config, tokenizer, notify, is_typed="max_tokens" in options
    )
    typed = {name: value for name, value in options.items() if name in _PROMPTS}
    prompts = _read_prompts(files, settings, silent if "query_prompt" in typed else notify) | typed
    if lowercase:  # sentence-transformers reads prompt and text in lower case
        prompts = {side: prompt.lower() for side, prompt in prompts.items()}
    spec = VariantSpec(
        base=files.base,
        revision=files.revision,
        pooling=pooling,
        attention="bidirectional" if attends_both_ways(config) else "causal",
        ending=_read_ending(files, tokenizer, notify),
        prompt_specials=any(
            token in prompt
            for token in special_tokens(tokenizer.backend_tokenizer)
            for prompt in prompts.values()
        ),
        pool_prompt=pools_prompt,
        head=head,
        max_tokens=limit,
        dimension=_read_dimension(files, settings, head[-1].width if head else config.hidden_size),
        lowercase=lowercase,
        normalize=normalizes or settings.get("similarity_fn_name") not in ("dot", "dot_score"),
        query_prompt=prompts["query_prompt"],
        document_prompt=prompts["document_prompt"],
    )
    return replace(spec, **{name: options[name] for name in options if name not in _PROMPTS})


def _read_llm2vec(
    files: _Files, config: Mapping[str, Any], written: str, notify: Notify
) -> VariantSpec:
    """Return what an adapter of LLM2Vec computes."""
    options = parse_changes(written, "option of a published model", ("adapter_base",))
    typed_base = options.get("adapter_base", "")
    root, _ = find_chain(files.base, files.revision, typed_base)
    tokenizer = _load_description(files, typed_base)[1]
    ending = _read_ending(files, tokenizer, notify)
    spec = read_llm2vec(files.base, files.revision, config, root, ending, notify)
    return replace(spec, **options)


def _say_overridden(typed: VariantSpec, commit: str | None, notify: Notify) -> None:
    """Say what of a published model the name that was typed overrides."""
    try:
        published = read_published(typed.base, commit or typed.revision, silent)
    except MillpondError:  # what cannot be read is not overridden either
        return
    if published is None:
        return
    names = [f.name for f in fields(typed) if f.name != "revision"]
    differing = [name for name in names if getattr(typed, name) != getattr(published, name)]
    if not differing:
        return
    described = ", ".join(f"{name} {_show(getattr(published, name))}" for name in differing)
    notify(
        f"Overriding what {typed.base} was published with ({described}) by "
        f"{typed.pooling}+{typed.attention}; name it alone for its authors' vectors"
    )


def _show(value: object) -> str:
    if isinstance(value, tuple):
        return "+".join(layer.path for layer in value) or "none"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _read_modules(files: _Files, modules: Any) -> tuple[list[str], list[str]]:
    """Return the paths and the classes of the modules, a Transformer and a Pooling first.

    They are a list of sentence-transformers' own: ``needs_sentence_transformers`` looked.
    """
    paths = [str(part.get("path", "")) for part in modules]
    kinds = [str(part.get("type", "")).rpartition(".")[2] for part in modules]
    for part, kind in zip(modules, kinds, strict=True):
        if kind not in ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize"):
            raise files.refuse(f"modules.json names the module {kind}")
        if part.get("kwargs"):
            raise files.refuse(f"modules.json gives {kind} the arguments {part['kwargs']}")
    if kinds[:2] != ["Transformer", "Pooling"] or {"Transformer", "Pooling"} & set(kinds[2:]):
        raise files.refuse(
            f"modules.json lists {', '.join(kinds)}; expected one Transformer, then one Pooling"
        )
    if paths[0]:
        raise files.refuse(f"its Transformer lies in the folder {paths[0]}")
    return paths, kinds


def _read_pooling(files: _Files, path: str, width: int) -> tuple[str, bool]:
    """Return our name of the pooling, and whether it reads the prompt's tokens."""
    name = f"{path}/config.json"
    config = files.read(name)
    if not config:
        raise ModelError(f"{files.base}: its {name} is missing, which says how it pools.")
    modes = config.get("pooling_mode")
    if modes is None:
        unknown = [key for key in config if key.startswith("pooling_mode") and key not in _MODES]
        if any(config[key] for key in unknown):
            raise files.refuse(f"{name} asks for {unknown[0]}")
        modes = [mode for key, mode in _MODES.items() if config.get(key)] or ["mean"]
    modes = list(modes) if isinstance(modes, list | tuple) else [modes]
    if len(modes) != 1 or not isinstance(modes[0], str) or modes[0] not in _POOLINGS:
        raise files.refuse(f"{name} asks for the pooling {' and '.join(map(str, modes))}")
    read = config.get("embedding_dimension", config.get("word_embedding_dimension", width))
    if read != width:
        raise ModelError(
            f"{files.base}: {name} pools vectors of {read} numbers, but config.json says that the "
            f"model has {width}. Copy the folder again."
        )
    return _POOLINGS[modes[0]], bool(config.get("include_prompt", True))


def _read_head(
    files: _Files, paths: list[str], kinds: list[str], width: int
) -> tuple[tuple[HeadLayer, ...], bool]:
    """Return the layers after the pooling, and whether the last one makes vectors of length 1."""
    head: list[HeadLayer] = []
    for path, kind in zip(paths, kinds, strict=True):
        if kind == "Dense":
            head.append(_read_dense(files, path, width))
            width = head[-1].width
        else:
            known: Any = kind
            head.append(HeadLayer(path=path, kind=known, reads=width, width=width))
    normalizes = bool(head) and head[-1].kind == "Normalize"
    while head and head[-1].kind == "Normalize":
        head.pop()
    return tuple(head), normalizes


def _read_dense(files: _Files, path: str, width: int) -> HeadLayer:
    name = f"{path}/config.json"
    config = files.read(name)
    reads, writes = config.get("in_features"), config.get("out_features")
    if not isinstance(reads, int) or not isinstance(writes, int):
        raise ModelError(f"{files.base}: its {name} has no in_features and out_features.")
    if reads != width:
        raise ModelError(
            f"{files.base}: {name} reads vectors of {reads} numbers, but {width} arrive there. "
            f"Copy the folder again."
        )
    said = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation: Any = said.rpartition(".")[2]
    if not said.startswith("torch.nn.") or activation not in _ACTIVATIONS:
        raise files.refuse(f"{name} asks for the activation {said}")
    unusual = config.get("use_residual") or any(
        config.get(key) not in (None, "sentence_embedding")
        for key in ("module_input_name", "module_output_name")
    )
    if unusual:
        raise files.refuse(f"{name} asks for a residual, or for another input or output")
    return HeadLayer(
        path=path,
        kind="Dense",
        reads=reads,
        width=writes,
        bias=bool(config.get("bias", True)),
        activation=activation,
    )


def _read_dimension(files: _Files, settings: Mapping[str, Any], width: int) -> int | None:
    """Return how many numbers of a vector its authors keep, None for all."""
    kept = settings.get("truncate_dim")
    if kept is None or (type(kept) is int and kept >= width):
        return None
    if type(kept) is not int or kept < 1:
        raise files.refuse(f"{LIBRARY_SETTINGS} says truncate_dim {kept!r}")
    return kept


def _load_description(files: _Files, adapter_base: str) -> tuple[Any, Any]:
    """Return the configuration and the tokenizer; an adapter may have them from its base."""
    from transformers import AutoConfig, AutoTokenizer

    base = words = (files.place, files.revision)
    if read_adapter(files.base, files.revision):
        located = locate_base(files.base, files.revision, silent, adapter_base)
        base, words = (located.path, located.revision), located.tokenizer
    code: dict[str, Any] = {"trust_remote_code": False}
    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(base[0], revision=base[1], **code)
            tokenizer = AutoTokenizer.from_pretrained(words[0], revision=words[1], **code)
        except Exception as error:  # transformers raises its own kinds
            raise ModelError(f"{files.base} cannot be loaded: {first_line(error)}") from error
    if not isinstance(getattr(config, "hidden_size", None), int):
        raise files.refuse("config.json has no hidden_size, as a text decoder has")
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise files.refuse("it has no fast tokenizer (tokenizer.json)")
    return config, tokenizer


def _read_text_settings(
    files: _Files, config: Any, tokenizer: Any, notify: Notify, *, is_typed: bool
) -> tuple[bool, int]:
    """Return whether texts are put in lower case, and the longest input in tokens.

    ``is_typed`` says that the user named another longest input.
    """
    settings = files.read(TEXT_SETTINGS)
    for key, value in settings.items():
        if key in ("max_seq_length", "do_lower_case") or not value:
            continue
        if key not in _USUAL_SETTINGS or _USUAL_SETTINGS[key] not in (None, value):
            raise files.refuse(f"{TEXT_SETTINGS} says {key} {value!r}")
    if getattr(tokenizer, "truncation_side", "right") != "right":
        raise files.refuse("its tokenizer cuts long texts at the beginning")
    limit = settings.get("max_seq_length")
    if limit is not None and type(limit) is not int:
        raise files.refuse(f"{TEXT_SETTINGS} says max_seq_length {limit!r}")
    lowercase = bool(settings.get("do_lower_case"))
    if limit is None:
        limit = min(int(tokenizer.model_max_length), count_positions(config) or _NO_LIMIT + 1)
    if limit > _NO_LIMIT:
        limit = _USUAL_LIMIT
        if not is_typed:
            notify(
                f"{files.base} names no longest input; texts are cut at {limit} tokens. Another "
                f"limit: --model {files.base},max_tokens=N"
            )
    return lowercase, int(limit)


def _read_ending(files: _Files, tokenizer: Any, notify: Notify) -> str:
    """Return the token that ends a text, "none" for none."""
    whole = list(tokenizer("a")["input_ids"])
    plain = list(tokenizer("a", add_special_tokens=False)["input_ids"])
    around = find_around(whole, plain)
    if around is None:
        raise files.refuse("its tokenizer changes a text where it adds special tokens")
    tail = around[1]
    if len(tail) > 1:
        raise files.refuse(f"its tokenizer ends a text with {len(tail)} tokens")
    if tail:
        return str(tokenizer.convert_ids_to_tokens(tail[0]))
    if files.read("tokenizer_config.json").get("add_eos_token") and tokenizer.eos_token:
        notify(
            f"{files.base}: its authors end a text with {tokenizer.eos_token} (add_eos_token), and "
            f"so do we; sentence-transformers with transformers 5 leaves it out"
        )
        return str(tokenizer.eos_token)
    return "none"


def _read_prompts(files: _Files, settings: Mapping[str, Any], notify: Notify) -> dict[str, str]:
    """Return the prompts of queries and documents as fields of a spec."""
    prompts = settings.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(p, str) for p in prompts.values()):
        raise ModelError(f"{files.base}: the prompts of its {LIBRARY_SETTINGS} are no texts.")
    default = settings.get("default_prompt_name")
    if default is not None and default not in list(prompts):
        known = ", ".join(map(repr, prompts)) or "none"
        raise ModelError(
            f"{files.base}: {LIBRARY_SETTINGS} names the default prompt {default!r}, but has "
            f"{known}. Correct default_prompt_name there."
        )
    found = {
        "query_prompt": prompts.get("query") or "",
        "document_prompt": find_document_prompt(files.base, prompts, notify),
    }
    if any("{text}" in prompt for prompt in found.values()):
        raise files.refuse(f"a prompt of {LIBRARY_SETTINGS} holds {{text}}")
    say_which_prompts(
        files.base, (found["query_prompt"], found["document_prompt"]), prompts, notify
    )
    return found
