"""``millpond distill``: a student learns the vectors of a teacher from texts alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cli.commands.train import (
    FinishOption,
    ModelFolderOption,
    ResumeOption,
    check_config,
    run_training,
)
from cli.console import message
from cli.options import DeviceOption, SkipBadOption, TrustOption, flag, option
from cli.output import atomic_output
from retrieval.errors import UsageError, count_noun


def distill(
    teacher: Annotated[
        str | None, option("MODEL", "As --model of 'millpond index'.", shown=False)
    ] = None,
    vectors: Annotated[
        Path | None,
        option(
            "FILE",
            "The teacher's vectors of the texts, as 'millpond embed' wrote them, or a folder "
            "of such files; with --teacher, it embeds what is not there.",
            shown=False,
        ),
    ] = None,
    student: Annotated[
        str,
        option("MODEL", "BASE:POOLING+ATTENTION with options, or a trained model to go on from."),
    ] = "smollm2-135m:mean+causal,base_layers=12",
    texts: Annotated[
        list[Path] | None,
        option(
            "TEXTS",
            "A .txt file with one text per line, a file or folder of a corpus, an index, or "
            "pairs for 'millpond train', whose texts are all lessons; repeatable.",
            shown=False,
        ),
    ] = None,
    out: ModelFolderOption = None,
    epochs: Annotated[float, option("N", "How often every text is seen.")] = 1.0,
    batch_texts: Annotated[int, option("N", "Texts in a step.", "--batch", min=2)] = 64,
    learning_rate: Annotated[float, option("X", "Highest rate.")] = 5e-4,
    keep_projection: Annotated[
        bool,
        flag(
            "--keep-projection",
            "Let the model end at the teacher's width, so that its queries can be compared "
            "with documents that the teacher embedded.",
        ),
    ] = False,
    sts: Annotated[
        Path | None, option("FILE", "Score this .tsv while training.", shown=False)
    ] = None,
    resume: ResumeOption = False,
    finish: FinishOption = False,
    check: Annotated[bool, flag("--check", "Only check the options and every text.")] = False,
    skip_bad: SkipBadOption = False,
    device: DeviceOption = None,
    trust_remote_code: TrustOption = False,
) -> None:
    """Train a model to give another's vectors.

    No pairs or judgements are needed, so that a small model can take over from a large one. This is
    'millpond train' with a [teacher] and defaults for the rest; write a config for more. A few
    texts are never trained on: metrics.jsonl tells how the student agrees with the teacher on them.

    \b
    Examples:
      millpond distill --teacher st:my-teacher --texts corpus.jsonl --out my-model
      millpond distill --teacher st:my-teacher --student millpond-135m --texts notes.txt --out m
    """
    from embedder.training.distillation.plan import DistillOptions, plan_distillation

    if teacher is None and vectors is None:
        raise UsageError("No teacher was given. Type --teacher MODEL, or --vectors FILE.")
    if not texts:
        raise UsageError("No texts were given. Type --texts FILE, as often as you like.")
    if out is None and not check:
        raise UsageError("No model folder was given. Type --out DIR.")
    taken: set[str] = set()
    texts = [_as_corpus(path, out, taken) for path in texts]
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
            trust_remote_code=trust_remote_code,
            sts=sts,
        )
    )
    if check or out is None:
        check_config(config, skip_bad)
        return
    run_training(config, out, resume=resume, finish=finish, skip_bad=skip_bad, device=device)


def _as_corpus(path: Path, out: Path | None, taken: set[str]) -> Path:
    """Return the path of texts; those of an index are written as JSON lines beside OUT.

    ``taken`` holds the names of folders so far: the second "ix" of a command is written as "ix-2".

    Raises
    ------
    UsageError : an index, and no OUT.
    """
    from indexes.storage.manifest import MANIFEST_NAME

    if not (path / MANIFEST_NAME).is_file():
        return path
    if out is None:
        raise UsageError(f"{path} is an index; its texts are written beside DIR. Type --out DIR.")
    from indexes import Index

    name = folder = path.resolve().name
    number = 2
    while name in taken:
        name, number = f"{folder}-{number}", number + 1
    taken.add(name)
    target = out.with_name(f"{out.name}.texts") / f"{name}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    with Index.open(path) as index, atomic_output(target) as beside:
        live, row, count = index.snapshot.rows.everything.mask, 0, 0
        with beside.open("w", encoding="utf-8") as stream:
            for batch in index.snapshot.documents.iterate():
                for document in batch:
                    if live is None or live[row]:
                        texts = {"title": document.title, "text": document.text}
                        record = {"_id": document.doc_id, **texts}
                        stream.write(json.dumps(record, ensure_ascii=False) + "\n")
                        count += 1
                    row += 1
    message(f"Wrote the {count_noun(count, 'text')} of {path} to {target}.")
    return target
