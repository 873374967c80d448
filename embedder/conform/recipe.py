"""How a text becomes token ids and a vector, in parts that a suspect can change. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from embedder.engine.text import special_tokens
from retrieval.protocols import Encoder, Vectors

Spaces = Literal["kept", "stripped", "newlines"]


@dataclass(frozen=True)
class Recipe:
    """One way to embed texts with a loaded model.

    Attributes
    ----------
    prefix, suffix : text around the text.
    head, ending : token ids around all of that.
    pooling : a name of ``LocalModel.poolings``.
    max_tokens : longest row; None for no limit.
    cut : which end of a longer text is lost.
    cuts_ending : whether a longer text loses the ending too.
    lowercase : whether texts are put in lower case.
    reads_specials : whether a text that spells a special token becomes that token.
    spaces : ``stripped`` at both ends, or ``newlines`` replaced by blanks.
    prompt_specials : whether special tokens that the prefix spells are read as such.
    pools_prompt : whether the pooling reads head and prefix too.
    empty : stands for an empty text.
    attention, precision : "own", or another that ``LocalModel`` has.
    """

    prefix: str = ""
    suffix: str = ""
    head: tuple[int, ...] = ()
    ending: tuple[int, ...] = ()
    pooling: str = "own"
    max_tokens: int | None = None
    cut: Literal["end", "start"] = "end"
    cuts_ending: bool = False
    lowercase: bool = False
    reads_specials: bool = False
    spaces: Spaces = "kept"
    prompt_specials: bool = False
    pools_prompt: bool = True
    empty: str = ""
    attention: str = "own"
    precision: str = "own"


class LocalModel(Protocol):
    """A loaded model that can be used in other ways than its own."""

    name: str
    encoder: Encoder
    """The model itself."""
    tokenizer: Any
    """A fast transformers tokenizer."""
    max_tokens: int
    """The longest row of its own recipe."""
    most_tokens: int
    """The longest row that the weights allow."""
    own_pooling: str
    """The name of its own pooling."""
    poolings: Sequence[str]
    """Other poolings, by their names in ``suspects``."""
    attentions: Sequence[str]
    """Other attentions."""
    precisions: Sequence[str]
    """Other ways to round weights and numbers, by their names in messages."""
    recipes: Mapping[str, Recipe]
    """Its own recipe for a "query" and for a "document"."""
    chat: tuple[tuple[int, ...], tuple[int, ...]] | None
    """The token ids of its chat template before and after a text, where it has an unused one."""

    def encode(self, texts: Sequence[str], side: str) -> Vectors:
        """Return float32 (N, D) as the model itself gives them."""
        encoder = self.encoder
        return (encoder.encode_queries if side == "query" else encoder.encode_documents)(texts)

    def vectors(self, texts: Sequence[str], recipe: Recipe) -> Vectors:
        """Return float32 (N, D) in another way; neither cut to a dimension nor scaled."""


def build_rows(tokenizer: Any, texts: Sequence[str], recipe: Recipe) -> list[list[int]]:
    """Return a row of token ids per text; an empty row becomes the padding token."""
    backend = tokenizer.backend_tokenizer
    suffix = _ids(backend, recipe.suffix, recipe.reads_specials) if recipe.suffix else []
    tail = [*suffix, *recipe.ending]
    rows = [_fit(_body(tokenizer, _change(text, recipe), recipe), tail, recipe) for text in texts]
    return [row or [int(tokenizer.pad_token_id or 0)] for row in rows]


def count_prompt(tokenizer: Any, recipe: Recipe) -> int:
    """Return how many tokens stand before a text."""
    reads = recipe.reads_specials or recipe.prompt_specials
    return len(recipe.head) + len(_ids(tokenizer.backend_tokenizer, recipe.prefix, reads))


def _body(tokenizer: Any, text: str, recipe: Recipe) -> list[int]:
    """Return the token ids of prefix and text, read as one string where that is possible."""
    backend, prefix = tokenizer.backend_tokenizer, recipe.prefix
    if recipe.reads_specials or not recipe.prompt_specials:
        return _ids(backend, prefix + text, recipe.reads_specials)
    if any(token in text for token in special_tokens(backend)):
        return [*_ids(backend, prefix, True), *_ids(backend, text, False)]
    return _ids(backend, prefix + text, True)


def _fit(body: list[int], tail: list[int], recipe: Recipe) -> list[int]:
    head, most = list(recipe.head), recipe.max_tokens
    whole = [*head, *body, *tail]
    if most is None or len(whole) <= most:
        return whole
    if recipe.cuts_ending:
        return whole[:most] if recipe.cut == "end" else whole[-most:]
    room = max(1, most - len(head) - len(tail))
    return [*head, *(body[:room] if recipe.cut == "end" else body[-room:]), *tail]


def _change(text: str, recipe: Recipe) -> str:
    shown = (text.lower() if recipe.lowercase else text) or recipe.empty
    if recipe.spaces == "stripped":
        return shown.strip()
    return shown.replace("\n", " ") if recipe.spaces == "newlines" else shown


def _ids(backend: Any, text: str, reads_specials: bool) -> list[int]:
    """Return the token ids of the whole text alone."""
    if backend.truncation is not None:  # transformers sets it anew at each call
        backend.no_truncation()
    before = backend.encode_special_tokens
    backend.encode_special_tokens = not reads_specials
    try:
        return list(backend.encode(text, add_special_tokens=False).ids)
    finally:
        backend.encode_special_tokens = before
