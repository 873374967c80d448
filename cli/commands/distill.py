"""``millpond distill``: a student learns the vectors of a teacher from texts alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.commands.train import check_config, run_training
from cli.options import DeviceOption, SkipBadOption

__all__ = ["distill"]


def distill(
    teacher: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="As --model of 'millpond index'.", show_default=False),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The teacher's vectors of the texts, as 'millpond embed' wrote them, or a folder "
            "of such files; with --teacher, it embeds what is not there.",
            show_default=False,
        ),
    ] = None,
    student: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="BASE:POOLING+ATTENTION with options, or a trained model to go on from.",
        ),
    ] = "smollm2-135m:mean+causal,base_layers=12",
    texts: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="TEXTS",
            help="A .txt file with one text per line, a file or folder of a corpus, or "
            "pairs for 'millpond train', whose texts are all lessons; repeatable.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="The model folder.", show_default=False),
    ] = None,
    epochs: Annotated[float, typer.Option(metavar="N", help="How often every text is seen.")] = 1.0,
    batch_texts: Annotated[
        int, typer.Option("--batch", metavar="N", min=2, help="Texts in a step.")
    ] = 64,
    learning_rate: Annotated[float, typer.Option(metavar="X", help="Highest rate.")] = 5e-4,
    keep_projection: Annotated[
        bool,
        typer.Option(
            "--keep-projection",
            help="Let the model end at the teacher's width, so that its queries can be compared "
            "with documents that the teacher embedded.",
        ),
    ] = False,
    sts: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Score this .tsv while training.", show_default=False),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in DIR, if there is one.")
    ] = False,
    finish: Annotated[
        bool, typer.Option("--finish", help="End the run in DIR now, with its last checkpoint.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only check the options and every text.")
    ] = False,
    skip_bad: SkipBadOption = False,
    device: DeviceOption = None,
) -> None:
    """Train a small model to give the vectors of a larger one, from texts without judgements.

    This is 'millpond train' with a [teacher] and defaults for the rest; write a config for more.
    A few texts are never trained on: metrics.jsonl tells how the student agrees with the teacher
    on them.

    \b
    Examples:
      millpond distill --teacher st:my-teacher --texts corpus.jsonl --out my-model
      millpond distill --teacher st:my-teacher --student millpond-135m --texts notes.txt --out m
    """
    from embedder.training.distillation.plan import DistillOptions, plan_distillation
    from retrieval.errors import UsageError

    if teacher is None and vectors is None:
        raise UsageError("No teacher was given. Type --teacher MODEL, or --vectors FILE.")
    if not texts:
        raise UsageError("No texts were given. Type --texts FILE, as often as you like.")
    config = plan_distillation(
        DistillOptions(
            teacher=teacher,
            student=student,
            texts=texts,
            vectors=vectors,
            epochs=epochs,
            batch_texts=batch_texts,
            learning_rate=learning_rate,
            keep_projection=keep_projection,
            sts=sts,
        )
    )
    if check:
        check_config(config, skip_bad)
        return
    if out is None:
        raise UsageError("No model folder was given. Type --out DIR.")
    run_training(config, out, resume=resume, finish=finish, skip_bad=skip_bad, device=device)
