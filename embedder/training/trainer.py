"""The training loop: data in, MODEL_DIR out, resumable at any moment."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from embedder.models.saving import save_model
from embedder.training.batch import (
    BatchSampler,
    LocalBatch,
    SourceTokenizer,
    StepPairs,
    draw_pairs,
)
from embedder.training.checkpoint import (
    RunFolder,
    RunState,
    checkpoint_path,
    latest_checkpoint,
    load_weights,
    prune_checkpoints,
    read_checkpoint,
    trained_weights,
    write_checkpoint,
)
from embedder.training.checks import check_model
from embedder.training.config import TrainConfig
from embedder.training.data import TrainingData, check_data
from embedder.training.distillation.checks import check_lessons
from embedder.training.distillation.projection import with_projection
from embedder.training.distillation.run import Distillation, StepLoss
from embedder.training.distillation.teachers import Teacher, load_teacher
from embedder.training.evaluate import DevSets
from embedder.training.log import Meter, MetricsLog, StepReport
from embedder.training.loss import BatchLoss, cached_backward, plain_backward, seed_step
from embedder.training.processes import (
    Processes,
    join_processes,
    share_parameters,
    stop_request,
    sum_gradients,
)
from embedder.training.setup import (
    build_model,
    build_optimiser,
    describe_start,
    library_versions,
    memory_warning,
    rate_factor,
    trained_parameters,
    unwrap_model,
)
from retrieval.disk import replace_file
from retrieval.errors import ModelError, UsageError
from retrieval.protocols import Notify, silent
from retrieval.typed import plain_data, without_folders

_FORWARD_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 32768}


def train(
    config: TrainConfig,
    out: str | Path,
    *,
    resume: bool = False,
    finish: bool = False,
    skip_bad: bool | None = None,
    device: str | None = None,
    notify: Notify = silent,
    progress: Callable[[StepReport], None] = lambda _: None,
) -> Path:
    """Train the config's model and return ``out``, by then a MODEL_DIR.

    A run that was killed goes on with ``resume`` and reaches the same weights. Under torchrun or
    accelerate, every process calls this and the first one writes.

    Parameters
    ----------
    finish : end the run that ``out`` holds now, with the weights of its last (or best) checkpoint.
    skip_bad : True leaves bad records of the data out and says how many; see ``PairSource``.
    device : "cuda", "mps" or "cpu"; the best there is by default.
    notify : receives one line for the user at each notable step.
    progress : receives each finished step.

    Raises
    ------
    UsageError, RecordError : the config, the data or the folder is wrong; nothing was computed.
    ModelError : the base cannot be loaded, a checkpoint does not fit, or the loss is not finite.
    StorageError : a file cannot be written; the last checkpoint is as it was.
    """
    folder = RunFolder(Path(out))
    processes = join_processes(device)
    if processes.is_first:
        folder.check_free(resume or finish)
    if config.batch_pairs % processes.count:
        raise UsageError(
            f"batch_pairs is {config.batch_pairs}, which {processes.count} processes cannot "
            f"share evenly."
        )
    processes.wait()
    data = check_data(config, skip_bad=skip_bad)
    check_model(config, silent)
    devsets = DevSets(config.evaluate, skip_bad=skip_bad)
    for note in (*data.notes, *devsets.notes) if processes.is_first else ():
        notify(f"Warning: {note}")
    teacher = None
    if config.teacher is not None and not folder.finished:
        teacher = load_teacher(config.teacher, str(processes.device), notify)
        check_lessons(config, teacher, data, notify if processes.is_first else silent)
    if processes.is_first:
        folder.start(config, data.record(), None if teacher is None else teacher.record())
        if folder.finished:
            notify(f"{out}: this run has finished already.")
    processes.wait()
    if not folder.finished:
        run = _Run(config, folder, processes, data, devsets, teacher, notify, progress)
        if finish:
            run.finish()
        else:
            run.complete()
        processes.wait()
    return folder.path


class _Run:
    """One run from its last checkpoint, or its beginning, to its end."""

    def __init__(
        self,
        config: TrainConfig,
        folder: RunFolder,
        processes: Processes,
        data: TrainingData,
        devsets: DevSets,
        teacher: Teacher | None,
        notify: Notify,
        progress: Callable[[StepReport], None],
    ) -> None:
        self.config, self.folder, self.processes = config, folder, processes
        self.data, self.devsets = data, devsets
        self.notify, self.progress = notify, progress
        self.sampler = BatchSampler(
            [len(source) for source in data.sources],
            [source.config.weight for source in data.sources],
            config.batch_pairs,
            config.seed,
            one_source_per_batch=config.loss.one_source_per_batch,
        )
        self.steps = config.steps or self.sampler.steps_in(config.epochs or 1)
        project = None
        if teacher is not None and config.teacher is not None and config.teacher.keep_projection:
            project = partial(
                with_projection, width=teacher.width, space=teacher.fingerprint.digest
            )
        self.embedder = build_model(config, processes.device, notify, project)
        self.start = describe_start(config.adapter.start) if config.adapter.start else None
        self.tokenizer = SourceTokenizer(self.embedder, config.data)
        self.distillation = self._distil(teacher)
        self.parameters = trained_parameters(self.embedder)
        self.optimiser = build_optimiser(self.embedder, config.optimiser)
        self.rates = [float(group["lr"]) for group in self.optimiser.param_groups]
        self.forward_tokens = config.forward_tokens or _FORWARD_TOKENS[processes.device.type]
        self.state = RunState(0, 0.0, self.embedder.backbone.identity)
        if not self._load_last() and self.distillation is not None:
            self.distillation.fit(map(self._draw, range(self.steps)), self.notify)
        share_parameters(self.parameters, processes)
        self.meter = Meter()
        self.done = self.state.step
        self.scores = dict(self.state.scores)
        self.started = time.monotonic()

    def complete(self) -> None:
        """Run the steps that are left, then write the model."""
        log = MetricsLog(self.folder.path, self.state.step) if self.processes.is_first else None
        if log is not None:
            self._warn_of_memory()
        self.embedder.train()
        with stop_request(self.notify) as stop:
            for step in range(self.state.step, self.steps):
                self._one_step(step, log)
                if stop.asked and self.processes.count == 1:
                    self._stop(step + 1)
        if log is not None:
            self._publish()
            log.draw()

    def _warn_of_memory(self) -> None:
        """Say before the first step if a step may need more memory than there is."""
        warning = memory_warning(
            self.embedder,
            self.config,
            self.processes,
            range(self.state.step, self.steps),
            lambda step: self.tokenizer.count_tokens(self._draw(step)),
        )
        if warning is not None:
            self.notify(warning)

    def _draw(self, step: int) -> StepPairs:
        config = self.config
        seed = (config.seed, 2, step)
        return draw_pairs(self.data, self.sampler.batch(step), config.loss.hard_negatives, seed)

    def finish(self) -> None:
        """Write the model from the last checkpoint, or the best one.

        Raises
        ------
        UsageError : there is no checkpoint yet.
        """
        if self.done == 0:
            raise UsageError(
                f"{self.folder.path} holds no checkpoint yet, so there are no weights to finish "
                f"with. Train with --resume instead."
            )
        if self.processes.is_first:
            self._publish()
            MetricsLog(self.folder.path, self.done).draw()

    def _one_step(self, step: int, log: MetricsLog | None) -> None:
        """Do one step, write down how it went, and show it."""
        report = self._step(step)
        self.done = step + 1
        if log is None:
            self._close_step(step + 1, None)
            return
        if (step + 1) % self.config.log_every_steps == 0 or step + 1 == self.steps:
            lessons = self.distillation.take_record() if self.distillation else {}
            log.append({**report.line(), **lessons})
            self.meter = Meter()
        self._close_step(step + 1, log)
        self.progress(report)

    def _stop(self, step: int) -> None:
        """Keep what there is and end, because the user pressed Ctrl-C."""
        if self.state.step < step:
            self._write_state(step, (self.state.best_step, self.state.best_score))
        self.notify(f"Stopped after step {step} of {self.steps}; --resume goes on from there.")
        raise KeyboardInterrupt

    def _distil(self, teacher: Teacher | None) -> Distillation | None:
        """Return what the run does under its teacher, None without one."""
        if teacher is None or self.config.teacher is None:
            return None
        return Distillation(
            self.config.teacher,
            teacher,
            self.embedder,
            self.processes,
            self.data.held_out,
            [source.path.stem for source in self.config.data],
        )

    def _load_last(self) -> bool:
        """Take up the last checkpoint: weights and moments; False where there is none."""
        path = latest_checkpoint(self.folder.checkpoints)
        if path is None:
            return False
        state, weights = read_checkpoint(path)
        if state.base != self.embedder.backbone.identity:
            raise ModelError(
                f"{path}: this was trained on other weights of {self.config.model.base} "
                f"({state.base[:12]} then, {self.embedder.backbone.identity[:12]} now)."
            )
        load_weights(self.embedder, weights, path)
        read_checkpoint(path, self.optimiser)
        self.state = state
        threads = torch.get_num_threads()
        if self.processes.device.type == "cpu" and state.threads != threads:
            self.notify(
                f"The run used {state.threads} threads before and uses {threads} now, so its "
                f"weights will differ in the last digits; OMP_NUM_THREADS sets the number."
            )
        self.notify(f"Going on from step {state.step} of {self.steps}.")
        return True

    def _step(self, step: int) -> StepReport:
        """Do one step; ``step`` counts from 0."""
        config, processes = self.config, self.processes
        pairs = self._draw(step)
        local = self.tokenizer.local_batch(pairs, processes, self.forward_tokens)
        loss = self._loss(pairs, local)
        seed_step(config.seed, step, processes.rank)
        self.optimiser.zero_grad(set_to_none=True)
        embed = self.embedder.embed
        if config.gradient_cache:
            value = cached_backward(embed, local.chunks, loss, device=processes.device)
        else:
            value = plain_backward(embed, local.chunks, loss)
        self._check_finite("loss", float(value), step, pairs)
        if self.distillation is not None and isinstance(loss, StepLoss):
            self.distillation.note(loss)
        sum_gradients(self.parameters, processes)
        most = config.optimiser.max_gradient_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, most))
        self._check_finite("gradient norm", norm, step, pairs)
        factor = rate_factor(config.optimiser, step, self.steps)
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = factor * rate
        self.optimiser.step()
        # Other processes have about as many tokens; asking them would cost a message per step.
        tokens = local.tokens * processes.count
        self.meter.add(float(value), len(pairs.pairs), tokens)
        return self.meter.report(step + 1, self.steps, factor * self.rates[0], norm)

    def _loss(self, pairs: StepPairs, local: LocalBatch) -> BatchLoss | StepLoss:
        """Return the loss of a step, with InfoNCE where it counts."""
        config, distillation = self.config, self.distillation
        contrast = None
        if config.teacher is None or config.teacher.contrast:
            contrast = BatchLoss(pairs, local, config.loss, self.processes, self.data.known)
        if distillation is not None:
            return distillation.loss(pairs, local, contrast)
        assert contrast is not None
        return contrast

    def _check_finite(self, what: str, value: float, step: int, batch: StepPairs) -> None:
        """Stop before the weights are touched, and leave the batch for inspection."""
        if math.isfinite(value):
            return
        path = self.folder.path / "nan-batch.jsonl"
        if self.processes.is_first:
            replace_file(path, batch.to_jsonl(self.config.data))
        raise ModelError(
            f"Step {step + 1}: the {what} is {value}. Its batch is in {path}. Lower "
            f"optimiser.learning_rate or loss.scale, or use dtype float32; the last checkpoint "
            f"is as it was."
        )

    def _close_step(self, step: int, log: MetricsLog | None) -> None:
        """Evaluate and write a checkpoint where the step asks for one."""
        config, last = self.config, step == self.steps
        every = config.evaluate.every_steps
        nothing = self.devsets.empty and not self.data.held_out
        evaluating = not nothing and (last or (every > 0 and step % every == 0))
        every = config.checkpoint.every_steps
        writing = every > 0 and (last or step % every == 0)
        best = self.state.best_step, self.state.best_score
        if log is not None and evaluating:
            pause = time.monotonic()
            self.scores = self._score()
            shown = ", ".join(f"{name} {value:.4f}" for name, value in self.scores.items())
            self.notify(f"Step {step}: {shown or 'no score is defined'}")
            log.append({"step": step, **self.scores})
            score = self.scores.get(config.evaluate.best or "")
            if score is not None and (best[1] is None or score > best[1]):
                best, writing = (step, score), True
            self.meter.started += time.monotonic() - pause
        if log is not None and writing:
            self._write_state(step, best)
            log.draw()
        if evaluating or writing:
            self.processes.wait()

    def _score(self) -> dict[str, float]:
        """Return the scores on held-out data, and say where the student learns no more."""
        scores = self.devsets.score(self.embedder)
        if self.distillation is not None:
            scores |= self.distillation.agreement()
            stalled = self.distillation.stalled(scores, self.optimiser.param_groups[0]["lr"])
            if stalled is not None:
                self.notify(stalled)
        return scores

    def _write_state(self, step: int, best: tuple[int | None, float | None]) -> None:
        state = RunState(
            step,
            self.state.seconds + time.monotonic() - self.started,
            self.state.base,
            *best,
            self.scores,
        )
        weights = trained_weights(self.embedder)
        write_checkpoint(self.folder.checkpoints, state, weights, self.optimiser)
        prune_checkpoints(self.folder.checkpoints, self.config.checkpoint.keep, best[0])
        self.state, self.started = state, time.monotonic()

    def _publish(self) -> None:
        """Write MODEL_DIR from the best weights, or the last ones."""
        best = self.state.best_step
        if best is not None:
            path = checkpoint_path(self.folder.checkpoints, best)
            state, weights = read_checkpoint(path)
            load_weights(self.embedder, weights, path)
            self.scores = dict(state.scores)
        self.embedder.eval()
        unwrap_model(self.embedder)
        teacher = self.config.teacher
        record = without_folders(
            {
                "data": self.data.record(),
                "seed": self.config.seed,
                "steps": self.done,
                "planned_steps": self.steps,
                "kept_step": best or self.done,
                "training_seconds": round(self.state.seconds + time.monotonic() - self.started, 1),
                "scores": self.scores,
                "libraries": library_versions(),
                "config": plain_data(
                    replace(self.config, teacher=teacher and teacher.without_folder())
                ),
                **({"start": self.start} if self.start else {}),
                **({"teacher": self.distillation.record()} if self.distillation else {}),
            }
        )
        save_model(
            self.embedder,
            self.folder.clear_stage(),
            record=record,
            weights_dtype=self.config.weights_dtype,
        )
        self.folder.publish()
