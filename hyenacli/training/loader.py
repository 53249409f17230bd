"""Windows of the next steps, read ahead in separate processes.

What is read depends on the step's number alone, so that the stream is the same with any number of ranks or of
loader processes, and after a resumption.
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
    """Input of one forward pass.

    Attributes:
        number: index within its step, over all ranks.
        host: the windows as read, not yet on the device.
    """

    number: int
    host: Any


@dataclass(frozen=True)
class _Order:
    """Windows of one step for this rank, as (number of the micro-batch, windows), all of one length."""

    parts: list[tuple[int, range]]
    length: int


class _Reader(Dataset[list[MicroBatch]]):
    def __init__(self, read: Callable[[range, int], Any]):
        self._read = read

    def __getitem__(self, order: _Order) -> list[MicroBatch]:
        return [MicroBatch(number, self._read(part, order.length)) for number, part in order.parts]


class StepLoader:
    """Iterator over the micro-batches of one step after another.

    Args:
        read: reads windows of the training stream, given their numbers and their length.
        curriculum: lengths and windows of every step.
        first_step: 0-based step to begin with.
        micro_tokens: most tokens in a micro-batch.
        shard: index and number of the ranks that divide the windows among them.
        workers: processes that read ahead; 0 reads in this process, when needed.

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
        shard: tuple[int, int],
        workers: int,
    ):
        self.waited = 0.0
        with warnings.catch_warnings():
            # the user may choose more processes than there are processors
            warnings.filterwarnings("ignore", "This DataLoader will create")
            self._steps = iter(
                DataLoader(
                    _Reader(read),
                    batch_size=None,
                    sampler=_Orders(curriculum, first_step, micro_tokens, shard),
                    num_workers=workers,
                    collate_fn=_unchanged,
                    prefetch_factor=_AHEAD if workers else None,
                    # a forked process shares the genome's pages; others get a copy
                    multiprocessing_context=multiprocessing.get_context("fork")
                    if workers and sys.platform == "linux"
                    else None,
                )
            )

    def __next__(self) -> list[MicroBatch]:
        """Return the next step's micro-batches on this rank; the list may be empty."""
        started = time.monotonic()
        batches: list[MicroBatch] = next(self._steps)
        self.waited = time.monotonic() - started
        return batches


@dataclass(frozen=True)
class _Orders:
    curriculum: Steps
    first_step: int
    micro_tokens: int
    shard: tuple[int, int]

    def __iter__(self) -> Iterator[_Order]:
        rank, ranks = self.shard
        for step in range(self.first_step, self.curriculum.steps):
            stage = self.curriculum.at(step)
            parts = list(enumerate(stage.micro_batches(step, self.micro_tokens)))
            yield _Order(parts[rank::ranks], stage.length)


def _unchanged(batches: list[MicroBatch]) -> list[MicroBatch]:
    return batches
