"""What a server serves: models, rerankers and indexes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn, Protocol, TypeAlias

import numpy as np

from embedder.engine.text import Side, TextTokenizer
from embedder.loading import LoadedEncoder
from embedder.models.names import find_saved_model
from embedder.models.sentence_transformers import Reranker, SentenceTransformersEncoder
from retrieval.errors import UsageError
from retrieval.filters import Expression
from retrieval.protocols import Encoder, Floats, VectorIndex, Vectors
from retrieval.types import Blend, Document, Fingerprint, Hit, check_fingerprints

if TYPE_CHECKING:
    from embedder.embedder import Embedder

Role: TypeAlias = Literal["query", "document"]
"""Which of the model's two prompts goes with a text."""

BY_MEANING = Blend("dense")


@dataclass(frozen=True)
class Tokens:
    """Texts as a model reads them.

    Attributes
    ----------
    rows : the token ids of each text with the prompt of its role, 1 to the model's ``max_tokens``;
        or something else of that length that the model's encoder takes.
    truncated : whether each text lost its end (or beginning) to fit.
    """

    rows: Sequence[Any]
    truncated: Sequence[bool]


class ShownToken(NamedTuple):
    """One token as ``/tokenize`` shows it."""

    id: int
    text: str
    special: bool


class TokenEncoder(Protocol):
    """Turns rows of ``Tokens`` into vectors, such as an ``Embedder``; called from one thread."""

    @property
    def dimension(self) -> int:
        """D, the length of every vector."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What decides the vectors."""

    def encode_tokens(self, rows: Sequence[Any]) -> Vectors:
        """Return float32 (N, D), a vector per row of token ids, prompts included."""


@dataclass(frozen=True)
class RowEncoder:
    """A ``TokenEncoder`` made of a function."""

    dimension: int
    fingerprint: Fingerprint
    encode_tokens: Callable[[Sequence[Any]], Vectors]


@dataclass(eq=False)
class Row:
    """What is encoded on its way through the queue, as long as the tokens that are read of it.

    Attributes
    ----------
    content : what the encoder reads, such as a role and a text.
    states : float32 (T, W), the vectors of the tokens; None but where the encoder fills it.
    """

    content: Any
    tokens: int
    states: Vectors | None = None

    def __len__(self) -> int:
        """Return the number of tokens."""
        return self.tokens


@dataclass(frozen=True, eq=False)
class ServedModel:
    """An encoder, and what a server has to know to use it.

    Attributes
    ----------
    name : what clients type in ``model``.
    encoder : computes the vectors.
    tokenize : returns the tokens of texts with the prompt of a role; called from any thread.
    max_tokens : length of the longest row that ``tokenize`` returns.
    tokenize_left : as ``tokenize``, but a long text loses its beginning; None where the model
        cannot do that.
    show : returns the tokens of one text as the model reads it, at most as many as are asked for,
        and whether there are more; None where the model does not say.
    unnormalized : the same model, whose vectors keep their length; None where it has no other.
    states : the same base without the pooling, which fills the states of ``Row`` of token ids; None
        where it does not show the vectors of tokens.
    width : how many numbers a token's vector has; 0 where they are not shown.
    decode : turns token ids of the model into text, special tokens left out unless a second
        argument is true; None where the model takes text only.
    dimensions : shorter lengths that the model was trained for (Matryoshka, arXiv 2205.13147).
    normalized : whether vectors have length 1.
    details : further facts for ``/info``.
    """

    name: str
    encoder: TokenEncoder
    tokenize: Callable[[Sequence[str], Role], Tokens]
    max_tokens: int
    tokenize_left: Callable[[Sequence[str], Role], Tokens] | None = None
    show: Callable[[str, Role, int], tuple[list[ShownToken], bool]] | None = None
    unnormalized: ServedModel | None = None
    states: ServedModel | None = None
    width: int = 0
    decode: Callable[..., str] | None = None
    dimensions: tuple[int, ...] = ()
    normalized: bool = True
    details: Mapping[str, str] = field(default_factory=dict)


class Edit(Protocol):
    """Changes one index and publishes it at once; counts what was done by the names of Change."""

    def put(self, documents: Sequence[Document]) -> Mapping[str, int]:
        """Add documents, or replace those with their ids."""
        ...

    def delete(self, doc_ids: Sequence[str], ignore_missing: bool) -> Mapping[str, int]:
        """Delete documents."""
        ...


@dataclass(frozen=True, eq=False)
class ServedIndex:
    """An index and the model that its queries go through.

    Attributes
    ----------
    name : what clients type in ``index``.
    fields : the metadata fields that a filter can name, with their types in words.
    version : names the state of the index, which other processes may change.
    follow : returns this index in a newer version, opened, None where there is none; raises a
        MillpondError where it cannot be opened. None for an index that stays what it is.
    other_prompt : whether the user gave the model another query prompt than the index's.
    edit : returns what changes the index, given what embeds its documents; None where clients may
        not.

    Raises
    ------
    FingerprintError : another model made the index.
    """

    name: str
    index: VectorIndex
    model: ServedModel
    fields: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    follow: Callable[[], ServedIndex | None] | None = field(default=None, repr=False)
    other_prompt: bool = False
    edit: Callable[[Encoder], Edit] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        """Refuse an index whose vectors the model cannot be compared with."""
        mine, theirs = self.index.fingerprint, self.model.encoder.fingerprint
        check_fingerprints(
            mine, theirs, where=self.name, other_prompt=self.other_prompt, queries_only=True
        )

    def search(
        self,
        queries: Vectors | list[str],
        k: int,
        where: Expression | None,
        texts: list[str] | None = None,
        blend: Blend = BY_MEANING,
    ) -> list[list[Hit]]:
        """Return at most k hits for each query, best first; as ``VectorIndex.search``."""
        return self.index.search(
            queries,
            k,
            where=where,
            texts=texts,
            mode=blend.mode,
            fusion=blend.fusion,
            weight=blend.weight,
            **({"distinct": True} if blend.distinct else {}),
        )


def serve_embedder(encoder: LoadedEncoder) -> ServedModel:
    """Return the encoder with what a server has to know about it."""
    if isinstance(encoder, SentenceTransformersEncoder):
        return _serve_texts(encoder)
    spec = encoder.spec
    tokenizer = TextTokenizer.of_spec(spec, encoder.backbone.tokenizer)
    prompts: dict[Role, str] = {"query": spec.query_prompt, "document": spec.document_prompt}

    # Where the prompt is left out of the pooling, token ids do not say where it ends.
    as_ids = spec.pool_prompt

    def tokenize(texts: Sequence[str], role: Role, side: Side = "right") -> Tokens:
        rows, truncated = tokenizer.tokenize(texts, prompts[role], side)
        if as_ids:
            return Tokens(rows, truncated)
        counted = zip(texts, rows, strict=True)
        return Tokens([Row((role, text), len(row)) for text, row in counted], truncated)

    def show(text: str, role: Role, most: int) -> tuple[list[ShownToken], bool]:
        whole = TextTokenizer.of_spec(spec, encoder.backbone.tokenizer, max_tokens=most)
        (row,), (more,) = whole.tokenize([text], prompts[role])
        return _show_tokens(encoder.backbone.tokenizer, row), more

    model = ServedModel(
        name=encoder.fingerprint.model,
        encoder=encoder if as_ids else _of_texts(encoder),
        tokenize=tokenize,
        max_tokens=spec.max_tokens,
        tokenize_left=partial(tokenize, side="left") if as_ids else None,
        show=show,
        states=_serve_states(encoder, tokenize) if as_ids else None,
        width=encoder.backbone.width if as_ids else 0,
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
    if not spec.normalize:
        return model
    raw = copy(encoder)  # the same weights
    raw.spec = replace(spec, normalize=False)
    unnormalized = replace(model, encoder=raw if as_ids else _of_texts(raw), normalized=False)
    return replace(model, unnormalized=unnormalized)


def _serve_states(
    encoder: Embedder, tokenize: Callable[[Sequence[str], Role], Tokens]
) -> ServedModel:
    """Return the base without the pooling; its own vectors, of one number, say nothing."""
    backbone = encoder.backbone

    def fill(rows: Sequence[Row]) -> Vectors:
        import torch

        with torch.inference_mode():
            for row in rows:
                ids = torch.tensor([list(row.content)], device=backbone.device)
                states = backbone.token_states(ids, torch.ones_like(ids))
                row.states = states[0].float().cpu().numpy()
        return np.zeros((len(rows), 1), dtype=np.float32)

    name, most = encoder.fingerprint.model, encoder.spec.max_tokens
    reader = RowEncoder(1, encoder.fingerprint, fill)
    return ServedModel(name, reader, tokenize, max_tokens=most, normalized=False)


def _of_texts(encoder: Encoder) -> RowEncoder:
    """Return an encoder of rows of role and text, those of each role in one call."""
    encoders = {"query": encoder.encode_queries, "document": encoder.encode_documents}

    def encode(rows: Sequence[Row]) -> Vectors:
        vectors = np.empty((len(rows), encoder.dimension), dtype=np.float32)
        for role, encode_role in encoders.items():
            places = [place for place, row in enumerate(rows) if row.content[0] == role]
            if places:
                vectors[places] = encode_role([rows[place].content[1] for place in places])
        return vectors

    return RowEncoder(encoder.dimension, encoder.fingerprint, encode)


def _serve_texts(encoder: SentenceTransformersEncoder) -> ServedModel:
    """Return an encoder that takes text alone, with what a server has to know about it."""

    def tokenize(texts: Sequence[str], role: Role) -> Tokens:
        counts, truncated = encoder.count_tokens(texts, role)
        counted = zip(texts, counts, strict=True)
        return Tokens([Row((role, text), count) for text, count in counted], truncated)

    return ServedModel(
        name=encoder.fingerprint.model,
        encoder=_of_texts(encoder),
        tokenize=tokenize,
        max_tokens=encoder.max_tokens,
        normalized=encoder.normalized,
        details={"dtype": encoder.dtype, "device": encoder.device},
    )


def _show_tokens(tokenizer: Any, row: Sequence[int]) -> list[ShownToken]:
    special = set(tokenizer.all_special_ids)
    return [ShownToken(one, str(tokenizer.decode([one])), one in special) for one in row]


def _decode(tokenizer: Any, ids: Sequence[int], special: bool = False) -> str:
    """Return the text of token ids, or raise UsageError for one that the model does not have."""
    size = len(tokenizer)
    wrong = next((one for one in ids if not 0 <= one < size), None)
    if wrong is not None:
        raise UsageError(
            f"Token {wrong} is not in the model's vocabulary of {size} tokens. Send the tokens "
            f"of this model's own tokenizer, or send text."
        )
    return str(
        tokenizer.decode(
            list(ids), skip_special_tokens=not special, clean_up_tokenization_spaces=False
        )
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


@dataclass(frozen=True)
class Ranked:
    """The scores of documents, in the order of the request.

    Attributes
    ----------
    outputs : of the model, by which documents are ordered.
    tokens : how many the reranker read.
    truncated : how many documents it did not read to their end.
    """

    model: str
    scores: Floats
    outputs: Floats
    tokens: int
    truncated: int

    def order(self) -> list[tuple[int, float]]:
        """Return place and score of each document, the best first, equal ones as they came."""
        best_first = np.argsort(-self.outputs, kind="stable")
        return [(int(place), float(self.scores[place])) for place in best_first]


def serve_reranker(reranker: Reranker) -> ServedModel:
    """Return the reranker as a model whose rows are those of ``make_pairs``, a number for each."""

    def refuse(texts: Sequence[str], role: Role) -> NoReturn:
        raise TypeError("a reranker has no rows for texts alone")

    def score(rows: Sequence[Row]) -> Vectors:
        return reranker.score_pairs([row.content for row in rows], list(map(len, rows)))[:, None]

    encoder = RowEncoder(1, Fingerprint(reranker.name), score)
    return ServedModel(reranker.name, encoder, refuse, max_tokens=reranker.max_tokens)


def make_pairs(reranker: Reranker, query: str, documents: Sequence[str]) -> Tokens:
    """Return a row for the query with each document; called from any thread."""
    lengths = reranker.count_tokens(query, documents)
    most = reranker.max_tokens
    rows = [
        Row((query, document), min(length, most))
        for document, length in zip(documents, lengths, strict=True)
    ]
    return Tokens(rows, [length > most for length in lengths])
