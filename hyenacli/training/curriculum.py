"""How long the windows of each step are: sequence length warm-up, with the tokens of a step constant.

Paper, section 3.3: lengths double from stage to stage, and so the number of windows halves.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from hyenacli.errors import UsageError

FIRST_LENGTH = 64
# `auto` spends this share of the steps below the target length, the same number on each length.
_AUTO_SHARE = 1 / 3
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
        """The step after its last."""
        return self.first_step + self.steps

    def micro_batches(self, step: int, micro_tokens: int) -> Iterator[range]:
        """The windows of a step, cut into pieces of at most `micro_tokens` tokens, one window at least."""
        first = self.first_window + (step - self.first_step) * self.windows
        size = max(1, micro_tokens // self.length)
        for start in range(first, first + self.windows, size):
            yield range(start, min(start + size, first + self.windows))


class Steps(Protocol):
    """The steps of a run."""

    @property
    def steps(self) -> int:
        """How many."""

    def at(self, step: int) -> Stage:
        """The stage of a 0-based step."""


class Curriculum:
    """The stages of a run in order; the last has the target length.

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
        """The last stage."""
        return self.stages[-1]

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.target.end

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return sum(stage.steps * stage.windows * stage.length for stage in self.stages)

    def at(self, step: int) -> Stage:
        """The stage of a 0-based step."""
        return next(stage for stage in self.stages if step < stage.end)


def fixed_length(length: int, windows: int, steps: int) -> Curriculum:
    """One stage."""
    return Curriculum([(length, steps)], windows)


def parse_curriculum(text: str | None, *, length: int, windows: int, steps: int) -> Curriculum:
    """The curriculum that --length-warmup asks for.

    Args:
        text: None for none; `auto`: lengths double from 64, on a third of the steps, evenly; or `64:500,...`,
            a length and its steps each.
        length: the target, which has the steps that are left.
        windows: per step at the target length.
        steps: of the whole run.

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
    left = steps - sum(each for _, each in warmup)
    if left < 1:
        raise UsageError(
            f"no step of the {steps:,} is left for the target length",
            at="--length-warmup",
            remedy="raise --max-steps or shorten the stages",
        )
    return Curriculum([*warmup, (length, left)], windows)


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
