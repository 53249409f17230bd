"""Window length and learning rate of every step.

Sequence length warm-up keeps the tokens of a step constant. Paper, section 3.3: lengths double from stage to
stage, and so the number of windows halves.
"""

import math
import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch.utils.data import DataLoader, Dataset

from hyenacli.errors import UsageError

FIRST_LENGTH = 64
# `auto` spends this share of the steps below the target length, the same number on each length.
_AUTO_SHARE = 1 / 3
# Steps that a loader process reads ahead.
_AHEAD = 4
_REMEDY = "write auto or lengths with their steps, growing, as 64:500,128:500"


@dataclass(frozen=True)
class Stage:
    """Steps of one length.

    Attributes:
        length: tokens a window feeds to the model.
        windows: per optimizer step.
        first_step: 0-based number of its first step, `steps` how many it has.
        first_window: number of its first window in the training stream.
    """

    length: int
    windows: int
    first_step: int
    steps: int
    first_window: int = 0

    @property
    def end(self) -> int:
        """Step after its last."""
        return self.first_step + self.steps

    def micro_batches(self, step: int, micro_tokens: int) -> Iterator[range]:
        """Cut the windows of a step into pieces of at most `micro_tokens` tokens, one window at least."""
        first = self.first_window + (step - self.first_step) * self.windows
        size = max(1, micro_tokens // self.length)
        for start in range(first, first + self.windows, size):
            yield range(start, min(start + size, first + self.windows))


class Steps(Protocol):
    """Steps of a run."""

    @property
    def steps(self) -> int:
        """Number of steps."""

    def at(self, step: int) -> Stage:
        """Return the stage of a 0-based step."""


class Curriculum:
    """Stages of a run in order; the last has the target length.

    Args:
        stages: (length, steps) of each, lengths growing.
        windows: per step of the last stage.
    """

    def __init__(self, stages: list[tuple[int, int]], windows: int):
        target, self.stages = stages[-1][0], list[Stage]()
        step = window = 0
        for length, steps in stages:
            stage = Stage(length, max(1, round(windows * target / length)), step, steps, window)
            self.stages.append(stage)
            step, window = stage.end, window + steps * stage.windows

    @property
    def target(self) -> Stage:
        """Last stage."""
        return self.stages[-1]

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return self.target.end

    @property
    def tokens(self) -> int:
        """Tokens of all stages."""
        return sum(stage.steps * stage.windows * stage.length for stage in self.stages)

    def at(self, step: int) -> Stage:
        """Return the stage of a 0-based step."""
        return next(stage for stage in self.stages if step < stage.end)


def fixed_length(length: int, windows: int, steps: int) -> Curriculum:
    """Return a curriculum of one stage."""
    return Curriculum([(length, steps)], windows)


def parse_curriculum(text: str | None, *, length: int, windows: int, steps: int) -> Curriculum:
    """Parse --length-warmup.

    Args:
        text: None for one stage; `auto`: lengths double from 64, on a third of the steps, evenly; or
            `64:500,...`, lengths with their steps.
        length: the target, which has the remaining steps.
        windows: per step at the target length.
        steps: of all stages.

    Raises:
        UsageError: not of that form, lengths that do not grow up to below the target, or too many steps.

    >>> [
    ...     (s.length, s.windows, s.steps)
    ...     for s in parse_curriculum("64:5,128:5", length=256, windows=4, steps=100).stages
    ... ]
    [(64, 16, 5), (128, 8, 5), (256, 4, 90)]
    """
    if text is None:
        return fixed_length(length, windows, steps)
    warmup = _auto(length, steps) if text == "auto" else _read(text)
    lengths = [each for each, _ in warmup]
    if lengths != sorted(set(lengths)) or (lengths and lengths[-1] >= length) or min(lengths, default=8) < 8:
        raise UsageError(
            f"lengths must grow from 8 to below the target of {length:,}",
            at="--length-warmup",
            remedy=_REMEDY,
        )
    remaining = steps - sum(each for _, each in warmup)
    if remaining < 1:
        raise UsageError(
            f"no step of the {steps:,} is left for the target length",
            at="--length-warmup",
            remedy="raise --max-steps or shorten the stages",
        )
    return Curriculum([*warmup, (length, remaining)], windows)


def _auto(length: int, steps: int) -> list[tuple[int, int]]:
    lengths = [FIRST_LENGTH << i for i in range(length.bit_length()) if FIRST_LENGTH << i < length]
    each = int(steps * _AUTO_SHARE) // max(1, len(lengths))
    return [(short, each) for short in lengths] if each else []


def _read(text: str) -> list[tuple[int, int]]:
    try:
        pairs = [tuple(map(int, part.split(":"))) for part in text.split(",")]
        stages = [(length, steps) for length, steps in pairs]
    except ValueError:
        raise UsageError(f"cannot read '{text}'", at="--length-warmup", remedy=_REMEDY) from None
    if any(steps < 1 for _, steps in stages):
        raise UsageError("a stage without steps", at="--length-warmup", remedy=_REMEDY)
    return stages


def cosine_rate(step: int, *, peak: float, floor: float, warmup: int, total: int) -> float:
    """Return the learning rate: linear warm-up to `peak`, then half a cosine down to `floor`.

    Args:
        step: 0-based optimizer step.
        peak: highest learning rate.
        floor: learning rate at and after `total`.
        warmup: steps of warm-up; step 0 already takes peak / warmup.
        total: steps of the run.

    >>> [cosine_rate(s, peak=1.0, floor=0.1, warmup=2, total=4) for s in (0, 1, 2, 4)]
    [0.5, 1.0, 1.0, 0.1]
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (peak - floor) * (1 + math.cos(math.pi * done)) / 2


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
