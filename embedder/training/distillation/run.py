"""What a run with a teacher does beside the usual: its loss, projection and agreement."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embedder.embedder import Embedder
from embedder.training.batch import LocalBatch, StepPairs
from embedder.training.distillation.losses import CONTRAST, Lessons, get_loss
from embedder.training.distillation.options import TeacherConfig
from embedder.training.distillation.projection import (
    PROJECTION,
    fit_projection,
    kept_layer,
    without_projection,
)
from embedder.training.distillation.teachers import Teacher, encode_side, encode_sides
from embedder.training.processes import Processes, gather_rows
from retrieval.protocols import Notify, Vectors
from retrieval.scores import cosines, spearman, unit_rows

_FIT_TEXTS = 2_000
_NEIGHBOURS = 10
_STALE_EVALUATIONS = 5
_STALE_GAIN = 1e-3


class StepLoss:
    """The loss of one step, as a function of the rows that this process embedded.

    Attributes
    ----------
    parts : the value of each loss, unweighted, once it was called.
    by_source : sum and number of the texts' own losses of this process, by source.
    """

    def __init__(
        self,
        step: StepPairs,
        local: LocalBatch,
        taught: Tensor,
        config: TeacherConfig,
        projection: nn.Module | None,
        processes: Processes,
        contrast: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self._order = local.order
        self._taught = taught
        self._config, self._projection, self._processes = config, projection, processes
        self._contrast = contrast
        ranges = processes.parts(len(step.pairs))
        self._counts = [len(step.texts(part)) for part in ranges]
        self._triples = torch.tensor(
            [triple for part in ranges for triple in step.triples(part)], dtype=torch.int64
        ).view(-1, 3)
        offsets = np.cumsum([0, *self._counts[:-1]])
        lengths = [len(step.triples(part)) for part in ranges]
        self._triples += torch.from_numpy(np.repeat(offsets, lengths)).view(-1, 1)
        self._sources = [source for _, source, _ in step.texts(ranges[processes.rank])]
        self.parts: dict[str, float] = {}
        self.by_source: dict[int, tuple[float, int]] = {}

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the loss, a scalar; ``rows`` (N, D) in the order of the chunks."""
        own = rows[self._order]
        projected = own if self._projection is None else self._projection(own)
        student = gather_rows(own, self._counts)
        lessons = Lessons(
            student,
            student if projected is own else gather_rows(projected, self._counts),
            gather_rows(self._taught, self._counts),
            self._triples.to(rows.device),
            self._config.temperature,
        )
        total = rows.sum() * 0  # so that there is a gradient where no pair has a negative
        each = torch.zeros(len(student), device=rows.device)
        for name, weight in self._config.used.items():
            values = get_loss(name).compute(lessons)
            self.parts[name] = float(values.detach().mean()) if len(values) else 0.0
            if len(values):
                total = total + weight * values.mean()
            if not get_loss(name).of_triples:
                each += weight * values.detach()
        if self._contrast is not None:
            value = self._contrast(rows)
            self.parts[CONTRAST] = float(value.detach())
            total = total + self._config.contrast * value
        self._note_sources(each)
        return total

    def _note_sources(self, each: Tensor) -> None:
        start = sum(self._counts[: self._processes.rank])
        mine = each[start : start + self._counts[self._processes.rank]].tolist()
        for source, value in zip(self._sources, mine, strict=True):
            total, count = self.by_source.get(source, (0.0, 0))
            self.by_source[source] = (total + value, count + 1)


class Distillation:
    """A student under a teacher, over a whole run.

    Parameters
    ----------
    embedder : the student, to which the projection is added as a submodule if one is needed that
        the model does not keep.
    held_out : texts that are never trained on.
    names : of the sources, for the record.
    """

    def __init__(
        self,
        config: TeacherConfig,
        teacher: Teacher,
        embedder: Embedder,
        processes: Processes,
        held_out: Sequence[str],
        names: Sequence[str],
    ) -> None:
        self._config, self._teacher, self._embedder = config, teacher, embedder
        self._processes, self._held_out, self._names = processes, list(held_out), list(names)
        self._projection: nn.Linear | None = None
        if config.projects and not config.keep_projection:
            layer = nn.Linear(embedder.dimension, teacher.width, bias=False)
            nn.init.zeros_(layer.weight)
            self._projection = layer.to(processes.device)
            embedder.add_module(PROJECTION, self._projection)
        self._taught_held_out: Vectors | None = None
        self._parts: list[dict[str, float]] = []
        self._by_source: dict[int, tuple[float, int]] = {}
        self._history: list[float] = []

    def fit(self, steps: Iterable[StepPairs], notify: Notify) -> None:
        """Start the projection, if there is one, from the texts of the first steps."""
        layer = self._layer()
        if layer is None:
            return
        chosen: list[tuple[bool, str]] = []
        for step in steps:
            found = step.texts(range(len(step.pairs)))
            chosen += [(is_query, text) for is_query, _, text in found]
            if len(chosen) >= _FIT_TEXTS:
                break
        # Each once: a text that comes again in a later epoch would be learnt and held out.
        chosen = list(dict.fromkeys(chosen[:_FIT_TEXTS]))
        notify(f"Fitting the projection to the teacher's width on {len(chosen):,} texts.")
        student = self._encode(chosen, before_projection=True)
        weight = fit_projection(student, self._teacher.embed(chosen))
        with torch.no_grad():
            layer.weight.copy_(weight)

    def loss(
        self,
        step: StepPairs,
        local: LocalBatch,
        contrast: Callable[[Tensor], Tensor] | None,
    ) -> StepLoss:
        """Return the loss of a step; ``contrast`` is InfoNCE where it has a weight."""
        processes = self._processes
        own = processes.parts(len(step.pairs))[processes.rank]
        asked = [(is_query, text) for is_query, _, text in step.texts(own)]
        taught = torch.from_numpy(self._teacher.embed(asked)).to(processes.device)
        return StepLoss(step, local, taught, self._config, self._projection, processes, contrast)

    def record(self) -> dict[str, Any]:
        """Return what identifies the teacher and what was asked of it."""
        return {**self._teacher.record(), "weights": dict(self._config.weights)}

    def note(self, loss: StepLoss) -> None:
        """Keep what a step's loss was made of, for the next record."""
        self._parts.append(loss.parts)
        for source, (total, count) in loss.by_source.items():
            before = self._by_source.get(source, (0.0, 0))
            self._by_source[source] = (before[0] + total, before[1] + count)

    def take_record(self) -> dict[str, Any]:
        """Return the means since the last call, by loss and by source, for metrics.jsonl."""
        parts = {
            f"loss_{name}": round(float(np.mean([part[name] for part in self._parts])), 6)
            for name in (self._parts[0] if self._parts else {})
        }
        sources = {
            self._names[source]: round(total / count, 6)
            for source, (total, count) in sorted(self._by_source.items())
        }
        self._parts, self._by_source = [], {}
        return {**parts, "loss_by_source": sources} if parts else {}

    def agreement(self) -> dict[str, float]:
        """Return how the student agrees with the teacher on the held-out texts, {} without any."""
        if len(self._held_out) < 2:
            return {}
        asked = [(False, text) for text in self._held_out]
        if self._taught_held_out is None:
            self._taught_held_out = self._teacher.embed(asked)
        student = self._encode(asked, before_projection=False)
        projected = None
        if self._projection is not None:
            weight = self._projection.weight.detach().cpu().numpy()
            projected = student @ weight.T
        elif self._config.keep_projection:
            projected = student
        return measure_agreement(student, self._taught_held_out, projected)

    def stalled(self, scores: Mapping[str, float], rate: float) -> str | None:
        """Note the scores of an evaluation; return a line once the agreement rises no more."""
        if "teacher_spearman" not in scores:
            return None
        self._history.append(scores["teacher_spearman"])
        return describe_stall(self._history, rate)

    def _layer(self) -> nn.Linear | None:
        """Return the projection, in the model or beside it."""
        if self._projection is not None:
            return self._projection
        return kept_layer(self._embedder) if self._config.keep_projection else None

    def _encode(self, texts: Sequence[tuple[bool, str]], *, before_projection: bool) -> Vectors:
        """Return the student's vectors with dropout off."""
        embedder = self._embedder
        was_training = embedder.training
        embedder.eval()
        cut = before_projection and self._config.keep_projection
        try:
            student = without_projection(embedder) if cut else embedder
            return encode_sides(partial(encode_side, student), texts, student.dimension)
        finally:
            embedder.train(was_training)


def measure_agreement(
    student: Vectors, teacher: Vectors, projected: Vectors | None = None
) -> dict[str, float]:
    """Return how alike two sets of vectors of the same texts are.

    Parameters
    ----------
    student : (N, D) float32.
    teacher : (N, W) float32.
    projected : (N, W) float32, the student's at the teacher's width.

    Returns
    -------
    "teacher_cosine", the mean cosine of ``projected`` and ``teacher`` where there is one;
    "teacher_spearman", the rank correlation of the cosines of all pairs of texts; and
    "teacher_top10", the share of each text's nearest ten that are the teacher's too, of more than
    20 texts.
    """
    found = {}
    if projected is not None:
        found["teacher_cosine"] = float(cosines(projected, teacher).mean())
    ours, theirs = (unit_rows(rows) @ unit_rows(rows).T for rows in (student, teacher))
    above = np.triu_indices(len(student), k=1)
    correlation = spearman(ours[above], theirs[above])
    if np.isfinite(correlation):
        found["teacher_spearman"] = float(correlation)
    if len(student) > 2 * _NEIGHBOURS:  # of fewer, most are near by chance
        found["teacher_top10"] = shared_neighbours(ours, theirs)
    return found


def shared_neighbours(ours: Vectors, theirs: Vectors, count: int = _NEIGHBOURS) -> float:
    """Return the mean share of nearest texts that two matrices (N, N) of cosines have in common.

    The nearest are the ``count`` highest of a row without the text itself, or all there are.
    """
    count = min(count, len(ours) - 1)
    shares = []
    for row in range(len(ours)):
        nearest = []
        for matrix in (ours, theirs):
            order = np.argsort(-matrix[row], kind="stable")
            nearest.append(set(order[order != row][:count].tolist()))
        shares.append(len(nearest[0] & nearest[1]) / count)
    return float(np.mean(shares))


def describe_stall(history: Sequence[float], rate: float) -> str | None:
    """Return a line for the user once the agreement has not risen for five evaluations.

    Parameters
    ----------
    history : "teacher_spearman" of each evaluation, oldest first.
    rate : the learning rate now.
    """
    earlier, late = history[:-_STALE_EVALUATIONS], history[-_STALE_EVALUATIONS:]
    if not earlier or max(late) > max(earlier) + _STALE_GAIN:
        return None
    return (
        f"The student has agreed with the teacher no better for {_STALE_EVALUATIONS} evaluations "
        f"(Spearman {max(history):.3f} at best). At the rate {rate:g} it has learnt what it can: "
        f"end the run with --finish, or go on with a smaller rate."
    )
