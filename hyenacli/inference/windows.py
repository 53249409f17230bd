"""Windows over a sequence longer than the model, which may overlap; every base is taken once."""

from collections.abc import Iterator
from typing import NamedTuple


class Window(NamedTuple):
    """Positions to read, and those of them whose states are taken; all 0-based half-open.

    Attributes:
        start: first position read.
        end: end of the positions read.
        take_start: first position taken.
        take_end: end of the positions taken.
    """

    start: int
    end: int
    take_start: int
    take_end: int


def cut(take_start: int, take_end: int, width: int, stride: int) -> Iterator[Window]:
    """Yield windows that give a causal model the positions [take_start, take_end) of a sequence, in order.

    Windows start at 0, stride, 2 * stride, ...; the last one is moved back to end at take_end, so that no
    base is read with little context only because the length is no multiple of the stride. A position is
    taken from the first window that holds it, which is the one where it has the most bases to its left.
    Positions from take_end on are never read, since they cannot change the states of those before; windows
    from which nothing is taken are left out.

    Args:
        take_start: first position to take.
        take_end: end of the positions to take.
        width: positions per window.
        stride: from one window's start to the next; at most width, or positions would be lost.

    >>> list(cut(0, 5, 8, 8))
    [Window(start=0, end=5, take_start=0, take_end=5)]
    >>> [tuple(window) for window in cut(2, 10, 4, 4)]
    [(0, 4, 2, 4), (4, 8, 4, 8), (6, 10, 8, 10)]
    """
    # The first window whose end lies beyond take_start, and no earlier: what precedes gives nothing.
    start = max(0, -(-(take_start + 1 - width) // stride) * stride)
    taken = take_start
    while taken < take_end:
        start = min(start, max(0, take_end - width))
        end = min(start + width, take_end)
        yield Window(start, end, taken, end)
        taken = end
        start += stride
