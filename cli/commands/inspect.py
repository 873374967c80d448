"""``millpond variants``, ``models`` and ``info``: lists of what exists."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from cli.console import format_size, message, print_json, print_line, print_table, stdout_width
from cli.models import (
    RECALL,
    RECALL_QUERIES,
    describe_arms,
    describe_blank,
    describe_recall,
    name_passages,
)
from cli.options import FolderArgument, JsonOption, flag
from embedder.models.names import list_builtin_models
from retrieval.errors import count_noun

if TYPE_CHECKING:
    from indexes import Manifest


def variants(json: JsonOption = False) -> None:
    """List every pooling x attention variant.

    \b
    Example:
      millpond variants
    """
    from embedder import list_variants
    from embedder.pooling import POOLINGS
    from embedder.variants import ATTENTIONS, PAPER_MODELS

    if json:
        for variant in list_variants():
            print_json(dataclasses.asdict(variant))
        return
    poolings = [(p.name, "yes" if p.trainable else "no", p.summary) for p in POOLINGS.values()]
    print_table(poolings, ("POOLING", "WEIGHTS", "WHAT IT DOES"))
    print_line("")
    print_table([(a.name, a.summary) for a in ATTENTIONS.values()], ("ATTENTION", "WHAT IT DOES"))
    print_line("")
    named = [(name, "+".join(pair)) for name, pair in PAPER_MODELS.items()]
    print_table(named, ("NAME", "VARIANT OF arXiv 2409.02727"))
    message(
        "Any pair is a variant: --model smollm2-135m:mean+bidirectional, or smollm2-135m:model5"
    )


def models(json: JsonOption = False) -> None:
    """List the trained models and the bases that are built in.

    \b
    Example:
      millpond models
    """
    from embedder import list_bases

    trained, bases = list_builtin_models(), list_bases()
    if json:
        for kind, found in (("trained", trained), ("base", bases)):
            for item in found:
                print_json({"kind": kind, **dataclasses.asdict(item)})
        return
    if trained:
        named = [(m.name, format_size(m.weights_bytes), m.summary) for m in trained]
        print_table(named, ("TRAINED", "WEIGHTS", "WHAT IT IS"))
        print_line("")
    rows = [
        (b.name, format_size(b.download_bytes), "yes" if b.cached else "no", b.licence, b.summary)
        for b in bases
    ]
    print_table(rows, ("BASE", "DOWNLOAD", "CACHED", "LICENCE", "WHAT IT IS"))
    message("BASE may also be a model folder, a .gguf file or a hub id OWNER/NAME")


def info(
    folder: FolderArgument,
    json: JsonOption = False,
    verify: Annotated[bool, flag("--verify", "Read every file and compare its checksum.")] = False,
) -> None:
    """Show what an index holds and which model made it.

    \b
    Examples:
      millpond info demo-index
      millpond info demo-index --verify
    """
    from indexes import Index, read_manifest

    manifest = Index.open(folder).check() if verify else read_manifest(folder)
    if json:
        print_json({**manifest.to_json(), "verified": verify})
        return
    print_table([("index", str(folder)), *_describe(manifest)])
    if verify:
        message(f"Every file of {folder} matches its checksum.")


def _describe(manifest: Manifest) -> list[tuple[str, str]]:
    """Return the facts of a manifest, one per row."""
    size = sum(entry.bytes for entry in manifest.files.values())
    deleted = manifest.rows - manifest.documents
    rows = count_noun(manifest.rows, "row")
    share = f" of {rows}, {deleted / manifest.rows:.0%}" if deleted else ""
    recall, blank = describe_recall(manifest), describe_blank(manifest)
    others = {n: v for n, v in manifest.settings.items() if n not in (RECALL, RECALL_QUERIES)}
    numbers = f"{manifest.dimension} numbers, {manifest.metric}, {manifest.vector_type}"
    return [
        ("corpus", manifest.corpus_name or "(not named)"),
        _describe_count(manifest),
        ("deleted", f"{deleted:,}{share}"),
        *([("blank", blank)] if blank else []),
        ("skipped", f"{manifest.skipped:,}"),
        *_describe_cut(manifest.cut or {}),
        ("size", f"{format_size(size)} in {count_noun(len(manifest.files), 'file')}"),
        ("backend", f"{manifest.backend}, {manifest.factory}"),
        ("arms", describe_arms(manifest)),
        *([(RECALL, recall)] if recall else []),
        ("vectors", numbers),
        ("created", f"{manifest.created} by millpond {manifest.millpond}"),
        ("fields", f"{len(manifest.fields)}" if manifest.fields else "(none)"),
        *((f"  {name}", kind) for name, kind in _describe_fields(manifest)),
        *_describe_layout(manifest.layout or {}),
        ("model", manifest.fingerprint.model),
        *((f"  {name}", _show(value)) for name, value in manifest.fingerprint.settings.items()),
        *((f"{name} version", version) for name, version in manifest.libraries.items()),
        *((name, _show(value)) for name, value in others.items()),
    ]


def _describe_layout(layout: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return which field each role is read from, and the folders that ids begin with."""
    from retrieval.corpus.reading import FOLDERS
    from retrieval.corpus.roles import NO_TITLE
    from retrieval.corpus.roots import NO_FOLDERS, Roots

    named = {role: name for role, name in layout.items() if role != FOLDERS and name != NO_TITLE}
    folders = [
        (one.label, str(one.path)) for one in Roots.from_json(layout.get(FOLDERS, NO_FOLDERS))
    ]
    return [
        *((f"{role} from", name) for role, name in named.items()),
        *((f"files {label}/", path) for label, path in dict(folders).items()),
    ]


def _describe_count(manifest: Manifest) -> tuple[str, str]:
    if not manifest.passages:
        return "documents", f"{manifest.documents:,}"
    return "passages", f"{manifest.documents:,}, {name_passages(manifest.passages)}"


def _describe_fields(manifest: Manifest) -> list[tuple[str, str]]:
    """Return each metadata field with its type, or with why it cannot be filtered."""
    types = manifest.schema.types
    rows = []
    for name, kinds in manifest.fields.items():
        mixed = sorted(kind for kind in kinds if kind != "null")
        other = f"several types ({', '.join(mixed)}), no filter" if mixed else "null everywhere"
        rows.append((name, str(types.get(name, other))))
    return rows


def _describe_cut(cut: Mapping[str, int]) -> list[tuple[str, str]]:
    """Return how many documents the model reads in part, and how much that leaves out."""
    if not cut.get("cut"):
        return []
    of = f"the end of {cut['cut']:,} of {cut.get('texts', 0):,} documents"
    share = cut.get("unread", 0) / max(1, cut.get("tokens", 0))
    return [("not read", f"{of}, {share:.0%} of all tokens")]


HASH = re.compile("[0-9a-f]{40,}")
SHOWN_DIGITS = 12


def _show(value: object) -> str:
    if value is None or value == "":
        return "(none)"
    if isinstance(value, str) and HASH.fullmatch(value) and stdout_width() is not None:
        return f"{value[:SHOWN_DIGITS]}… (--json shows all of it)"
    return str(value)
