"""Length warm-up (lengths grow, the tokens of a step stay, no window is read twice) and the learning rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenacli.errors import UsageError
from hyenacli.training.curriculum import Curriculum, cosine_rate, parse_curriculum


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
