"""Windows of coming steps, read ahead in processes of their own.

What is read depends on the step's number alone, so that neither the number of ranks nor that of the loader's
processes, nor a resumption, changes the stream.
"""

import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset

from hyenacli.training.curriculum import Steps

_AHEAD = 4


@dataclass(frozen=True)
class MicroBatch:
    """What goes through the model at once.

    Attributes:
        number: within its step, over all ranks.
        host: the windows as read, not yet on the device.
    """

    number: int
    host: Any


@dataclass(frozen=True)
class _Order:
    """One step's windows for this rank: (number of the micro-batch, windows) each, all of one length."""

    parts: list[tuple[int, range]]
    length: int


class _Reader(Dataset[list[MicroBatch]]):
    def __init__(self, read: Callable[[range, int], Any]):
        self._read = read

    def __getitem__(self, order: _Order) -> list[MicroBatch]:
        return [MicroBatch(number, self._read(part, order.length)) for number, part in order.parts]


class StepLoader:
    """The micro-batches of one step after another.

    Args:
        read: makes windows of the training stream, given their numbers and their length.
        curriculum: lengths and windows of every step.
        first_step: 0-based step to begin with.
        micro_tokens: most tokens in a micro-batch.
        place: of this rank among those that share the windows, and how many they are.
        workers: processes that read ahead; 0 reads when asked.

    Attributes:
        waited: seconds spent waiting for windows since the last step.
    """

    def __init__(
        self,
        read: Callable[[range, int], Any],
        curriculum: Steps,
        first_step: int,
        *,
        micro_tokens: int,
        place: tuple[int, int],
        workers: int,
    ):
        self.waited = 0.0
        with warnings.catch_warnings():
            # more processes than processors: the user has said how many
            warnings.filterwarnings("ignore", "This DataLoader will create")
            self._steps = iter(
                DataLoader(
                    _Reader(read),
                    batch_size=None,
                    sampler=_Orders(curriculum, first_step, micro_tokens, place),
                    num_workers=workers,
                    collate_fn=_as_it_is,
                    prefetch_factor=_AHEAD if workers else None,
                    # a forked process shares the genome's pages; elsewhere it is sent a copy
                    multiprocessing_context=multiprocessing.get_context("fork")
                    if workers and sys.platform == "linux"
                    else None,
                )
            )

    def __next__(self) -> list[MicroBatch]:
        """The next step's micro-batches on this rank; there may be none."""
        started = time.monotonic()
        batches: list[MicroBatch] = next(self._steps)
        self.waited = time.monotonic() - started
        return batches


@dataclass(frozen=True)
class _Orders:
    curriculum: Steps
    first_step: int
    micro_tokens: int
    place: tuple[int, int]

    def __iter__(self) -> Iterator[_Order]:
        rank, ranks = self.place
        for step in range(self.first_step, self.curriculum.steps):
            stage = self.curriculum.at(step)
            parts = list(enumerate(stage.micro_batches(step, self.micro_tokens)))
            yield _Order(parts[rank::ranks], stage.length)


def _as_it_is(batches: list[MicroBatch]) -> list[MicroBatch]:
    return batches
