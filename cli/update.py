"""``millpond update``: an index follows its corpus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
from cli._options import DeviceOption, SkipBadOption

if TYPE_CHECKING:
    from cli._passages import Reading
    from indexes import Change, ChangeConfig
    from retrieval import Encoder
    from retrieval.passages import Splitter

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

    def carry(
        encoder: Encoder, documents: Reading, config: ChangeConfig, split: Splitter | None
    ) -> Change:
        return update_documents(
            encoder, documents, folder, config, delete_missing=delete_missing, split=split
        )

    embed_change(Embedding(folder, corpus, model, device, skip_bad, restart, compact_at), carry)
