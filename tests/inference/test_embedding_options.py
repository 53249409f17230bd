import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyenacli.errors import UsageError
from hyenacli.inference.embedding_options import (
    Pooling,
    Window,
    choose_layers,
    cut,
    parse_embedding_options,
    parse_layer,
    parse_pool,
)

PLAIN = {"pool": "mean", "layer": "-1", "rc": "none", "stranded": False, "window": None, "stride": None}


@pytest.mark.parametrize("text", ["mean", "last", "max", "none"])
def test_words_are_poolings(text: str) -> None:
    assert parse_pool(text) == Pooling(text)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        *(("pool", text, "--pool: unknown pooling.*mean, last, max, none or center:N")
          for text in ("", "avg", "center", "center:", "center:0", "center:-1", "center:x", "mean:3", "sum")),
        *(("layer", text, "--layer: unknown layer") for text in ("", "0", "-2", "1.5", "last")),
    ],
)  # fmt: skip
def test_unknown_words_name_the_known(setting: str, value: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_embedding_options(**{**PLAIN, setting: value})


def test_a_stride_beyond_the_window_would_skip_bases() -> None:
    with pytest.raises(UsageError, match="a stride of 5 skips bases between windows of 4"):
        parse_embedding_options(**{**PLAIN, "window": 4, "stride": 5})
    assert parse_embedding_options(**{**PLAIN, "window": 4, "stride": 4}).stride == 4


def test_layers() -> None:
    assert choose_layers(parse_layer("-1"), 2) == (-1,)
    assert choose_layers(parse_layer("2"), 2) == (2,)
    assert choose_layers(parse_layer("all"), 2) == (1, 2, -1)
    with pytest.raises(UsageError, match="no block 3; its blocks are 1 to 2"):
        choose_layers(3, 2)


@given(st.integers(1, 30), st.integers(1, 40))
def test_both_readings_pool_the_same_central_bases(length: int, size: int) -> None:
    start, end = Pooling("center", size).span(length, reverse=False)
    assert end - start == min(size, length)
    assert abs(start - (length - end)) <= 1
    assert Pooling("center", size).span(length, reverse=True) == (length - end, length - start)


@given(st.sampled_from(["mean", "max", "none"]), st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_pooling_does_not_see_the_windows(kind: str, sizes: list[int]) -> None:
    pooling, n = Pooling(kind), sum(sizes)
    states_nKD = torch.randn(n, 2, 3, generator=torch.Generator().manual_seed(n))
    parts = [pooling.reduce(part).numpy() for part in states_nKD.split(sizes)]
    whole = {"mean": states_nKD.mean(0, True), "max": states_nKD.amax(0, True), "none": states_nKD}[kind]
    np.testing.assert_allclose(pooling.combine(parts, n), whole.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("span", "width", "stride", "expected"),
    [
        ((0, 4), 4, 4, [(0, 4, 0, 4)]),
        ((0, 9), 4, 4, [(0, 4, 0, 4), (4, 8, 4, 8), (5, 9, 8, 9)]),
        ((0, 8), 4, 2, [(0, 4, 0, 4), (2, 6, 4, 6), (4, 8, 6, 8)]),
        ((3, 4), 100, 100, [(0, 4, 3, 4)]),
        # Far into a sequence only the windows that hold what is wanted are read.
        ((21, 22), 4, 4, [(18, 22, 21, 22)]),
        ((18, 25), 4, 4, [(16, 20, 18, 20), (20, 24, 20, 24), (21, 25, 24, 25)]),
        ((5, 5), 4, 4, []),
    ],
)
def test_windows_by_hand(span: tuple[int, int], width: int, stride: int, expected: list) -> None:
    assert [tuple(window) for window in cut(*span, width, stride)] == expected


@given(st.integers(0, 60), st.integers(1, 60), st.integers(1, 20), st.data())
def test_every_position_is_taken_once_with_the_most_context(
    start: int, length: int, width: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, width))
    end = start + length
    windows: list[Window] = list(cut(start, end, width, stride))
    taken = [p for window in windows for p in range(window.take_start, window.take_end)]
    assert taken == list(range(start, end))
    for window in windows:
        assert 0 <= window.start <= window.take_start < window.take_end <= window.end <= end
        assert window.end - window.start == min(width, window.end)
        # Every position after a window's first `width - stride` has at least that much before it.
        if window.start > 0 and window is not windows[0]:
            assert window.take_start - window.start >= width - stride
