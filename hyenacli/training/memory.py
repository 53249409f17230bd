"""How many windows go through the model at once, and whether blocks are computed twice: what memory bears."""

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
from hyenacli.training.loop import NO_ROOM, no_room_to_share
from hyenacli.training.objective import Objective
from hyenadna import HyenaConfig, HyenaDNA

# On a CPU larger micro-batches are not faster: 8,192 tokens of width 128 fill it.
_NUMBERS_ON_CPU = 1 << 20
_INTERPRETER = 300 << 20
_SHARE = 0.8


@dataclass(frozen=True)
class MemoryPlan:
    """How a run goes through memory.

    Attributes:
        windows: in one forward pass at the target length.
        checkpointing: whether blocks are computed again for the gradient.
        n_bytes: expected peak; measured on CUDA, else estimated.
        seconds: a forward and backward pass took.
    """

    windows: int
    checkpointing: bool
    n_bytes: int
    seconds: float = 0.0

    def duration(self, windows: int, steps: int, replicas: int) -> dt.timedelta:
        """About how long so many steps take, of so many windows each, shared by `replicas`."""
        passes = math.ceil(windows / self.windows / replicas)
        return dt.timedelta(seconds=round(self.seconds * passes * steps))


def training_bytes(config: HyenaConfig, parameters: int, tokens: int, *, checkpointing: bool) -> int:
    """Estimated peak of a training process on a CPU.

    Weights, gradients and two moments; the input of every half block (of every block where they are computed
    again), and six numbers a token and dimension for what is at work.
    """
    kept = config.n_layer + 2 if checkpointing else 2 * config.n_layer
    return _INTERPRETER + 16 * parameters + 4 * tokens * config.d_model * (kept + 6)


@dataclass(frozen=True)
class BatchShape:
    """What a rank puts through its device.

    Attributes:
        length: tokens of a window.
        windows: of a step.
        context_parallel: ranks that share a window.
    """

    length: int
    windows: int
    context_parallel: int = 1

    @property
    def own_length(self) -> int:
        """Tokens of a window on this rank."""
        return -(-self.length // self.context_parallel)


class MemoryPlanner:
    """Finds out by trial how a model is trained on a device.

    Args:
        model: on its device.
        task: its training windows are what is tried.
        autocast: context of every pass.
        device: of the model.
    """

    def __init__(
        self,
        model: HyenaDNA,
        task: Objective,  # type: ignore[type-arg]
        autocast: Callable[[], AbstractContextManager[object]],
        device: torch.device,
    ):
        self._model, self._task, self._autocast, self._device = model, task, autocast, device

    def plan(self, load: BatchShape, asked: int | None, checkpointing: str) -> MemoryPlan:
        """Decide, with one forward and backward pass at least; the model is set accordingly.

        Args:
            load: what is to be done.
            asked: windows of a forward pass, or None for as many as fit: on CUDA found by trial, on a
                CPU about 8,192 tokens.
            checkpointing: none, block or auto.

        Raises:
            UserError: a single window does not fit, or what is tried does not where ranks share windows.
        """
        plan = self._first(load, asked, checkpointing)
        while (tried := self._attempt(plan, load)) is None:
            if plan.windows > 1:
                plan = replace(plan, windows=plan.windows // 2)
            elif checkpointing == "auto" and not plan.checkpointing:
                plan = replace(plan, checkpointing=True)
            else:
                raise UserError(
                    f"a single window of {load.length:,} tokens does not fit into {self._device}",
                    remedy=NO_ROOM,
                )
        if asked is None and self._device.type == "cuda" and load.context_parallel == 1:
            tried = self._grown(tried, load)
        # All ranks must cut a step alike, whatever the memory of their devices.
        agreed = replace(
            tried,
            windows=int(min_over_ranks(tried.windows, device=self._device)),
            checkpointing=min_over_ranks(-float(tried.checkpointing), device=self._device) < 0,
        )
        self._model.backbone.activation_checkpointing = agreed.checkpointing
        return agreed

    def _first(self, load: BatchShape, asked: int | None, checkpointing: str) -> MemoryPlan:
        config = self._model.config
        bearable = _NUMBERS_ON_CPU // (config.d_model * load.own_length)
        windows = min(load.windows, asked or (1 if self._device.type == "cuda" else max(1, bearable)))
        need = [
            training_bytes(
                config, self._model.n_parameters, windows * load.own_length, checkpointing=checkpointed
            )
            for checkpointed in (False, True)
        ]
        scarce = need[False] > _SHARE * free_memory(self._device)
        checkpointed = checkpointing == "block" or (checkpointing == "auto" and scarce)
        return MemoryPlan(windows, checkpointed, need[checkpointed])

    def _grown(self, plan: MemoryPlan, load: BatchShape) -> MemoryPlan:
        """Twice as many windows, as often as they fit."""
        while plan.windows < load.windows:
            larger = self._attempt(replace(plan, windows=min(load.windows, 2 * plan.windows)), load)
            if larger is None:
                break
            plan = larger
        return plan

    def _attempt(self, plan: MemoryPlan, load: BatchShape) -> MemoryPlan | None:
        """The plan with what one pass took, or None where memory ran out."""
        model, device, n_bytes = self._model, self._device, plan.n_bytes
        model.backbone.activation_checkpointing = plan.checkpointing
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        started, fits = time.monotonic(), True
        model.train()
        try:
            batch = self._task.batch(self._task.read(range(plan.windows), load.length))
            with self._autocast():
                loss = self._task.loss(model, batch)
            (0.0 * loss).backward()  # type: ignore[no-untyped-call]
            if device.type == "cuda":
                torch.cuda.synchronize(device)
                # AdamW's moments come with the first step
                n_bytes = torch.cuda.max_memory_allocated(device) + 8 * model.n_parameters
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if load.context_parallel > 1:
                raise no_room_to_share(load.length, load.context_parallel) from error
            fits = False
        model.zero_grad(set_to_none=True)
        seconds = time.monotonic() - started
        console.event("memory_trial", windows=plan.windows, fits=fits, bytes=n_bytes, seconds=seconds)
        return replace(plan, n_bytes=n_bytes, seconds=seconds) if fits else None
