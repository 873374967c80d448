"""The encoder of a command, and what is told of it and of the index that it makes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cli.console import format_seconds, message, warn
from cli.options import OVERLAP, TOKENS
from embedder.models.names import DEFAULT_MODEL
from retrieval.errors import UsageError, count_noun

if TYPE_CHECKING:
    from embedder.loading import LoadedEncoder
    from embedder.splitting import PassageSplitter
    from indexes import Change, Manifest
    from retrieval import Corpus, Encoder, Fingerprint, Vectors

USUAL_TOKENS = 512
"""What a base reads of a text unless its name says so; a test holds it equal to the spec's."""


def load_encoder(
    model: str | None,
    device: str | None = None,
    speed: str = "exact",
    notify: Callable[[str], None] = message,
    *,
    trust_remote_code: bool = False,
) -> LoadedEncoder:
    """Return the named model, or the default one, ready to encode."""
    if sys.stderr.isatty():  # where somebody waits for the imports, which take seconds
        message(f"Loading {model or DEFAULT_MODEL} ...")
    from embedder.loading import load_encoder

    return load_encoder(model, device, speed, notify, trust_remote_code=trust_remote_code)


def instruct(
    model: str | None, instruction: str | None, notify: Callable[[str], None] = message
) -> str | None:
    """Return the model's name, with the query prompt of the instruction if there is one."""
    if instruction is None:
        return model
    from embedder.instructions import add_instruction

    return add_instruction(model or DEFAULT_MODEL, instruction, notify)


def say_once() -> Callable[[str], None]:
    """Return a function that prints each line to stderr once; for several models."""
    return cache(message)


def note_untrained(encoder: Encoder) -> None:
    """Warn of a model that was never trained as an embedder, and of its usual limit."""
    if getattr(encoder, "trained", True):
        return
    reads, could = encoder.fingerprint.settings.get("max_tokens"), getattr(encoder, "positions", 0)
    limit = ""
    if reads == USUAL_TOKENS and could and could > USUAL_TOKENS:
        limit = (
            f" It reads {USUAL_TOKENS} tokens of a text, of the {could:,} that its base can; "
            f"another limit is max_tokens=N."
        )
    warn(f"{encoder.fingerprint.model} is untrained: expect rough results.{limit}")


def warn_skipped(source: Corpus) -> None:
    """Warn of the bad records that were skipped, if any."""
    if source.skipped:
        count = count_noun(source.skipped, "bad record was", "bad records were")
        warn(f"{count} skipped. The first: {source.first_skipped[0]}")


class ReportingEncoder:
    """An encoder that reports finished texts while a call still runs.

    Parameters
    ----------
    encoder : does the work.
    progress : called with the number of texts just finished.
    """

    def __init__(self, encoder: LoadedEncoder, progress: Callable[[int], None]) -> None:
        self.dimension: int = encoder.dimension
        self.fingerprint: Fingerprint = encoder.fingerprint
        self._encoder, self._progress = encoder, progress

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows in the order of ``texts``."""
        return self._encoder.encode_queries(texts, progress=self._progress)

    def encode_documents(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (N, D), rows in the order of ``texts``."""
        return self._encoder.encode_documents(texts, progress=self._progress)


def load_splitter(encoder: LoadedEncoder, passages: Mapping[str, int]) -> PassageSplitter | None:
    """Return the splitter that ``passages`` describes, None if documents stay whole.

    Raises
    ------
    UsageError : the model reads fewer tokens than a passage has, or an index states passages of
        another kind.
    """
    if not passages:
        return None
    from embedder.splitting import make_splitter

    if set(passages) != {TOKENS, OVERLAP}:
        raise UsageError(
            f"The index was split into passages by {dict(passages)}, which the command line cannot "
            f"repeat. Change it from Python, with the function that split it."
        )
    return make_splitter(encoder, passages[TOKENS], passages[OVERLAP])


def name_passages(passages: Mapping[str, int]) -> str:
    """Return how documents were split, in words."""
    if set(passages) != {TOKENS, OVERLAP}:
        return str(dict(passages))
    return f"of at most {passages[TOKENS]:,} tokens, overlapping by {passages[OVERLAP]:,}"


RECALL, RECALL_QUERIES = "recall@10", "recall_queries"
"""A test holds the first equal to ``indexes.build.RECALL``."""
GOOD_RECALL = 0.9
ADVICE = {
    "faiss": "a type that looks at more (HNSW64, IVF256,Flat for IVF256,PQ32), or Flat",
    "qdrant": "a denser graph (HNSW64,ef400), or Flat",
}


def count_rows(manifest: Manifest) -> str:
    """Return the number of documents or passages, with the noun."""
    return count_noun(manifest.documents, "passage" if manifest.passages else "document")


def describe_recall(manifest: Manifest) -> str:
    """Return the measured recall of an approximate index, "" of an exact one."""
    recall = manifest.settings.get(RECALL)
    if not isinstance(recall, int | float):
        return ""
    queries = manifest.settings.get(RECALL_QUERIES)
    return f"{recall:.2f} against exact search ({queries} stored vectors as queries)"


def report_built(manifest: Manifest, folder: Path) -> None:
    """Report where a server keeps a new index, and its recall if it is approximate."""
    place = manifest.settings
    if place.get("mode") == "server":
        message(f"The collection {place['collection']!r} at {place['url']} holds the vectors.")
    blank = describe_blank(manifest)
    if blank:
        message(f"{blank}.")
    report_words(manifest)
    report_recall(manifest, folder)


def describe_arms(manifest: Manifest) -> str:
    """Return what an index is searched by, such as "dense, lexical (english)"."""
    language = manifest.lexical.get("language")
    return ", ".join(manifest.arms) + (f" ({language})" if manifest.lexical else "")


def report_words(manifest: Manifest) -> None:
    """Report the language that the words of an index are read in."""
    language = manifest.lexical.get("language")
    if language == "none":
        message("Words are compared as they are, without endings cut off (--language none).")
    elif language:
        message(f"Words are indexed as {language}; for another language type --language NAME.")


def describe_blank(manifest: Manifest) -> str:
    """Return how many documents hold no word, and what that means; "" if none do."""
    if not manifest.blank:
        return ""
    noun = "passage" if manifest.passages else "document"
    hold = count_noun(manifest.blank, f"{noun} holds", f"{noun}s hold")
    return f"{hold} no letter, digit or pictograph: kept, but not found by meaning"


def report_recall(manifest: Manifest, folder: Path) -> None:
    """Report the recall of an approximate index, with a warning and advice if it is low."""
    found = describe_recall(manifest)
    if not found:
        return
    recall = manifest.settings[RECALL]
    assert isinstance(recall, int | float)
    if recall >= GOOD_RECALL:
        message(f"{RECALL} {found}")
        return
    advice = ADVICE.get(manifest.backend, "another type, or Flat")
    warn(
        f"{RECALL} {found}: {manifest.factory} misses {1 - recall:.0%} of the best documents. "
        f"Try {advice}: millpond reindex {shlex.quote(str(folder))} --factory TYPE"
    )


def report_change(change: Change, folder: Path, seconds: float, label: str = "") -> None:
    """Report in one line, which begins with ``label``, what a change did, and the recall now."""
    counts = {
        "added": change.added,
        "replaced": change.replaced,
        "relabelled": change.relabelled,
        "deleted": change.deleted,
        "kept": change.unchanged,
        "not found": change.missing,
    }
    done = [f"{name} {count:,}" for name, count in counts.items() if count] or ["changed nothing"]
    if change.compacted:
        done.append("compacted")
    text = ", ".join(done)
    text = label + text if label else text[0].upper() + text[1:]
    message(f"{text} in {format_seconds(seconds)}: {folder} holds {count_rows(change.manifest)}.")
    if change.postponed:
        warn(f"The deleted rows stay on disk for now, since compaction failed: {change.postponed}")
    blank = describe_blank(change.manifest)
    if blank and (change.added or change.replaced):
        message(f"{blank}.")
    if change.count:
        report_recall(change.manifest, folder)
