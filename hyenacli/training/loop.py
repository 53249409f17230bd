"""The one training loop: pretraining and the adaptations differ in data, head and loss.

Reproducibility is decided here. A step's windows are cut into micro-batches by number, whatever the
ranks; micro-batch j of step s draws its dropout from a seed made of (seed, s, j); losses are sums divided by
the count over all ranks. So one rank or several, with or without accumulation, interrupted or not, take the
same steps up to float rounding, and on a CPU with the same ranks a resumed run is bit-identical.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from hyenacli import console
from hyenacli.devices import is_out_of_memory
from hyenacli.distributed import Stop, current_ranks, sum_gradients, sum_over_ranks
from hyenacli.errors import UserError
from hyenacli.training.checkpoints import Checkpoints, Progress
from hyenacli.training.curriculum import Stage, StepLoader, Steps, cosine_rate

TRAINING_COLUMNS = (
    *("step", "tokens", "length", "loss", "lr", "grad_norm"),
    *("tokens_per_second", "wait_fraction", "skipped", "seconds"),
)
# A step whose numbers overflow is skipped; after this many in a row the run ends.
MAX_SKIPPED_IN_A_ROW = 5
OUT_OF_MEMORY_REMEDY = (
    "use --activation-checkpointing block, a shorter --max-length or, in pretraining, --context-parallel"
)


def shared_window_error(length: int, ranks: int) -> UserError:
    """Return the error of ranks that share windows when memory runs out on one of them.

    They wait for each other within the pass, so that one alone cannot try again.
    """
    return UserError(
        f"memory ran out with windows of {length:,} tokens shared by {ranks} processes",
        remedy="use --activation-checkpointing block, a smaller --micro-batch-size, a shorter --max-length "
        "or a larger --context-parallel",
    )


class Batch(Protocol):
    """Input of one forward pass."""

    @property
    def count(self) -> float:
        """Number of predictions that the loss is a sum over, or the sum of their weights."""


class Objective(Protocol):
    """Data, loss and evaluation of what is trained.

    Attributes:
        evaluation_columns: the names `evaluate` returns.
        monitor: the one by which the best checkpoint is chosen.
        higher_is_better: of that.
        tie_breaker: of equally good ones the one with less of this is better.
    """

    evaluation_columns: tuple[str, ...]
    monitor: str
    higher_is_better: bool
    tie_breaker: str

    def read(self, windows: range, length: int) -> Any:
        """Read windows of the training stream by their numbers; called in the loader's processes."""

    def batch(self, host: Any) -> Batch:
        """Move what `read` returned to the device."""

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """Return the sum of the losses of a batch, a float32 scalar with gradient."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Evaluate the model, in eval mode and without gradients; the same numbers on every rank."""


@dataclass(frozen=True)
class LoopSettings:
    """Settings of the loop; steps are optimizer steps.

    Attributes:
        curriculum: steps, and the length and number of their windows.
        micro_tokens: most tokens in one forward pass at the start; fewer once memory runs out.
        lr: peak learning rate; `min_lr` that at the end, `warmup` steps up to the peak.
        grad_clip: largest gradient norm; 0 for no limit.
        eval_every: steps between evaluations; `save_every` between checkpoints.
        context_parallel: ranks that share a window, each holding a part of its positions.
        workers: processes that read windows ahead.
        patience: the run ends after this many evaluations in a row without a new best of the monitored
            number or of the tie breaker; None never ends it early.
    """

    curriculum: Steps
    micro_tokens: int
    lr: float
    min_lr: float
    warmup: int
    grad_clip: float
    eval_every: int
    save_every: int
    seed: int
    context_parallel: int = 1
    workers: int = 0
    patience: int | None = None


@dataclass(frozen=True)
class Step:
    """Numbers of one optimizer step.

    Attributes:
        loss: mean over the step's predictions, in the task's unit.
        lr: learning rate.
        grad_norm: norm of the gradient before clipping.
        length: tokens of its windows.
        tokens_per_second: over all ranks, evaluation not counted.
        wait_fraction: share of its time this rank waited for windows.
        evaluation: numbers of the evaluation after it; empty if none was due.
    """

    loss: float
    lr: float
    grad_norm: float
    length: int
    tokens_per_second: float = 0.0
    wait_fraction: float = 0.0
    evaluation: dict[str, float] = field(default_factory=dict)


class Trainer:
    """One training run.

    Args:
        model: in training mode after this; its parameters are in `optimizer`.
        objective: data, loss and evaluation.
        optimizer: its groups' lr is set at every step.
        settings: lengths and rates.
        checkpoints: where states are saved and restored.
        loggers: get the numbers of every step.
        device: of the model.
        autocast: returns the context of a forward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        settings: LoopSettings,
        *,
        checkpoints: Checkpoints,
        loggers: Sequence[Callable[[dict[str, float]], None]],
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[object]],
    ):
        self._model, self._objective, self._optimizer = model, objective, optimizer
        self._settings, self._checkpoints, self._loggers = settings, checkpoints, loggers
        self._device, self._autocast = device, autocast
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def run(self, progress: Progress, stop: Stop, show: Callable[[int, Step], None]) -> Progress:
        """Train from `progress` to the last step, until patience ends, or until a signal; then save.

        Args:
            progress: fresh, or as restored from a checkpoint.
            stop: set by SIGTERM, SIGINT or SIGHUP; the step under way is finished and saved first.
            show: called after every step with its number (1-based) and its numbers.

        Raises:
            UserError: the loss or gradient of several steps in a row is not finite, the evaluation no longer
                is, or memory is too small for a single window.
        """
        settings, last = self._settings, self._settings.curriculum.steps
        progress.micro_tokens = progress.micro_tokens or settings.micro_tokens
        if progress.step == 0:
            self._record({"step": 0, "tokens": 0, "skipped": 0}, self._evaluate(progress))
            if progress.best_step == 0:  # training may only make it worse
                self._checkpoints.save(self._model, self._optimizer, progress)
        if progress.step < last:
            self._loader = self._read_ahead(progress)
        while progress.step < last and not self._out_of_patience(progress) and not self._must_stop(stop):
            step = self._timed_step(progress)
            if progress.step % settings.eval_every == 0 or progress.step == last:
                step = replace(step, evaluation=self._evaluate(progress))
            self._record(_row(progress, step), step.evaluation)
            show(progress.step, step)
            due = progress.best_step == progress.step or progress.step % settings.save_every == 0
            # weights that may be broken never replace good ones
            if due and not progress.skipped_in_a_row:
                self._checkpoints.save(self._model, self._optimizer, progress)
        self._checkpoints.save(self._model, self._optimizer, progress)
        return progress

    def _timed_step(self, progress: Progress) -> Step:
        """Make the next step and count it."""
        started = time.monotonic()
        stage = self._settings.curriculum.at(progress.step)
        step = self._step(progress, stage)
        seconds = time.monotonic() - started
        tokens = stage.windows * stage.length
        progress.step += 1
        progress.tokens += tokens
        progress.seconds += seconds
        return replace(
            step, tokens_per_second=tokens / seconds, wait_fraction=min(1.0, self._loader.waited / seconds)
        )

    def _out_of_patience(self, progress: Progress) -> bool:
        patience, every = self._settings.patience, self._settings.eval_every
        return patience is not None and progress.last_step - progress.improved_step >= patience * every

    def _must_stop(self, stop: Stop) -> bool:
        # All ranks leave after the same step: one that left alone would leave the others waiting for it.
        return sum_over_ranks(float(bool(stop)), device=self._device)[0] > 0

    def _step(self, progress: Progress, stage: Stage) -> Step:
        settings = self._settings
        lr = cosine_rate(
            progress.step,
            peak=settings.lr,
            floor=settings.min_lr,
            warmup=settings.warmup,
            total=settings.curriculum.steps,
        )
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        while (mean := self._gradients(progress.step)) is None:
            self._halve(progress, stage)
        sum_gradients(self._parameters)
        norm = float(nn.utils.clip_grad_norm_(self._parameters, settings.grad_clip or math.inf))
        if math.isfinite(mean) and math.isfinite(norm):
            self._optimizer.step()
            progress.skipped_in_a_row = 0
        else:
            self._skip(progress, mean, norm)
        self._optimizer.zero_grad(set_to_none=True)
        return Step(mean, lr, norm, stage.length)

    def _gradients(self, step: int) -> float | None:
        """Accumulate the gradients of a step; return its mean loss, or None if memory ran out on any rank."""
        batches = [(micro.number, self._objective.batch(micro.host)) for micro in next(self._loader)]
        local_count = sum(batch.count for _, batch in batches) / self._settings.context_parallel
        (count,) = sum_over_ranks(local_count, device=self._device)
        self._model.train()
        loss_sum, failed = torch.zeros((), device=self._device), False
        try:
            for number, batch in batches:
                # ranks that share a window draw the dropout of different positions
                part = current_ranks().rank % self._settings.context_parallel
                torch.manual_seed(dropout_seed(self._settings.seed, step, number) + part)
                with self._autocast():
                    loss = self._objective.loss(self._model, batch)
                (loss / max(1.0, count)).backward()  # type: ignore[no-untyped-call]
                loss_sum += loss.detach()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self._settings.context_parallel > 1:
                length = self._settings.curriculum.at(step).length
                raise shared_window_error(length, self._settings.context_parallel) from error
            failed = True
        total, failures = sum_over_ranks(float(loss_sum), float(failed), device=self._device)
        return None if failures else total / max(1.0, count)

    def _halve(self, progress: Progress, stage: Stage) -> None:
        """Halve the windows per pass and read again from the step that did not fit."""
        self._optimizer.zero_grad(set_to_none=True)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        windows = min(stage.windows, progress.micro_tokens // stage.length)
        if windows <= 1:
            raise UserError(
                f"memory ran out with a single window of {stage.length:,} tokens",
                remedy=OUT_OF_MEMORY_REMEDY,
            )
        progress.micro_tokens = windows // 2 * stage.length
        console.log.warning("memory ran out: %d windows at once instead of %d", windows // 2, windows)
        self._loader = self._read_ahead(progress)

    def _skip(self, progress: Progress, mean: float, norm: float) -> None:
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        problem = f"loss {mean} with gradient norm {norm} at step {progress.step + 1}"
        if progress.skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise UserError(
                f"{problem}, the {MAX_SKIPPED_IN_A_ROW}th step in a row that is not finite",
                remedy="lower --lr or --grad-clip, or use --dtype float32; earlier checkpoints are intact",
            )
        console.log.warning("%s: the step is skipped", problem)

    def _read_ahead(self, progress: Progress) -> StepLoader:
        settings, ranks = self._settings, current_ranks()
        share = settings.context_parallel
        return StepLoader(
            self._objective.read,
            settings.curriculum,
            progress.step,
            micro_tokens=progress.micro_tokens,
            shard=(ranks.rank // share, ranks.world_size // share),
            workers=settings.workers,
        )

    def _evaluate(self, progress: Progress) -> dict[str, float]:
        self._model.eval()
        with torch.inference_mode(), self._autocast():
            numbers = self._objective.evaluate(self._model)
        if math.isfinite(progress.last) and not math.isfinite(numbers[self._objective.monitor]):
            raise UserError(
                f"{self._objective.monitor} is not finite after step {progress.step}",
                remedy="lower --lr, or use --dtype float32; earlier checkpoints are intact",
            )
        tie = numbers[self._objective.tie_breaker]
        progress.last, progress.last_step = numbers[self._objective.monitor], progress.step
        if progress.is_best(progress.last, tie, higher_is_better=self._objective.higher_is_better):
            progress.best, progress.best_step, progress.best_tie = progress.last, progress.step, tie
            progress.improved_step = progress.step
        if tie < progress.least_tie:
            progress.least_tie, progress.improved_step = tie, progress.step
        return numbers

    def _record(self, row: dict[str, float], evaluation: dict[str, float]) -> None:
        console.event("step", **row, **evaluation)
        for logger in self._loggers:
            logger(row | evaluation)


def _row(progress: Progress, step: Step) -> dict[str, float]:
    """Return the training columns of one step."""
    numbers = vars(progress) | vars(step)
    return {name: numbers[name] for name in TRAINING_COLUMNS}


def dropout_seed(seed: int, step: int, micro_batch: int) -> int:
    """Return the dropout seed of a micro-batch: a function of its position in the run alone."""
    return int(np.random.SeedSequence((seed, step, micro_batch)).generate_state(1, np.uint64)[0] >> 1)
