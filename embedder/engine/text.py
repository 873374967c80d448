"""Text to token ids: prompt templates, the longest input, and truncation that keeps EOS.

Imports no torch.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from embedder.environment import first_line
from retrieval.errors import ModelError, UsageError
from retrieval.protocols import Notify, Vectors

if TYPE_CHECKING:
    from embedder.variants import VariantSpec

Side: TypeAlias = Literal["left", "right"]
"""Where a text that is too long is cut."""


def check_texts(texts: Sequence[str]) -> None:
    """Raise UsageError unless this is a list of valid texts."""
    if isinstance(texts, str):
        raise UsageError("texts is one string; expected a list of strings. Put it in a list.")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"text {index} is {type(text).__name__}; expected a string.")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"text {index} holds half a surrogate pair; expected valid Unicode."
            ) from None


def check_finite(vectors: Vectors, texts: Sequence[object], model: str) -> None:
    """Raise ModelError where a vector of (N, D) holds NaN or infinity; name its text."""
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if wrong.size:
        bad = int(wrong[0])
        raise ModelError(
            f"{model} gave NaN or infinity for text {bad}: {str(texts[bad])[:60]!r}. The weights "
            f"may be damaged, or overflow in this dtype."
        )


_LONGEST_TOKEN_CHARACTERS = 64
_SENTINEL = "\u2063text\u2063"


@dataclass(frozen=True)
class PromptTemplate:
    """What stands around a text.

    Attributes
    ----------
    prefix : put before the text and tokenised with it, as one string.
    suffix : put after the text; always kept whole when the text is cut.
    """

    prefix: str = ""
    suffix: str = ""

    @classmethod
    def parse(cls, prompt: str) -> PromptTemplate:
        """Split a prompt at ``{text}``; without it the whole prompt is a prefix."""
        prefix, _, suffix = prompt.partition("{text}")
        return cls(prefix, suffix)

    def inside(self, outer: PromptTemplate) -> PromptTemplate:
        """Return this template with another one around it."""
        return PromptTemplate(outer.prefix + self.prefix, self.suffix + outer.suffix)


def special_tokens(backend: Any) -> list[str]:
    """Return the special tokens that a ``tokenizers.Tokenizer`` reads out of texts."""
    added = backend.get_added_tokens_decoder().values()
    return [token.content for token in added if token.special]


def find_around(whole: list[int], inner: list[int]) -> tuple[list[int], list[int]] | None:
    """Return what stands before and after some ids in others, None where they are not in them."""
    size = len(inner)
    for start in range(len(whole) - size + 1):
        if whole[start : start + size] == inner:
            return whole[:start], whole[start + size :]
    return None


class TextTokenizer:
    """Turns texts into token ids that never exceed ``max_tokens`` and always keep their end.

    The order is BOS where the tokenizer itself would put one, the chat template's head if asked
    for, prefix and text, suffix, the template's tail, the ending. Where that is too long, tokens
    are cut from the end of the text alone. Text that spells a special token ("<|endoftext|>") stays
    text.

    Parameters
    ----------
    tokenizer : a fast transformers tokenizer.
    ending : the token that ends every sequence; "auto" for EOS, "none" for none.
    chat_template : whether the tokenizer's chat template goes around the text.
    lowercase : whether the text is put in lower case; what stands around it never is.
    prompt_specials : whether special tokens that a prefix spells are read as such.
    template : goes around the text and its prompt; ``{text}`` stands for them.

    Raises
    ------
    ModelError : the tokenizer is not a fast one, lacks the ending, or has no chat template to
        apply.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_tokens: int,
        ending: str = "auto",
        chat_template: bool = False,
        lowercase: bool = False,
        prompt_specials: bool = False,
        template: str = "{text}",
    ) -> None:
        self._template = PromptTemplate.parse(template)
        self._tokenizer = tokenizer
        self.max_tokens = max_tokens
        self._lowercase = lowercase
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelError("The base has no fast tokenizer (tokenizer.json); one is needed.")
        self._backend = backend
        self._backend.no_truncation()
        self._backend.no_padding()
        self._reads_specials = copy.deepcopy(backend) if prompt_specials else None
        self._tail = self._ending_ids(ending)
        self._head = self._leading_specials()
        if chat_template:
            head, tail = self._chat_template_ids()
            # The template spells its own BOS where it wants one.
            self._head, self._tail = head, tail + self._tail
        self.pad_id = int(tokenizer.pad_token_id or 0)

    @property
    def frame(self) -> tuple[list[int], list[int]]:
        """The ids that stand before the prompt and after everything else."""
        return list(self._head), list(self._tail)

    @classmethod
    def of_spec(
        cls, spec: VariantSpec, tokenizer: Any, *, max_tokens: int | None = None
    ) -> TextTokenizer:
        """Return the tokenizer that a spec asks for; ``max_tokens`` overrides the spec's."""
        from embedder.pooling import POOLINGS  # imports torch

        pooling = POOLINGS[spec.pooling]
        plain = spec.ending == "auto" and not pooling.appends_eos
        return cls(
            tokenizer,
            max_tokens=max_tokens or spec.max_tokens,
            ending="none" if plain else spec.ending,
            chat_template=spec.chat_template,
            lowercase=spec.lowercase,
            prompt_specials=spec.prompt_specials,
            template=pooling.template,
        )

    def __call__(self, texts: Sequence[str], prompt: str = "") -> list[list[int]]:
        """Return one list of 1 to ``max_tokens`` token ids per text."""
        return self.tokenize(texts, prompt)[0]

    def surround(self, prompt: str) -> PromptTemplate:
        """Return what stands around a text with a prompt."""
        return PromptTemplate.parse(prompt).inside(self._template)

    def tokenize(
        self, texts: Sequence[str], prompt: str = "", side: Side = "right"
    ) -> tuple[list[list[int]], list[bool]]:
        """Return what calling the tokenizer does, and whether each text was truncated.

        With ``side`` "left" a text that is too long loses its beginning; its prompt is kept.
        """
        template = self.surround(prompt)
        tail = self._plain([template.suffix])[0] + self._tail if template.suffix else self._tail
        room = self.max_tokens - len(self._head) - len(tail)
        prefix_tokens = self.count_prompt(prompt) - len(self._head)
        if room < prefix_tokens + 1:
            raise UsageError(
                f"The prompt takes {self.max_tokens - room + prefix_tokens} of max_tokens "
                f"{self.max_tokens} and leaves none for the text; shorten it or raise max_tokens."
            )
        # Longer text cannot reach the vector, and a tokenizer takes seconds for megabytes.
        characters = room * _LONGEST_TOKEN_CHARACTERS
        shown = [text[:characters] for text in texts]
        if self._lowercase:
            shown = [text.lower() for text in shown]
        bodies = self._bodies(template.prefix, shown)
        rows = [self._head + body[:room] + tail for body in bodies]
        truncated = [
            len(text) > characters or len(body) > room
            for text, body in zip(texts, bodies, strict=True)
        ]
        if side == "left":
            prefix = self._bodies(template.prefix, [""])[0]
            for place in (place for place, is_cut in enumerate(truncated) if is_cut):
                text = texts[place][-characters:]
                (end,) = self._plain([text.lower() if self._lowercase else text])
                rows[place] = [*self._head, *prefix, *end[len(prefix) - room :], *tail]
        # A template without EOS around an empty text could leave nothing to pool.
        return [row or [self.pad_id] for row in rows], truncated

    def _plain(self, texts: list[str]) -> list[list[int]]:
        """Tokenise without special tokens, and without reading any out of the text."""
        if not self._backend.encode_special_tokens:  # setting it fails while a thread encodes
            self._backend.encode_special_tokens = True
        if len(texts) == 1:  # a batch would go to another thread
            return [list(self._backend.encode(texts[0], add_special_tokens=False).ids)]
        encoded = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [list(row.ids) for row in encoded]

    def count_prompt(self, prompt: str) -> int:
        """Return how many tokens BOS and the prompt before a text take, tokenised without it."""
        prefix = self.surround(prompt).prefix
        return len(self._head) + (len(self._bodies(prefix, [""])[0]) if prefix else 0)

    def _bodies(self, prefix: str, texts: list[str]) -> list[list[int]]:
        """Tokenise prefix and text as one string; special tokens are read out of the prefix alone.

        The two are joined after tokenising only where both spell special tokens.
        """
        backend = self._reads_specials
        if backend is None or not prefix:
            return self._plain([prefix + text for text in texts])
        specials = special_tokens(backend)
        start = list(backend.encode(prefix, add_special_tokens=False).ids)
        return [
            start + self._plain([text])[0]
            if any(token in text for token in specials)
            else list(backend.encode(prefix + text, add_special_tokens=False).ids)
            for text in texts
        ]

    def _ending_ids(self, ending: str) -> list[int]:
        """Return the ids that end every sequence."""
        if ending == "none":
            return []
        if ending == "auto":
            found = self._tokenizer.eos_token_id
            if found is None:
                raise ModelError(
                    "The base's tokenizer names no EOS token; the variant needs one. Name the "
                    "token that ends a text as ending=TOKEN, or type ending=none."
                )
        else:
            found = self._backend.token_to_id(ending)
            if found is None:
                raise ModelError(
                    f"ending is {ending!r}, but the base's tokenizer has no such token; expected "
                    f"one of its tokens, none, or auto for EOS."
                )
        return [int(found)]

    def _leading_specials(self) -> list[int]:
        """Return the ids that the tokenizer itself puts before a text: BOS, or nothing."""
        around = find_around(list(self._tokenizer("a")["input_ids"]), self._plain(["a"])[0])
        return [] if around is None else around[0]

    def _chat_template_ids(self) -> tuple[list[int], list[int]]:
        if not self._tokenizer.chat_template:
            raise ModelError("The spec asks for a chat template, but the base has none.")
        message = [{"role": "user", "content": _SENTINEL}]
        try:
            rendered = self._tokenizer.apply_chat_template(message, tokenize=False)
        except Exception as error:  # a template may raise what it likes
            reason = f"takes no single message of a user: {first_line(error)}"
            raise ModelError(f"The base's chat template {reason}") from error
        head, found, tail = rendered.partition(_SENTINEL)
        if not found:
            raise ModelError("The base's chat template does not show the user's text unchanged.")
        self._backend.encode_special_tokens = False
        ids = [
            list(self._backend.encode(part, add_special_tokens=False).ids) for part in (head, tail)
        ]
        return ids[0], ids[1]


_POSITIONS = (
    "max_position_embeddings",
    "n_positions",
    "n_ctx",
    "max_seq_len",
    "max_sequence_length",
    "max_seq_length",
    "seq_length",
    "context_length",
    "max_target_positions",
)
"""What families of models call it."""

_LEAST = 4
"""Tokens that a VariantSpec allows at least."""


def count_positions(config: Any) -> int | None:
    """Return the longest input that a configuration of transformers names, in tokens, or None."""
    found = [getattr(config, name, None) for name in _POSITIONS]
    return min((n for n in found if type(n) is int and n > 0), default=None)


def _steady_positions(config: Any) -> int | None:
    """Return the longest text up to which rotary embeddings are the same in any batch, or None.

    Beyond it, "dynamic" and "longrope" ones follow the longest text of this or an earlier pass.
    """
    rope, limits = config.rope_parameters, []
    for kind in [one for one in rope.values() if isinstance(one, dict)] or [rope]:  # by layer
        if kind.get("rope_type") in ("dynamic", "longrope"):
            is_long = kind["rope_type"] == "longrope"
            first = is_long and kind.get("original_max_position_embeddings")
            limits.append(first or config.max_position_embeddings)
    return min(limits, default=None)


def cap_tokens(spec: VariantSpec, config: Any, notify: Notify) -> VariantSpec:
    """Return the spec with no more tokens than its base has positions; one line says so.

    Rotary embeddings reach any position, so a base with them keeps what was asked for, unless they
    follow the longest text of a batch: a text would have other vectors in other company.

    Raises
    ------
    ModelError : the base has fewer positions than any text needs.
    """
    rotary = bool(getattr(config, "rope_parameters", None))
    most = _steady_positions(config) if rotary else count_positions(config)
    if most is None or most >= spec.max_tokens:
        return spec
    if most < _LEAST:
        raise ModelError(
            f"{spec.base}: its config.json gives it {most} positions; expected {_LEAST} or more."
        )
    positions = f"{spec.base} has {most} positions"
    if rotary:
        positions = f"beyond {most} tokens, {spec.base} gives a text other vectors in other batches"
    notify(f"Warning: {positions}, so texts are cut at {most} tokens, not at {spec.max_tokens}.")
    return replace(spec, max_tokens=most)
