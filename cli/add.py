"""``millpond add``: new documents go into an index."""

from __future__ import annotations

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

__all__ = ["add"]


def add(
    folder: FolderArgument,
    corpus: CorpusArgument,
    model: IndexModelOption = None,
    skip_bad: SkipBadOption = False,
    restart: RestartOption = False,
    compact_at: CompactAtOption = COMPACT_SHARE,
    device: DeviceOption = None,
    speed: IndexSpeedOption = None,
    ask_key: StoredKeyOption = False,
) -> None:
    """Add new documents to an index.

    The document id decides. A document that the index holds already, with the same text and
    metadata, is left alone; with others it is an error, and nothing is added: see millpond
    update. Readers see all of the change or nothing. A run that was killed goes on, when the same
    command is typed again, from what it had embedded.

    \b
    Examples:
      millpond add my-index new.jsonl
      cat new.jsonl | millpond add my-index -
    """
    from indexes import add_documents

    asked = Embedding(folder, corpus, model, device, speed, skip_bad, restart, compact_at, ask_key)
    embed_change(asked, add_documents)
