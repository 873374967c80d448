"""``millpond variants``, ``models``, ``info`` and ``doctor``: what there is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import clean, message
from cli.models import name_passages
from cli.options import JsonOption
from cli.output import (
    RECALL,
    RECALL_QUERIES,
    describe_recall,
    format_size,
    format_table,
    print_json,
    print_line,
    stdout_width,
)

if TYPE_CHECKING:
    from indexes import Manifest

__all__ = ["doctor", "info", "models", "variants"]


def variants(json: JsonOption = False) -> None:
    """List every pooling x attention variant.

    \b
    Example:
      millpond variants
    """
    from embedder import list_variants
    from embedder.attention import ATTENTIONS
    from embedder.pooling import POOLINGS
    from embedder.variants import PAPER_MODELS

    if json:
        _print_objects(list_variants())
        return
    poolings = [(p.name, "yes" if p.trainable else "no", p.summary) for p in POOLINGS.values()]
    _print_table(("POOLING", "WEIGHTS", "WHAT IT DOES"), poolings)
    print_line("")
    _print_table(("ATTENTION", "WHAT IT DOES"), [(a.name, a.summary) for a in ATTENTIONS.values()])
    print_line("")
    named = [(name, "+".join(pair)) for name, pair in PAPER_MODELS.items()]
    _print_table(("NAME", "VARIANT OF arXiv 2409.02727"), named)
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
    from embedder.models.names import list_builtin_models

    trained, bases = list_builtin_models(), list_bases()
    if json:
        for kind, found in (("trained", trained), ("base", bases)):
            for item in found:
                print_json({"kind": kind, **dataclasses.asdict(item)})
        return
    if trained:
        named = [(m.name, format_size(m.weights_bytes), m.summary) for m in trained]
        _print_table(("TRAINED", "WEIGHTS", "WHAT IT IS"), named)
        print_line("")
    rows = [
        (b.name, format_size(b.download_bytes), "yes" if b.cached else "no", b.licence, b.summary)
        for b in bases
    ]
    _print_table(("BASE", "DOWNLOAD", "CACHED", "LICENCE", "WHAT IT IS"), rows)
    message("BASE may also be a model folder, a .gguf file or a hub id OWNER/NAME")


def info(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The index folder.")],
    json: JsonOption = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file and compare its checksum.")
    ] = False,
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
    _print_table(None, [("index", str(folder)), *_describe(manifest)])
    if verify:
        message(f"Every file of {folder} is what was written.")


def _describe(manifest: Manifest) -> list[tuple[str, str]]:
    """Return what a manifest says, a row a fact."""
    size = sum(entry.bytes for entry in manifest.files.values())
    deleted = manifest.rows - manifest.documents
    share = f" of {manifest.rows:,} rows, {deleted / manifest.rows:.0%}" if deleted else ""
    recall = describe_recall(manifest)
    others = {n: v for n, v in manifest.settings.items() if n not in (RECALL, RECALL_QUERIES)}
    numbers = f"{manifest.dimension} numbers, {manifest.metric}, {manifest.vector_type}"
    return [
        ("corpus", manifest.corpus_name or "(not named)"),
        _describe_count(manifest),
        ("deleted", f"{deleted:,}{share}"),
        ("skipped", f"{manifest.skipped:,}"),
        ("size", f"{format_size(size)} in {len(manifest.files)} files"),
        ("backend", f"{manifest.backend}, {manifest.factory}"),
        *([(RECALL, recall)] if recall else []),
        ("vectors", numbers),
        ("created", f"{manifest.created} by millpond {manifest.millpond}"),
        ("fields", f"{len(manifest.fields)}" if manifest.fields else "(none)"),
        *((f"  {name}", kind) for name, kind in _describe_fields(manifest)),
        ("model", manifest.fingerprint.model),
        *((f"  {name}", _show(value)) for name, value in manifest.fingerprint.settings.items()),
        *((f"{name} version", version) for name, version in manifest.libraries.items()),
        *((name, _show(value)) for name, value in others.items()),
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


def doctor(json: JsonOption = False) -> None:
    """Check this installation.

    Prints versions, device, caches, and where each of our packages is imported from.
    Exits with 1 where something is wrong.

    \b
    Example:
      millpond doctor
    """
    from cli.commands.doctor import examine, list_rows

    found = examine()
    if json:
        print_json(dataclasses.asdict(found))
    else:
        _print_table(None, list_rows(found))
        for problem in found.problems:
            print_line(f"PROBLEM: {clean(problem)}")
        if not found.problems:
            print_line("No problem found.")
    if found.problems:
        raise typer.Exit(1)


def _show(value: object) -> str:
    return "(none)" if value is None or value == "" else str(value)


def _print_objects(found: Sequence[Any]) -> None:
    for item in found:
        print_json(dataclasses.asdict(item))


def _print_table(header: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> None:
    cells = [[clean(cell) if cell.strip() == cell else cell for cell in row] for row in rows]
    table = [list(header), *cells] if header else cells
    for line in format_table(table, stdout_width()):
        print_line(line)
