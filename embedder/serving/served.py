"""What a server serves, and how much it takes on: models, indexes and settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from embedder.engine.text import PromptTemplate, TextTokenizer
from embedder.models.names import find_saved_model
from retrieval.errors import UsageError
from retrieval.filters import Expression
from retrieval.protocols import VectorIndex, Vectors
from retrieval.types import Fingerprint, Hit, check_fingerprints

if TYPE_CHECKING:
    from embedder.embedder import Embedder

__all__ = [
    "Role",
    "ServedIndex",
    "ServedModel",
    "ServerSettings",
    "TokenEncoder",
    "Tokens",
    "serve_embedder",
]

Role: TypeAlias = Literal["query", "document"]
"""Which of the model's two prompts goes with a text."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """How much a server takes on, and from whom.

    Attributes
    ----------
    batch_tokens : most tokens, padding not counted, that are encoded together; a longer text goes
        alone.
    queue_tokens : most tokens that wait; a request that would go beyond is answered with 429,
        unless nothing waits.
    queue_requests : most requests that are worked on or wait.
    body_bytes : longest request body; a longer one is answered with 413.
    body_seconds : longest time that a client may take to send a body.
    request_texts : most texts in one request.
    search_hits : most hits of one search.
    keys : bearer keys that open the server; empty for a server that is open to all.
    local_only : whether requests have to name this machine as their host; for a server that only
        this machine reaches and that has no keys.
    origins : web origins whose pages may call the server (CORS); none by default.

    Raises
    ------
    UsageError : a limit is below 1.
    """

    batch_tokens: int = 4096
    queue_tokens: int = 131_072
    queue_requests: int = 256
    body_bytes: int = 8 * 2**20
    body_seconds: float = 30.0
    request_texts: int = 2048
    search_hits: int = 1000
    keys: tuple[str, ...] = field(default=(), repr=False)
    local_only: bool = False
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the limits."""
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(value, int | float) and not isinstance(value, bool) and value < 1:
                raise UsageError(f"{setting.name} is {value}; it must be 1 or more.")


@dataclass(frozen=True)
class Tokens:
    """Texts as a model reads them.

    Attributes
    ----------
    rows : the token ids of each text with the prompt of its role, 1 to the model's ``max_tokens``.
    truncated : whether each text lost its end to fit.
    """

    rows: Sequence[Sequence[int]]
    truncated: Sequence[bool]


class TokenEncoder(Protocol):
    """Turns token ids into vectors, such as an ``Embedder``; called from one thread."""

    @property
    def dimension(self) -> int:
        """D, the length of every vector."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What decides the vectors."""

    def encode_tokens(self, rows: Sequence[Sequence[int]]) -> Vectors:
        """Return float32 (N, D), a vector per row of token ids, prompts included."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """An encoder, and what a server has to know to use it.

    Attributes
    ----------
    name : what clients type in ``model``.
    encoder : computes the vectors.
    tokenize : returns the tokens of texts with the prompt of a role; called from any thread.
    max_tokens : length of the longest row that ``tokenize`` returns.
    decode : turns token ids of the model into text; None where the model takes text only.
    dimensions : shorter lengths that the model was trained for (Matryoshka, arXiv 2205.13147).
    normalized : whether vectors have length 1.
    details : further facts for ``/info``.
    """

    name: str
    encoder: TokenEncoder
    tokenize: Callable[[Sequence[str], Role], Tokens]
    max_tokens: int
    decode: Callable[[Sequence[int]], str] | None = None
    dimensions: tuple[int, ...] = ()
    normalized: bool = True
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ServedIndex:
    """An index and the model that its queries go through.

    Attributes
    ----------
    name : what clients type in ``index``.
    fields : the metadata fields that a filter can name, with their types in words.

    Raises
    ------
    FingerprintError : another model made the index.
    """

    name: str
    index: VectorIndex
    model: ServedModel
    fields: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse an index whose vectors the model cannot be compared with."""
        mine, theirs = self.index.fingerprint, self.model.encoder.fingerprint
        check_fingerprints(mine, theirs, where=self.name)

    def search(self, vectors: Vectors, k: int, where: Expression | None) -> list[list[Hit]]:
        """Return at most k hits for each row of ``vectors`` (Q, D), best first."""
        return self.index.search(vectors, k, where=where)


def serve_embedder(encoder: Embedder) -> ServedModel:
    """Return the embedder with what a server has to know about it."""
    from embedder.pooling import get_pooling  # imports torch

    spec = encoder.spec
    tokenizer = TextTokenizer.of_spec(spec, encoder.backbone.tokenizer)
    template = PromptTemplate.parse(get_pooling(spec.pooling).template)
    prompts: dict[Role, PromptTemplate] = {
        "query": PromptTemplate.parse(spec.query_prompt).inside(template),
        "document": PromptTemplate.parse(spec.document_prompt).inside(template),
    }
    return ServedModel(
        name=encoder.fingerprint.model,
        encoder=encoder,
        tokenize=lambda texts, role: Tokens(*tokenizer.tokenize(texts, prompts[role])),
        max_tokens=spec.max_tokens,
        decode=partial(_decode, encoder.backbone.tokenizer),
        dimensions=_trained_dimensions(encoder),
        normalized=spec.normalize,
        details={
            "pooling": spec.pooling,
            "attention": spec.attention,
            "base": spec.base,
            "dtype": str(next(encoder.parameters()).dtype).removeprefix("torch."),
            "device": str(encoder.device),
        },
    )


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return the text of token ids, special tokens left out.

    Raises
    ------
    UsageError : an id that the model's vocabulary does not have.
    """
    size = len(tokenizer)
    wrong = next((one for one in ids if not 0 <= one < size), None)
    if wrong is not None:
        raise UsageError(
            f"Token {wrong} is not in the model's vocabulary of {size} tokens. Send the tokens "
            f"of this model's own tokenizer, or send text."
        )
    return str(
        tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    )


def _trained_dimensions(encoder: Embedder) -> tuple[int, ...]:
    """Return the Matryoshka lengths that a saved model was trained with, shortest first."""
    from embedder.models.manifest import read_manifest  # imports torch

    saved = find_saved_model(encoder.fingerprint.model)
    if saved is None:
        return ()
    config = read_manifest(saved.folder).record.get("config")
    loss = config.get("loss") if isinstance(config, dict) else None
    trained = loss.get("matryoshka_dimensions") if isinstance(loss, dict) else None
    return tuple(sorted(length for length in trained or () if length < encoder.dimension))
