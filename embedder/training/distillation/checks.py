"""What is looked at before the first step with a teacher, so that no set-up fails silently."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice

import numpy as np

from embedder.splitting import Coverage, tokens_read
from embedder.training.config import TrainConfig
from embedder.training.data import TrainingData
from embedder.training.distillation.teachers import Teacher, TeacherText
from retrieval.errors import UsageError, count_noun
from retrieval.protocols import Notify

_PROBED = 32
_SHOWN = 60
_LENGTH_NOISE = 1e-3
_COUNTED = 20_000
"""Pairs whose tokens are counted, or up to twice as many; of more, some are taken evenly."""


def check_lessons(
    config: TrainConfig, teacher: Teacher, data: TrainingData, notify: Notify
) -> None:
    """Say what of the teacher matters, or raise where the run could only go wrong.

    Raises
    ------
    UsageError : texts alone, where a loss needs pairs; triples, where no pair has a negative;
        texts without a stored vector; a teacher whose vectors are all the same; or every text
        longer than the teacher reads.
    ModelError : the teacher gives NaN.
    """
    chosen = config.teacher
    assert chosen is not None
    _check_pairs(config, data)
    if teacher.stored is not None:
        _check_stored(teacher, data, notify)
    if teacher.query_prompt or teacher.document_prompt:
        notify(
            f"The teacher reads queries after {teacher.query_prompt!r} and documents after "
            f"{teacher.document_prompt!r}. Texts alone are read as documents; the student has "
            f"prompts of its own (model.query_prompt, model.document_prompt)."
        )
    _check_vectors(teacher, list(islice(_texts(data), _PROBED)), notify)
    _check_lengths(teacher, data, notify)


def _check_pairs(config: TrainConfig, data: TrainingData) -> None:
    chosen = config.teacher
    assert chosen is not None
    if not chosen.needs_pairs:
        return
    for source in data.sources:
        if not source[0].query:
            raise UsageError(
                f"{source.config.path} holds texts alone, and teacher.weights asks for "
                f"{' and '.join(sorted(name for name in chosen.weights if chosen.weights[name]))}. "
                f"Keep cosine and similarity, or give pairs of query and positive."
            )
    if "margin_mse" in chosen.used and not any(source.negatives for source in data.sources):
        raise UsageError(
            "teacher.weights asks for margin_mse, and no pair has a negative. Find some with "
            "millpond mine, or leave it out."
        )


def _check_stored(teacher: Teacher, data: TrainingData, notify: Notify) -> None:
    assert teacher.stored is not None
    held_out = ((False, text) for text in data.held_out)
    missing, first = teacher.count_missing(chain(_texts(data), held_out))
    if not missing:
        return
    where = teacher.stored.path
    if teacher.encoder is None:
        raise UsageError(
            f"{where} has no vector of {count_noun(missing, 'text')} of the data, the first being "
            f"{first[:_SHOWN]!r}. It was made of other texts, or of some of them: embed these "
            f"texts with millpond embed, or name the teacher as well (teacher.model, --teacher)."
        )
    notify(
        f"{where} has no vector of {count_noun(missing, 'text')}; the teacher computes them while "
        f"the student is trained."
    )


def _check_vectors(teacher: Teacher, texts: list[TeacherText], notify: Notify) -> None:
    """Say where the teacher's vectors have another length than 1; they are brought to it."""
    vectors = teacher.embed_raw(texts)
    lengths = np.linalg.norm(vectors, axis=1)
    if np.abs(lengths - 1).max() > _LENGTH_NOISE:
        notify(
            f"The teacher's vectors have lengths from {lengths.min():.3g} to {lengths.max():.3g}; "
            f"they are brought to length 1, so that only their directions are learnt."
        )
    distinct = len({text for _, text in texts})
    if not lengths.all() or (distinct > 1 and np.ptp(vectors, axis=0).max() < _LENGTH_NOISE):
        raise UsageError(
            f"The teacher gives {distinct} texts the same vector, so there is nothing to learn. "
            f"Check that {teacher.name} is a trained embedding model."
        )


def _check_lengths(teacher: Teacher, data: TrainingData, notify: Notify) -> None:
    """Say how many texts the teacher did not read to their end."""
    if teacher.encoder is None:
        return
    step = max(1, data.pairs // _COUNTED)
    read, most = Coverage(teacher.encoder), tokens_read(teacher.encoder)
    for _, text in _texts(data, step):
        read.add(text)
    if not read.cut:
        return
    about = "" if step == 1 else "about "
    if read.cut == read.texts:
        raise UsageError(
            f"All {about}{read.texts * step:,} texts are longer than the {most:,} tokens that the "
            f"teacher reads, so it saw only their beginnings. Cut the texts, or take another "
            f"teacher."
        )
    notify(
        f"Warning: the teacher reads {most:,} tokens of a text, and {about}{read.cut * step:,} of "
        f"{read.texts * step:,} texts have more: it never saw {about}{read.unread * step:,} of "
        f"{read.tokens * step:,} tokens. Cut them, or set model.max_tokens to what the teacher "
        f"reads."
    )


def _texts(data: TrainingData, step: int = 1) -> Iterator[TeacherText]:
    """Yield the texts of every ``step``-th pair."""
    for source in data.sources:
        for place in range(0, len(source), step):
            pair = source[place]
            if pair.query:
                yield True, pair.query
            yield False, pair.positive
            yield from ((False, text) for text in pair.negatives)
