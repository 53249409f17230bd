"""A run directory around THE training loop: what every verb that trains writes, and where its numbers go."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from hyenacli import console
from hyenacli.ranks import current_ranks
from hyenacli.train import record
from hyenacli.train.checkpoints import Progress
from hyenacli.train.distributed import barrier
from hyenacli.train.loop import TRAINING_COLUMNS, Task
from hyenacli.train.metrics import MetricsFile
from hyenacli.train.tensorboard import TensorBoard
from hyenacli.writers.atomic import prepare_run_directory

Precision = Callable[[], AbstractContextManager[object]]
Inputs = Sequence[dict[str, str | int]]


class RunSettings(Protocol):
    """What every verb that trains is told about its directory."""

    @property
    def output(self) -> Path:
        """The run directory."""

    @property
    def resume(self) -> bool:
        """Whether to go on with what it holds."""

    @property
    def force(self) -> bool:
        """Whether to replace it."""

    @property
    def seed(self) -> int:
        """Of every random choice."""

    @property
    def dtype(self) -> str:
        """Of the passes."""

    @property
    def tensorboard(self) -> bool:
        """Whether its numbers also go there."""


def open_run(settings: RunSettings, inputs: Inputs, device: torch.device, **facts: Any) -> None:
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
    settings: RunSettings, task: Task[Any], progress: Progress
) -> Iterator[list[MetricsFile | TensorBoard]]:
    """Where the numbers of every step go while the context lasts: metrics.csv, TensorBoard; log.jsonl too.

    Args:
        settings: of the verb.
        task: its evaluation has columns of its own.
        progress: where the run goes on; rows of later steps, which will be made again, are dropped.
    """
    directory, first = settings.output, current_ranks().first
    columns = (*TRAINING_COLUMNS, *task.evaluation_columns)
    with ExitStack() as stack:
        metrics = MetricsFile(directory / "metrics.csv", columns, progress.step or None, write=first)
        sinks: list[MetricsFile | TensorBoard] = [stack.enter_context(metrics)]
        if settings.tensorboard and first:
            sinks.append(stack.enter_context(TensorBoard(directory, progress.step)))
        stack.enter_context(console.json_sink(directory / "log.jsonl"))
        yield sinks
