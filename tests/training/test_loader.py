"""The stream of windows: the same whoever reads it, wherever it begins."""

from pathlib import Path

import numpy as np
import pytest

from hyenacli.inference.intervals import Interval
from hyenacli.inference.sampling import WindowSampler
from hyenacli.readers.genome import Codes, Contig
from hyenacli.training.curriculum import Curriculum
from hyenacli.training.loader import StepLoader

CODES = np.random.default_rng(0).integers(7, 12, 20_000).astype(np.uint8)
CURRICULUM = Curriculum([(16, 3), (32, 2), (64, 5)], windows=6)
SAMPLER = WindowSampler(
    [Contig("c", Path("g.fa"), CODES, 16_000)], [Interval(0, 0, 20_000)], 3, rc_augment=True
)


def read(windows: range, length: int) -> Codes:
    return SAMPLER.rows(windows, length + 1)


def stream(*, ranks: int = 1, workers: int = 0, first_step: int = 0, micro_tokens: int = 128) -> list[Codes]:
    """The windows of every step from `first_step` on, as all ranks together see them."""
    loaders = [
        StepLoader(
            read,
            CURRICULUM,
            first_step,
            micro_tokens=micro_tokens,
            shard=(rank, ranks),
            workers=workers,
        )
        for rank in range(ranks)
    ]
    steps = []
    for _ in range(first_step, CURRICULUM.steps):
        micros = sorted((micro for loader in loaders for micro in next(loader)), key=lambda m: m.number)
        steps.append(np.concatenate([micro.host for micro in micros]))
    return steps


WHOLE = stream()


def assert_same(steps: list[Codes], expected: list[Codes]) -> None:
    assert [step.shape for step in steps] == [step.shape for step in expected]
    for step, other in zip(steps, expected, strict=True):
        assert np.array_equal(step, other)


def test_steps_have_the_curriculums_shapes_and_windows() -> None:
    assert [step.shape for step in WHOLE[::3]] == [(24, 17), (12, 33), (6, 65), (6, 65)]
    assert np.array_equal(WHOLE[-1], read(range(24 * 3 + 12 * 2 + 6 * 4, 24 * 3 + 12 * 2 + 6 * 5), 64))


@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("micro_tokens", [64, 128, 10_000])
def test_any_number_of_ranks_shares_one_stream(ranks: int, micro_tokens: int) -> None:
    assert_same(stream(ranks=ranks, micro_tokens=micro_tokens), WHOLE)


def test_reading_ahead_changes_nothing() -> None:
    assert_same(stream(workers=2), WHOLE)


@pytest.mark.parametrize("step", range(1, CURRICULUM.steps))
def test_a_resumed_stream_goes_on_where_it_was(step: int) -> None:
    assert_same(stream(first_step=step), WHOLE[step:])
