"""THE training loop: pretraining and every adaptation differ in data, head and loss, not in this.

What makes a run exact is decided here. A step's windows are cut into micro-batches by number, whatever the
ranks; micro-batch j of step s draws its dropout from a seed made of (seed, s, j); losses are sums divided by
the count over all ranks. So one rank or several, with or without accumulation, interrupted or not, take the
same steps up to float rounding, and on a CPU with the same ranks a resumed run is bit-identical.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from hyenacli import console
from hyenacli.errors import UserError
from hyenacli.ranks import current_ranks
from hyenacli.train.checkpoints import Checkpoints, Progress
from hyenacli.train.distributed import sum_gradients, sum_over_ranks
from hyenacli.train.metrics import MetricsFile
from hyenacli.train.schedule import cosine
from hyenacli.train.signals import Stop

TRAINING_COLUMNS = ("step", "tokens", "loss", "lr", "grad_norm", "tokens_per_second", "seconds")


class Batch(Protocol):
    """What one forward pass takes."""

    @property
    def count(self) -> int:
        """The number of predictions its loss sums over."""


B = TypeVar("B", bound=Batch)


class Task(Protocol[B]):
    """What is trained: where batches come from, the loss, and how the model is judged.

    Attributes:
        evaluation_columns: the names `evaluate` returns.
        monitor: the one by which the best checkpoint is chosen; lower is better.
        tokens_per_sample: for the count of tokens seen.
    """

    evaluation_columns: tuple[str, ...]
    monitor: str
    tokens_per_sample: int

    def batch(self, indices: range) -> B:
        """The samples of the training stream with these numbers."""

    def loss(self, model: nn.Module, batch: B) -> torch.Tensor:
        """Sum of the losses of a batch, a float32 scalar with gradient."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Judge the model, in eval mode and without gradients; the same numbers on every rank."""


@dataclass(frozen=True)
class LoopSettings:
    """How long, how fast, how often: steps are optimizer steps, rates per step."""

    max_steps: int
    global_batch: int
    micro_batch: int
    lr: float
    min_lr: float
    warmup: int
    grad_clip: float
    eval_every: int
    save_every: int
    seed: int


@dataclass(frozen=True)
class Step:
    """What one optimizer step did.

    Attributes:
        loss: mean over the step's predictions, in the task's unit.
        lr: learning rate.
        grad_norm: norm of the gradient before clipping.
        tokens_per_second: over all ranks, evaluation not counted.
        judged: what the evaluation after it said; empty where none was due.
    """

    loss: float
    lr: float
    grad_norm: float
    tokens_per_second: float = 0.0
    judged: dict[str, float] = field(default_factory=dict)


class Trainer(Generic[B]):
    """One training run.

    Args:
        model: in training mode after this; its parameters are in `optimizer`.
        task: data, loss and evaluation.
        optimizer: its groups' lr is set at every step.
        settings: lengths and rates.
        checkpoints: where states are saved and restored.
        metrics: where numbers go.
        device: of the model.
        autocast: makes the context every forward pass runs in.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task[B],
        optimizer: torch.optim.Optimizer,
        settings: LoopSettings,
        *,
        checkpoints: Checkpoints,
        metrics: MetricsFile,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[object]],
    ):
        self._model, self._task, self._optimizer, self._settings = model, task, optimizer, settings
        self._checkpoints, self._metrics = checkpoints, metrics
        self._device, self._autocast = device, autocast
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def run(self, progress: Progress, stop: Stop, show: Callable[[int, Step], None]) -> Progress:
        """Train from `progress` to the last step, or until a signal; a checkpoint is left in either case.

        Args:
            progress: fresh, or as restored from a checkpoint.
            stop: set by SIGTERM or SIGINT; the step under way is finished and saved first.
            show: called after every step with its number (1-based) and what it did.

        Raises:
            UserError: the loss or its gradient is not finite.
        """
        settings = self._settings
        if progress.step == 0:
            self._record({"step": 0, "tokens": 0}, self._evaluate(progress))
        while progress.step < settings.max_steps and not self._asked_to_stop(stop):
            step = self._timed_step(progress)
            if progress.step % settings.eval_every == 0 or progress.step == settings.max_steps:
                step = replace(step, judged=self._evaluate(progress))
            row = {"step": progress.step, "tokens": progress.tokens, "loss": step.loss, "lr": step.lr}
            row |= {"grad_norm": step.grad_norm, "tokens_per_second": step.tokens_per_second}
            self._record(row | {"seconds": progress.seconds}, step.judged)
            show(progress.step, step)
            if progress.best_step == progress.step or progress.step % settings.save_every == 0:
                self._checkpoints.save(self._model, self._optimizer, progress)
        self._checkpoints.save(self._model, self._optimizer, progress)
        return progress

    def _timed_step(self, progress: Progress) -> Step:
        """Make the next step and count it."""
        started = time.monotonic()
        step = self._step(progress.step)
        seconds = time.monotonic() - started
        tokens = self._settings.global_batch * self._task.tokens_per_sample
        progress.step += 1
        progress.tokens += tokens
        progress.seconds += seconds
        return replace(step, tokens_per_second=tokens / seconds)

    def _asked_to_stop(self, stop: Stop) -> bool:
        # All ranks leave after the same step: one that left alone would leave the others waiting for it.
        return sum_over_ranks(float(bool(stop)), device=self._device)[0] > 0

    def _step(self, step: int) -> Step:
        settings = self._settings
        lr = cosine(
            step, peak=settings.lr, floor=settings.min_lr, warmup=settings.warmup, total=settings.max_steps
        )
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        batches = [(number, self._task.batch(indices)) for number, indices in self._micro_batches(step)]
        (count,) = sum_over_ranks(sum(batch.count for _, batch in batches), device=self._device)
        self._model.train()
        loss_sum = torch.zeros((), device=self._device)
        for number, batch in batches:
            torch.manual_seed(dropout_seed(settings.seed, step, number))
            with self._autocast():
                loss = self._task.loss(self._model, batch)
            (loss / max(1.0, count)).backward()  # type: ignore[no-untyped-call]
            loss_sum += loss.detach()
        sum_gradients(self._parameters)
        norm = float(nn.utils.clip_grad_norm_(self._parameters, settings.grad_clip or math.inf))
        (total,) = sum_over_ranks(float(loss_sum), device=self._device)
        mean = total / max(1.0, count)
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise UserError(
                f"loss {mean} with gradient norm {norm} at step {step}",
                remedy="lower --lr, or use --dtype float32; the last checkpoint is whole",
            )
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return Step(mean, lr, norm)

    def _micro_batches(self, step: int) -> Iterator[tuple[int, range]]:
        """This rank's micro-batches of a step: (number within the step, sample numbers of the stream)."""
        settings, ranks = self._settings, current_ranks()
        first, last = step * settings.global_batch, (step + 1) * settings.global_batch
        starts = range(first, last, settings.micro_batch)
        for number in range(ranks.rank, len(starts), ranks.world_size):
            yield number, range(starts[number], min(starts[number] + settings.micro_batch, last))

    def _evaluate(self, progress: Progress) -> dict[str, float]:
        self._model.eval()
        with torch.inference_mode(), self._autocast():
            judged = self._task.evaluate(self._model)
        progress.last = judged[self._task.monitor]
        if progress.last < progress.best:
            progress.best, progress.best_step = progress.last, progress.step
        return judged

    def _record(self, row: dict[str, float], judged: dict[str, float]) -> None:
        console.event("step", **row, **judged)
        self._metrics.write(row | judged)


def dropout_seed(seed: int, step: int, micro_batch: int) -> int:
    """The seed of one micro-batch's dropout: a function of its place in the run, the same on any machine."""
    return int(np.random.SeedSequence((seed, step, micro_batch)).generate_state(1, np.uint64)[0] >> 1)
