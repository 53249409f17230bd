"""A run directory around THE training loop: what every verb that trains writes, and where its numbers go."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch

from hyenacli import console
from hyenacli.distributed import barrier, current_ranks
from hyenacli.inference.batching import parse_batch_size
from hyenacli.training import run_metadata as record
from hyenacli.training.checkpoints import Checkpoints, Progress
from hyenacli.training.csv_logger import CSVLogger
from hyenacli.training.loop import TRAINING_COLUMNS, LoopSettings, Trainer
from hyenacli.training.memory import BatchShape, MemoryPlan, MemoryPlanner
from hyenacli.training.objective import Objective
from hyenacli.training.progress import TrainingProgress
from hyenacli.training.settings import TrainingOptions
from hyenacli.training.signals import Stop
from hyenacli.training.tensorboard import TensorBoard
from hyenacli.writers.atomic import prepare_run_directory
from hyenadna import HyenaDNA

Precision = Callable[[], AbstractContextManager[object]]
Inputs = Sequence[dict[str, str | int]]


def open_run(settings: TrainingOptions, inputs: Inputs, device: torch.device, **facts: Any) -> None:
    """Make the directory and say in it what is run; for a resumption, check that it is the same run.

    Args:
        settings: of the verb.
        inputs: fingerprints of what is read.
        device: of the model.
        facts: what else run.json says from the start.

    Raises:
        UserError: as `prepare_run_directory` and `record.check_resumable`.
    """
    if current_ranks().first:
        prepare_run_directory(settings.output, resume=settings.resume, force=settings.force)
        if settings.resume:
            record.check_resumable(settings.output, settings, inputs)
        else:
            record.write_record(
                settings.output,
                inputs=inputs,
                seed=settings.seed,
                device=str(device),
                dtype=settings.dtype,
                world_size=current_ranks().world_size,
                **facts,
            )
            record.write_config(settings.output, settings)  # last: its presence says that there is a run
    barrier()


@contextmanager
def numbers_of_run(
    settings: TrainingOptions, task: Objective[Any], progress: Progress
) -> Iterator[list[CSVLogger | TensorBoard]]:
    """Where the numbers of every step go while the context lasts: metrics.csv, TensorBoard; log.jsonl too.

    Args:
        settings: of the verb.
        task: its evaluation has columns of its own.
        progress: where the run goes on; rows of later steps, which will be made again, are dropped.
    """
    directory, first = settings.output, current_ranks().first
    columns = (*TRAINING_COLUMNS, *task.evaluation_columns)
    with ExitStack() as stack:
        metrics = CSVLogger(directory / "metrics.csv", columns, progress.step or None, write=first)
        sinks: list[CSVLogger | TensorBoard] = [stack.enter_context(metrics)]
        if settings.tensorboard and first:
            sinks.append(stack.enter_context(TensorBoard(directory, progress.step)))
        stack.enter_context(console.json_sink(directory / "log.jsonl"))
        yield sinks


class TrainingRun:
    """What stands around the loop in a run directory: what is restored, planned, shown and written.

    Args:
        settings: of the verb.
        model: to train, on its device.
        groups: of its parameters, for AdamW.
        origin: what checkpoints say of where they come from.
        precision: makes the context of every pass.
        device: of the model.

    Attributes:
        progress: how far the run is.
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

    def plan(self, task: Objective[Any], load: BatchShape) -> MemoryPlan:
        """How many windows go through the model at once; see `MemoryPlanner.plan`.

        Raises:
            UsageError, UserError: as there.
        """
        asked = parse_batch_size(str(self._settings.micro_batch_size), "--micro-batch-size")
        # a resumed run cuts its steps as before: dropout is drawn by micro-batch
        asked = asked or self.progress.micro_tokens // load.length or None
        memory = MemoryPlanner(self._model, task, self._precision, self._device).plan(
            load, asked, self._settings.activation_checkpointing
        )
        self.progress.micro_tokens = memory.windows * load.length
        return memory

    def train(self, task: Objective[Any], loop: LoopSettings, stop: Stop, *, bits: bool = False) -> Progress:
        """Train to the end or to a signal, as `Trainer.run`.

        Args:
            task: data, loss and evaluation.
            loop: lengths and rates.
            stop: set by a signal.
            bits: whether the loss is nats of a base.
        """
        with (
            numbers_of_run(self._settings, task, self.progress) as sinks,
            TrainingProgress(loop.curriculum.steps, self.progress.step, bits=bits) as display,
        ):
            trainer = Trainer(
                self._model,
                task,
                self._optimizer,
                loop,
                checkpoints=self._checkpoints,
                sinks=sinks,
                device=self._device,
                autocast=self._precision,
            )
            return trainer.run(self.progress, stop, display.show)

    def keep(self) -> None:
        """Write the model as it is, for what is trained without steps."""
        self._checkpoints.save(self._model, self._optimizer, self.progress)
