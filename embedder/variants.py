"""What an embedding model is: a base, a pooling, an attention, and how text is presented to it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import Tensor

from embedder.models.names import (
    OPTIONS_PATTERN,
    find_path,
    is_folder,
    parse_option,
    refuse_open_quote,
    split_options,
    write_value,
)
from embedder.pooling import POOLINGS, HeadLayer, PoolingOptions
from embedder.pooling.modules import last_token, mean
from embedder.pooling.registry import check_options
from retrieval.errors import Registry, UnknownNameError, UsageError
from retrieval.typed import plain_data

_LEAVES_PROMPT_OUT = ("cls", "eos", "mean", "max", "latent_attention")
"""Poolings over tokens that can begin after the prompt."""

_NEWER = ("ending", "prompt_specials", "pool_prompt", "pool_bos", "adapter_base", "head")
"""Fields that are written only where they are not at their defaults."""

PAPER_MODELS: dict[str, tuple[str, str]] = {
    "model1": ("eos", "causal"),
    "model2": ("last_layer", "causal"),
    "model3": ("multi_layer", "causal"),
    "model4": ("last_layer", "bidirectional"),
    "model5": ("multi_layer", "bidirectional"),
}
"""The five designs of arXiv 2409.02727, table 1: name to (pooling, attention)."""


@dataclass(frozen=True)
class Attention:
    """One attention pattern.

    Attributes
    ----------
    is_causal : what ``config.is_causal`` is set to.
    layer_summary : (B, T, D) and mask (B, T) to (B, D): what stands for a whole layer where
        a pooling reads one vector per layer (arXiv 2409.02727, section 3.2).
    """

    name: str
    summary: str
    is_causal: bool
    layer_summary: Callable[[Tensor, Tensor], Tensor]


ATTENTIONS = Registry(
    "attention",
    {
        entry.name: entry
        for entry in (
            Attention("causal", "each token sees itself and earlier ones", True, last_token),
            Attention("bidirectional", "each token sees the whole text", False, mean),
        )
    },
)


def attends_both_ways(config: Any) -> bool:
    """Whether a model's own configuration says that each token sees the whole text."""
    said = getattr(config, "use_bidirectional_attention", None)
    return said in (True, "all") or getattr(config, "is_causal", None) is False


@dataclass(frozen=True)
class Variant:
    """One pooling x attention pair.

    Attributes
    ----------
    name : "mean+causal", or "model1" to "model5" for the paper's.
    trainable : whether the pooling has weights of its own.
    """

    name: str
    pooling: str
    attention: str
    trainable: bool
    summary: str


@dataclass(frozen=True, kw_only=True)
class VariantSpec:
    """Everything that defines an embedding model except its weights.

    Attributes
    ----------
    base : a built-in name, a folder, a .gguf file or a hub id.
    revision : of a hub id; None for its default branch.
    base_layers : how many of the base's decoder layers are kept, the first ones; None for all.
    query_prompt, document_prompt : put before the text, or around it where ``{text}`` stands.
    max_tokens : longest input, prompts, BOS and EOS included; longer text loses its end.
    dimension : length of the vectors, which are cut to it; None for the base's width.
    normalize : whether vectors have length 1.
    chat_template : whether the base's chat template is put around the text.
    lowercase : whether texts are put in lower case; prompts never are.
    ending : the token that ends every text: "auto" for EOS where the pooling wants it, "none", or
        a token of the base's vocabulary.
    prompt_specials : whether special tokens that a prompt spells before the text are read as such;
        those that a text spells never are.
    pool_prompt : whether the pooling reads the tokens of the prompt before the text too; what a
        prompt holds after ``{text}`` it always reads.
    pool_bos : whether a pooling that leaves prompts out reads what stands before the text, BOS,
        where there is no prompt.
    adapter_base : the base of an adapter, where it is not the one that the adapter itself names.
    head : the layers after the pooling, with weights of the base's folder.
    pooling_options : of a trainable pooling.

    Raises
    ------
    UnknownNameError : no such pooling or attention.
    UsageError : a number out of range, a prompt with two ``{text}``, a foreign pooling option, a
        pooling that cannot leave the prompt out.
    """

    base: str
    pooling: str
    attention: str
    revision: str | None = None
    base_layers: int | None = None
    query_prompt: str = ""
    document_prompt: str = ""
    max_tokens: int = 512
    dimension: int | None = None
    normalize: bool = True
    chat_template: bool = False
    lowercase: bool = False
    ending: str = "auto"
    prompt_specials: bool = False
    pool_prompt: bool = True
    pool_bos: bool = True
    adapter_base: str = ""
    head: tuple[HeadLayer, ...] = ()
    pooling_options: PoolingOptions = field(default_factory=PoolingOptions)

    def __post_init__(self) -> None:
        """Check every field that can be checked without the base."""
        pooling = POOLINGS[self.pooling]
        ATTENTIONS.check(self.attention)
        check_options(pooling, self.pooling_options)
        for name, value, least in (
            ("max_tokens", self.max_tokens, 4),
            ("dimension", self.dimension, 1),
            ("base_layers", self.base_layers, 1),
        ):
            if value is not None and value < least:
                raise UsageError(f"{name} is {value}; it must be {least} or more.")
        for prompt in (self.query_prompt, self.document_prompt):
            if prompt.count("{text}") > 1:
                raise UsageError(
                    f"The prompt {prompt!r} has {{text}} more than once; expected it once."
                )
        if not self.pool_prompt and self.pooling not in _LEAVES_PROMPT_OUT:
            raise UsageError(
                f"pool_prompt is false, but the pooling {self.pooling!r} cannot leave prompts out; "
                f"expected one of {', '.join(_LEAVES_PROMPT_OUT)}."
            )
        if not self.ending:
            raise UsageError('ending is empty; expected "auto", "none" or a token.')


def list_variants() -> list[Variant]:
    """Return the paper's five models, then every other pooling x attention pair."""
    named = {pair: name for name, pair in PAPER_MODELS.items()}
    pairs = [(pooling, attention) for pooling in POOLINGS for attention in ATTENTIONS]
    ordered = [*PAPER_MODELS.values(), *(pair for pair in pairs if pair not in named)]
    return [
        Variant(
            named.get((pooling, attention), f"{pooling}+{attention}"),
            pooling,
            attention,
            POOLINGS[pooling].trainable,
            f"{POOLINGS[pooling].summary}; {ATTENTIONS[attention].summary}",
        )
        for pooling, attention in ordered
    ]


def get_variant(name: str) -> Variant:
    """Return the variant called ``model1`` to ``model5`` or ``POOLING+ATTENTION``.

    Raises
    ------
    UnknownNameError : neither a paper model nor a known pooling and attention.
    """
    pooling, plus, attention = name.partition("+")
    if not plus:
        if name in POOLINGS:
            attentions = " or ".join(f"{name}+{attention}" for attention in ATTENTIONS)
            raise UsageError(f"The variant {name!r} names no attention. Type {attentions}.")
        if name not in PAPER_MODELS:
            raise UnknownNameError(
                "variant", name, PAPER_MODELS, "Or POOLING+ATTENTION; see: millpond variants."
            )
        pooling, attention = PAPER_MODELS[name]
    POOLINGS.check(pooling)
    ATTENTIONS.check(attention)
    return next(v for v in list_variants() if (v.pooling, v.attention) == (pooling, attention))


def spec_to_json(spec: VariantSpec) -> dict[str, Any]:
    """Return a JSON-ready dictionary that ``read_dataclass`` reads."""
    data = dataclasses.asdict(spec)
    changed = spec.pooling_options.changed()
    data["pooling_options"] = {name: plain_data(value) for name, value in changed.items()}
    for name in _NEWER:
        if getattr(spec, name) == VariantSpec.__dataclass_fields__[name].default:
            del data[name]  # so that an older millpond reads the others
    if spec.head:
        data["head"] = [
            {name: value for name, value in plain_data(layer).items() if name != "space" or value}
            for layer in spec.head
        ]
    return data


_NO_OPTIONS = {"base", "pooling", "attention", "revision", "head", "pooling_options", "whiten"}


def _list_options(kind: type) -> dict[str, type]:
    """Return the types of the fields that options of a name set; without None, of Literals str."""
    found = {}
    for name, hint in get_type_hints(kind).items():
        plain = get_args(hint)[0] if isinstance(hint, UnionType) else hint
        if name not in _NO_OPTIONS:
            found[name] = {Literal: str, tuple: tuple}.get(get_origin(plain), plain)
    return found


_SPEC_OPTIONS, _POOLING_OPTIONS = _list_options(VariantSpec), _list_options(PoolingOptions)

_NAME = re.compile(
    rf"(?P<base>(?:(?!{OPTIONS_PATTERN}).)+?)"
    r"(?::(?P<variant>[A-Za-z0-9_]+(?:\+[A-Za-z0-9_]+)?))?"
    rf"(?P<options>{OPTIONS_PATTERN}*)",
    re.DOTALL,
)
_REVISION = re.compile(r"(?P<base>.+)@(?P<revision>[\w.\-]+)")


def parse_model_name(text: str, default_variant: str) -> VariantSpec:
    """Return the spec for ``BASE[:POOLING+ATTENTION|:model1][,OPTION=VALUE...]``.

    A hub id may carry ``@REVISION`` before the colon. Options are the fields of VariantSpec and
    PoolingOptions, such as ``smollm2-135m:mean+causal,base_layers=12,max_tokens=128``; a list of
    numbers is written 1/2/3, a text with a comma or a line break as a JSON string, such as
    ``query_prompt="Find it, please\\nQuery: "``. A base that is a path is made absolute, so that
    the name means the same from another folder.

    Raises
    ------
    UnknownNameError : no such variant or option.
    UsageError : no base, or an option's value is not of its type.
    """
    is_place = is_folder(text)
    match = None if is_place else _NAME.fullmatch(text)
    base, variant_name, options = match.groups() if match else (text, None, "")
    if not is_place:
        refuse_open_quote(base)
    if not base:
        raise UsageError(f"The model {text!r} names no base. Type BASE:POOLING+ATTENTION.")
    variant = get_variant(variant_name or default_variant)
    revision = None
    path = find_path(base)
    if path is not None:
        base = str(path.resolve())
    elif at := _REVISION.fullmatch(base):
        base, revision = at["base"], at["revision"]
    settings: dict[str, Any] = {}
    pooling: dict[str, Any] = {}
    for name, value in split_options(options):
        if name == "whiten":
            raise UsageError(
                "A whitening is fitted on texts and saved with the model. Type: "
                f"millpond whiten {base} --corpus CORPUS --out DIR."
            )
        known = _SPEC_OPTIONS | _POOLING_OPTIONS
        if name not in known:
            raise UnknownNameError("model option", name, known)
        target = settings if name in _SPEC_OPTIONS else pooling
        target[name] = parse_option(name, value, known[name])
    return VariantSpec(
        base=base,
        revision=revision,
        pooling=variant.pooling,
        attention=variant.attention,
        pooling_options=PoolingOptions(**pooling),
        **settings,
    )


def format_model_name(spec: VariantSpec) -> str:
    """Return the text that ``parse_model_name`` reads back as ``spec``.

    Options at their defaults are left out.
    """
    at = f"@{spec.revision}" if spec.revision else ""
    defaults = {f.name: f.default for f in fields(spec)}
    changed = {
        name: getattr(spec, name) for name in _SPEC_OPTIONS if getattr(spec, name) != defaults[name]
    } | spec.pooling_options.changed()
    options = "".join(f",{name}={write_value(value)}" for name, value in changed.items())
    return f"{spec.base}{at}:{spec.pooling}+{spec.attention}{options}"
