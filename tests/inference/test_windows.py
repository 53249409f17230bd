import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenacli.inference.windows import Window, cut


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
