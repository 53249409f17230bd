"""One training in a run directory: checkpoints, memory plan, loggers, and the loop."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch

from hyenacli import console
from hyenacli.distributed import Stop, current_ranks
from hyenacli.inference.batching import parse_batch_size
from hyenacli.training.checkpoints import Checkpoints, Progress
from hyenacli.training.loop import TRAINING_COLUMNS, LoopSettings, Trainer
from hyenacli.training.memory import BatchShape, MemoryPlan, MemoryPlanner
from hyenacli.training.metric_loggers import CSVLogger, TensorBoardLogger, TrainingProgress
from hyenacli.training.objective import MetricLogger, Objective
from hyenacli.training.settings import TrainingOptions
from hyenadna import HyenaDNA

Precision = Callable[[], AbstractContextManager[object]]


@contextmanager
def metric_loggers(
    settings: TrainingOptions, objective: Objective, progress: Progress
) -> Iterator[list[MetricLogger]]:
    """Open the loggers of a run: metrics.csv and TensorBoard; events also go to log.jsonl.

    Args:
        settings: of the verb.
        objective: names the evaluation columns.
        progress: of the run; rows of later steps, which will be made again, are dropped.
    """
    directory, first = settings.output, current_ranks().first
    columns = (*TRAINING_COLUMNS, *objective.evaluation_columns)
    with ExitStack() as stack:
        metrics = CSVLogger(directory / "metrics.csv", columns, progress.step or None, write=first)
        loggers: list[MetricLogger] = [stack.enter_context(metrics)]
        if settings.tensorboard and first:
            loggers.append(stack.enter_context(TensorBoardLogger(directory, progress.step)))
        stack.enter_context(console.json_sink(directory / "log.jsonl"))
        yield loggers


class TrainingRun:
    """One training in a run directory: restored, planned, trained, and saved.

    Args:
        settings: of the verb.
        model: to train, on its device.
        groups: of its parameters, for AdamW.
        origin: provenance for the checkpoints.
        precision: returns the context of a pass.
        device: of the model.

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
    ) -> None:
        self._settings, self._model, self._precision, self._device = settings, model, precision, device
        self._optimizer = torch.optim.AdamW(groups)
        self._checkpoints = Checkpoints(settings.output, settings.keep, origin)
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
        """Train to the end or to a signal, as `Trainer.run`.

        Args:
            objective: data, loss and evaluation.
            loop: lengths and rates.
            stop: set by a signal.
            bits: the loss is in nats per base, and is shown in bits too.
        """
        with (
            metric_loggers(self._settings, objective, self.progress) as loggers,
            TrainingProgress(loop.curriculum.steps, self.progress.step, bits=bits) as display,
        ):
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
