"""``millpond update``: an index follows its corpus."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from cli._change import (
    COMPACT_SHARE,
    CompactAtOption,
    CorpusArgument,
    Embedding,
    FolderArgument,
    IndexModelOption,
    RestartOption,
    embed_change,
)
from cli._options import DeviceOption, IndexSpeedOption, SkipBadOption
from cli._server_key import StoredKeyOption

__all__ = ["update"]


def update(
    folder: FolderArgument,
    corpus: CorpusArgument,
    delete_missing: Annotated[
        bool,
        typer.Option(
            "--delete-missing", help="Delete every document that CORPUS does not hold as well."
        ),
    ] = False,
    model: IndexModelOption = None,
    skip_bad: SkipBadOption = False,
    restart: RestartOption = False,
    compact_at: CompactAtOption = COMPACT_SHARE,
    device: DeviceOption = None,
    speed: IndexSpeedOption = None,
    ask_key: StoredKeyOption = False,
) -> None:
    """Add new documents and replace changed ones.

    The document id decides. What has the text it had is not embedded again; where only metadata
    changed, the document is relabelled and keeps its vector. Readers see all of the change or
    nothing. A run that was killed goes on, when the same command is typed again, from what it had
    embedded.

    \b
    Examples:
      millpond update my-index changed.jsonl
      millpond update my-index corpus.jsonl --delete-missing
    """
    from indexes import update_documents
    from retrieval.errors import UsageError

    if delete_missing and skip_bad:
        raise UsageError(
            "--delete-missing would delete the documents whose records --skip-bad skips. Leave "
            "one of them out."
        )

    asked = Embedding(folder, corpus, model, device, speed, skip_bad, restart, compact_at, ask_key)
    embed_change(asked, partial(update_documents, delete_missing=delete_missing))
