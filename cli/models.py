"""The one place where a command gets its encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from cli.console import message, warn
from cli.options import OVERLAP, TOKENS

if TYPE_CHECKING:
    from embedder import Embedder
    from embedder.light import LightEncoder
    from embedder.splitting import PassageSplitter
    from retrieval import Document, Fingerprint, Vectors

__all__ = [
    "Reading",
    "ReportingEncoder",
    "check_index_speed",
    "choose_speed",
    "is_int8",
    "keep_memory",
    "load_encoder",
    "load_splitter",
    "name_passages",
    "note_untrained",
    "say_once",
]

_LAYERS = "linear_layers"
"""The setting of a fingerprint that int8 layers add."""


def load_encoder(
    model: str | None,
    device: str | None = None,
    speed: str = "exact",
    notify: Callable[[str], None] = message,
) -> Embedder:
    """Return the named model, or the default one, ready to encode; says what takes long."""
    from embedder import DEFAULT_MODEL, Embedder
    from embedder.engine.speed import check_speed

    return Embedder.load(
        model or DEFAULT_MODEL, device=device, speed=check_speed(speed), notify=notify
    )


def keep_memory() -> None:
    """Keep freed memory for the next batch: for commands that embed much."""
    from embedder.environment import keep_freed_memory

    keep_freed_memory()


def say_once() -> Callable[[str], None]:
    """Return what prints a line to stderr the first time it is given: for several models."""
    said: set[str] = set()

    def say(line: str) -> None:
        if line not in said:
            said.add(line)
            message(line)

    return say


def is_int8(fingerprint: Fingerprint) -> bool:
    """Return whether linear layers in int8 made the vectors."""
    return str(fingerprint.settings.get(_LAYERS)).startswith("int8")


def choose_speed(asked: str | None, made: Fingerprint) -> str:
    """Return the speed that was asked for, or else the one an index was made with."""
    return asked or ("fast" if is_int8(made) else "exact")


def check_index_speed(made: Fingerprint, found: Fingerprint, speed: str, where: str) -> None:
    """Raise FingerprintError where the model of an index is there, but not in its arithmetic.

    Parameters
    ----------
    made, found : of the index, and of the model that was loaded with ``speed``.
    where : the index.
    """
    from retrieval.errors import FingerprintError

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


def note_untrained(encoder: Embedder | LightEncoder) -> None:
    """Say so on stderr where the model was never trained as an embedder."""
    if not encoder.trained:
        warn(f"{encoder.fingerprint.model} is untrained: expect rough results.")


class ReportingEncoder:
    """An encoder that tells how many texts are finished while a call still runs.

    Parameters
    ----------
    encoder : does the work.
    progress : called with how many more texts are finished.
    """

    def __init__(self, encoder: Embedder, progress: Callable[[int], None]) -> None:
        self._encoder = encoder
        self._progress = progress

    @property
    def dimension(self) -> int:
        """D, the length of every vector."""
        return self._encoder.dimension

    @property
    def fingerprint(self) -> Fingerprint:
        """What decides the vectors."""
        return self._encoder.fingerprint

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows in the order of ``texts``."""
        return self._encoder.encode_queries(texts, progress=self._progress)

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows in the order of ``texts``."""
        return self._encoder.encode_documents(texts, progress=self._progress)


def load_splitter(encoder: Embedder, passages: Mapping[str, int]) -> PassageSplitter | None:
    """Return what cuts texts as stated, None where they stay whole; warns of what is cut off.

    Raises
    ------
    UsageError : the model reads fewer tokens than a passage has, or an index states passages of
        another kind.
    """
    if not passages:
        return None
    from embedder.splitting import make_splitter
    from retrieval.errors import UsageError

    if set(passages) != {TOKENS, OVERLAP}:
        raise UsageError(
            f"The index was cut into passages by {dict(passages)}, which the command line does not "
            f"know how to repeat. Change it from Python, with the function that cut it."
        )
    return make_splitter(encoder, passages[TOKENS], passages[OVERLAP])


def name_passages(passages: Mapping[str, int]) -> str:
    """Return how documents were cut, in words."""
    if set(passages) != {TOKENS, OVERLAP}:
        return str(dict(passages))
    return f"of at most {passages[TOKENS]:,} tokens, overlapping by {passages[OVERLAP]:,}"


class Reading:
    """Documents that are counted as they pass; warns where a title leaves a passage no room.

    Parameters
    ----------
    documents : what is read, once.
    encoder, passages : what the documents are cut for, and how.

    Attributes
    ----------
    count : documents so far.
    """

    def __init__(
        self, documents: Iterable[Document], encoder: Embedder, passages: Mapping[str, int]
    ) -> None:
        self.count = 0
        self._documents = documents
        self._encoder = encoder
        self._tokens = passages.get(TOKENS, 0)
        self._longest_title = -1  # an empty one is looked at too
        self._warned = not passages

    def __iter__(self) -> Iterator[Document]:
        for document in self._documents:
            self.count += 1
            if not self._warned and len(document.title) > self._longest_title:
                self._longest_title = len(document.title)
                self._check(document)
            yield document

    def _check(self, document: Document) -> None:
        """Warn, once, where title, prompt and passage are more than the model reads."""
        from embedder.splitting import tokens_beside

        beside, longest = (
            tokens_beside(self._encoder, document.title),
            self._encoder.spec.max_tokens,
        )
        if beside + self._tokens <= longest:
            return
        self._warned = True
        what = f"the title of {document.doc_id!r}" if document.title else "the end of a text"
        room = longest - beside
        advice = f"type --passages {room} or less" if room > 0 else "the title alone fills it"
        warn(
            f"The model reads {longest} tokens. {beside} of them are taken by {what} and what the "
            f"model puts beside a text, so the end of passages of {self._tokens} tokens is not "
            f"read: {advice}, or choose a model with a larger max_tokens."
        )
