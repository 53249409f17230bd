"""Length warm-up, the learning rate, and the stream of windows: the same whoever reads it from where."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenacli.errors import UsageError
from hyenacli.inference.intervals import Interval
from hyenacli.inference.sampling import WindowSampler
from hyenacli.readers.genome import Codes, Contig
from hyenacli.training.curriculum import Curriculum, StepLoader, cosine_rate, parse_curriculum

CODES = np.random.default_rng(0).integers(7, 12, 20_000).astype(np.uint8)
CURRICULUM = Curriculum([(16, 3), (32, 2), (64, 5)], windows=6)
SAMPLER = WindowSampler(
    [Contig("c", Path("g.fa"), CODES, 16_000)], [Interval(0, 0, 20_000)], 3, rc_augment=True
)


def parse(text: str | None, *, length: int = 1_024, windows: int = 32, steps: int = 1_200) -> Curriculum:
    return parse_curriculum(text, length=length, windows=windows, steps=steps)


def test_auto_doubles_from_64_on_a_third_of_the_steps() -> None:
    stages = parse("auto").stages
    assert [(s.length, s.windows, s.steps) for s in stages] == [
        (64, 512, 100),
        (128, 256, 100),
        (256, 128, 100),
        (512, 64, 100),
        (1_024, 32, 800),
    ]
    assert {s.length * s.windows for s in stages} == {32_768}


def test_a_target_that_is_no_power_of_two_keeps_the_tokens_about_constant() -> None:
    for stage in parse("auto", length=160_000, windows=4, steps=300).stages:
        assert stage.length * stage.windows == pytest.approx(640_000, rel=0.05)


@pytest.mark.parametrize("text", [None, "auto"])
def test_without_room_for_stages_there_is_one(text: str | None) -> None:
    (stage,) = parse(text, steps=5).stages
    assert (stage.length, stage.steps, stage.windows) == (1_024, 5, 32)


@given(
    st.lists(st.integers(1, 30), max_size=4),
    st.integers(1, 9),
    st.integers(1, 5_000),
)
def test_every_step_has_windows_of_its_own(steps: list[int], windows: int, micro_tokens: int) -> None:
    text = ",".join(f"{16 << i}:{n}" for i, n in enumerate(steps)) or None
    curriculum = parse(text, length=256, windows=windows, steps=sum(steps) + 7)
    seen: list[int] = []
    tokens = 0
    for step in range(curriculum.steps):
        stage = curriculum.at(step)
        for part in stage.micro_batches(step, micro_tokens):
            seen += part
            tokens += len(part) * stage.length
            assert len(part) == 1 or len(part) * stage.length <= micro_tokens
    assert seen == list(range(len(seen)))
    assert tokens == curriculum.tokens


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("64", "cannot read '64'"),
        ("64:5:6", "cannot read"),
        ("64:x", "cannot read"),
        ("128:5,64:5", "lengths must grow"),
        ("64:5,64:5", "lengths must grow"),
        ("1024:5", "lengths must grow"),
        ("4:5", "lengths must grow from 8"),
        ("64:0", "a stage without steps"),
        ("64:1200", "no step of the 1,200 is left"),
    ],
)
def test_what_is_no_curriculum(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_learning_rate_rises_then_falls_to_its_floor() -> None:
    rates = [cosine_rate(s, peak=1.0, floor=0.1, warmup=10, total=100) for s in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.55)
    assert cosine_rate(500, peak=1.0, floor=0.1, warmup=10, total=100) == pytest.approx(0.1)


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
