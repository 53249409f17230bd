"""Memory of training: windows per forward pass, and whether activations are recomputed."""

import datetime as dt
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch

from hyenacli import console
from hyenacli.devices import free_memory, is_out_of_memory
from hyenacli.distributed import min_over_ranks
from hyenacli.errors import UserError
from hyenacli.training.loop import OUT_OF_MEMORY_REMEDY, shared_window_error
from hyenacli.training.objective import Objective
from hyenadna import HyenaConfig, HyenaDNA

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
        autocast: Callable[[], AbstractContextManager[object]],
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
