"""One training in a run directory: its memory is planned by trial, then the loop runs."""

import datetime as dt
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch

from hyenacli import console
from hyenacli.devices import free_memory, is_out_of_memory
from hyenacli.distributed import Stop, current_ranks, min_over_ranks
from hyenacli.errors import UserError
from hyenacli.inference.batching import parse_batch_size
from hyenacli.training.checkpoints import Checkpoints, Progress
from hyenacli.training.loop import (
    OUT_OF_MEMORY_REMEDY,
    TRAINING_COLUMNS,
    LoopSettings,
    Objective,
    Trainer,
    shared_window_error,
)
from hyenacli.training.metric_loggers import CSVLogger, TensorBoardLogger, TrainingProgress
from hyenacli.training.settings import TrainingOptions
from hyenadna import HyenaConfig, HyenaDNA

Precision = Callable[[], AbstractContextManager[object]]
# On a CPU larger micro-batches are not faster: 8,192 tokens of width 128 fill it.
_NUMBERS_ON_CPU = 1 << 20
_INTERPRETER = 300 << 20
_SHARE = 0.8


@dataclass(frozen=True)
class MemoryPlan:
    """Windows per pass and activation checkpointing of a run.

    Attributes:
        windows: in one forward pass at the target length.
        checkpointing: blocks are recomputed for the gradient.
        n_bytes: expected peak; measured on CUDA, else estimated.
        seconds: duration of a forward and backward pass.
    """

    windows: int
    checkpointing: bool
    n_bytes: int
    seconds: float = 0.0

    def duration(self, windows: int, steps: int, replicas: int) -> dt.timedelta:
        """Estimate the duration of `steps` of `windows` each, divided among `replicas`."""
        passes = math.ceil(windows / self.windows / replicas)
        return dt.timedelta(seconds=round(self.seconds * passes * steps))


def training_bytes(config: HyenaConfig, parameters: int, tokens: int, *, checkpointing: bool) -> int:
    """Estimate the peak bytes of a training process on a CPU.

    It counts weights, gradients and two moments, the input of every half block (with checkpointing, of every
    block), and six temporary numbers per token and dimension.
    """
    kept = config.n_layer + 2 if checkpointing else 2 * config.n_layer
    return _INTERPRETER + 16 * parameters + 4 * tokens * config.d_model * (kept + 6)


@dataclass(frozen=True)
class BatchShape:
    """Windows of a step on one rank.

    Attributes:
        length: tokens of a window.
        windows: per step.
        context_parallel: ranks that share a window.
    """

    length: int
    windows: int
    context_parallel: int = 1

    @property
    def local_length(self) -> int:
        """Tokens of a window on this rank."""
        return -(-self.length // self.context_parallel)


class MemoryPlanner:
    """Planner that tries passes of a model on its device.

    Args:
        model: on its device.
        objective: provides the training windows of the trials.
        autocast: returns the context of a pass.
        device: of the model.
    """

    def __init__(
        self,
        model: HyenaDNA,
        objective: Objective,
        autocast: Precision,
        device: torch.device,
    ):
        self._model, self._objective, self._autocast, self._device = model, objective, autocast, device

    def plan(self, shape: BatchShape, windows: int | None, checkpointing: str) -> MemoryPlan:
        """Decide by at least one forward and backward pass, and set the model's checkpointing accordingly.

        Args:
            shape: windows of a step.
            windows: per forward pass; None for as many as fit: on CUDA by trial, on a CPU about 8,192 tokens.
            checkpointing: none, block or auto.

        Raises:
            UserError: a single window does not fit, or the first trial of ranks that share windows.
        """
        plan = self._first(shape, windows, checkpointing)
        while (tried := self._attempt(plan, shape)) is None:
            if plan.windows > 1:
                plan = replace(plan, windows=plan.windows // 2)
            elif checkpointing == "auto" and not plan.checkpointing:
                plan = replace(plan, checkpointing=True)
            else:
                raise UserError(
                    f"a single window of {shape.length:,} tokens does not fit into {self._device}",
                    remedy=OUT_OF_MEMORY_REMEDY,
                )
        if windows is None and self._device.type == "cuda" and shape.context_parallel == 1:
            tried = self._grown(tried, shape)
        # All ranks must cut a step alike, whatever the memory of their devices.
        agreed = replace(
            tried,
            windows=int(min_over_ranks(tried.windows, device=self._device)),
            checkpointing=min_over_ranks(-float(tried.checkpointing), device=self._device) < 0,
        )
        self._model.backbone.activation_checkpointing = agreed.checkpointing
        return agreed

    def _first(self, shape: BatchShape, windows: int | None, checkpointing: str) -> MemoryPlan:
        config = self._model.config
        on_cpu = max(1, _NUMBERS_ON_CPU // (config.d_model * shape.local_length))
        windows = min(shape.windows, windows or (1 if self._device.type == "cuda" else on_cpu))
        n_bytes = [
            training_bytes(
                config, self._model.n_parameters, windows * shape.local_length, checkpointing=checkpointed
            )
            for checkpointed in (False, True)
        ]
        scarce = n_bytes[False] > _SHARE * free_memory(self._device)
        checkpointed = checkpointing == "block" or (checkpointing == "auto" and scarce)
        return MemoryPlan(windows, checkpointed, n_bytes[checkpointed])

    def _grown(self, plan: MemoryPlan, shape: BatchShape) -> MemoryPlan:
        """Double the windows as long as they fit."""
        while plan.windows < shape.windows:
            larger = self._attempt(replace(plan, windows=min(shape.windows, 2 * plan.windows)), shape)
            if larger is None:
                break
            plan = larger
        return plan

    def _attempt(self, plan: MemoryPlan, shape: BatchShape) -> MemoryPlan | None:
        """Make one pass; return the plan with its bytes and seconds, or None if memory ran out."""
        model, device, n_bytes = self._model, self._device, plan.n_bytes
        model.backbone.activation_checkpointing = plan.checkpointing
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        started, fits = time.monotonic(), True
        model.train()
        try:
            batch = self._objective.batch(self._objective.read(range(plan.windows), shape.length))
            with self._autocast():
                loss = self._objective.loss(model, batch)
            (0.0 * loss).backward()  # type: ignore[no-untyped-call]
            if device.type == "cuda":
                torch.cuda.synchronize(device)
                # AdamW allocates its moments at the first step
                n_bytes = torch.cuda.max_memory_allocated(device) + 8 * model.n_parameters
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if shape.context_parallel > 1:
                raise shared_window_error(shape.length, shape.context_parallel) from error
            fits = False
        model.zero_grad(set_to_none=True)
        seconds = time.monotonic() - started
        console.event("memory_trial", windows=plan.windows, fits=fits, bytes=n_bytes, seconds=seconds)
        return replace(plan, n_bytes=n_bytes, seconds=seconds) if fits else None


class TrainingRun:
    """One training in a run directory: restored, planned, trained, and saved.

    Args:
        settings: of the verb.
        model: to train, on its device.
        groups: of its parameters, for AdamW.
        origin: provenance for the checkpoints.
        precision: returns the context of a pass.
        device: of the model.
        monitor: name of the monitored value in the checkpoints.

    Attributes:
        progress: steps made so far.
    """

    def __init__(
        self,
        settings: TrainingOptions,
        model: HyenaDNA,
        groups: list[dict[str, Any]],
        *,
        origin: Mapping[str, Any],
        precision: Precision,
        device: torch.device,
        monitor: str = "held_out_loss",
    ) -> None:
        self._settings, self._model, self._precision, self._device = settings, model, precision, device
        self._optimizer = torch.optim.AdamW(groups)
        self._checkpoints = Checkpoints(settings.output, settings.keep, origin, monitor)
        self.progress = self._checkpoints.restore(model, self._optimizer) if settings.resume else Progress()

    def plan(self, objective: Objective, shape: BatchShape) -> MemoryPlan:
        """Plan the windows of a forward pass; see `MemoryPlanner.plan`.

        Raises:
            UsageError: --micro-batch-size is not a number or auto.
            UserError: as `MemoryPlanner.plan`.
        """
        windows = parse_batch_size(str(self._settings.micro_batch_size), "--micro-batch-size")
        # a resumed run cuts its steps as before: dropout is drawn by micro-batch
        windows = windows or self.progress.micro_tokens // shape.length or None
        memory = MemoryPlanner(self._model, objective, self._precision, self._device).plan(
            shape, windows, self._settings.activation_checkpointing
        )
        self.progress.micro_tokens = memory.windows * shape.length
        return memory

    def train(self, objective: Objective, loop: LoopSettings, stop: Stop, *, bits: bool = False) -> Progress:
        """Train to the end or to a signal, as `Trainer.run`; log to metrics.csv, log.jsonl and TensorBoard.

        Args:
            objective: data, loss and evaluation.
            loop: lengths and rates.
            stop: set by a signal.
            bits: the loss is in nats per base, and is shown in bits too.
        """
        directory, step, first = self._settings.output, self.progress.step, current_ranks().first
        keep = self.progress.metrics_bytes if step else 0
        columns = (*TRAINING_COLUMNS, *objective.evaluation_columns)
        with ExitStack() as stack:
            metrics = CSVLogger(directory / "metrics.csv", columns, keep, write=first)
            loggers = [stack.enter_context(metrics).write]
            if self._settings.tensorboard and first:
                loggers.append(stack.enter_context(TensorBoardLogger(directory, step)).write)
            stack.enter_context(console.json_sink(directory / "log.jsonl"))
            display = stack.enter_context(TrainingProgress(loop.curriculum.steps, step, bits=bits))
            trainer = Trainer(
                self._model,
                objective,
                self._optimizer,
                loop,
                checkpoints=self._checkpoints,
                loggers=loggers,
                device=self._device,
                autocast=self._precision,
            )
            return trainer.run(self.progress, stop, display.show)

    def save(self) -> None:
        """Save the model as it is, for a training without steps."""
        self._checkpoints.save(self._model, self._optimizer, self.progress)
