"""Options of embeddings, checked before a model is loaded: layers, strands, windows and pooling.

K layers, D width, n positions of one window, N rows of a region.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UsageError, check_range, check_word

if TYPE_CHECKING:
    from torch import Tensor

    from hyenadna import HyenaConfig
from collections.abc import Iterator
from typing import NamedTuple

Floats = NDArray[np.floating[Any]]
FINAL = -1


@dataclass(frozen=True)
class _Rule:
    """A reduction whose result does not depend on how the positions are spread over windows."""

    reduce: "Callable[[Tensor], Tensor]"
    combine: Callable[[Floats], Floats]


# `reduce`: (n, K, D) of a window to (1 or n, K, D); `combine`: those of all windows, joined, to (N, K, D).
_RULES = {
    "sum": _Rule(lambda x_nKD: x_nKD.sum(0, keepdim=True), lambda x_nKD: x_nKD.sum(0, keepdims=True)),
    "max": _Rule(lambda x_nKD: x_nKD.amax(0, keepdim=True), lambda x_nKD: x_nKD.max(0, keepdims=True)),
    "none": _Rule(lambda x_nKD: x_nKD, lambda x_nKD: x_nKD),
}
_RULE_OF = {"mean": "sum", "last": "sum", "center": "sum", "max": "max", "none": "none"}


@dataclass(frozen=True)
class Pooling:
    """Reduction of the states of a region's positions to vectors.

    mean: the average over its bases. max: the largest value of each dimension. last: the last base in reading
    direction, which a causal model has given the whole region. center: the average over its `size` central
    bases (all, where it is shorter; of two centres the left one). none: every base by itself.

    Attributes:
        kind: mean, max, last, center or none.
        size: bases of center.
    """

    kind: str
    size: int = 0

    def span(self, length: int, *, reverse: bool) -> tuple[int, int]:
        """Return the positions pooled of a region of `length` bases, 0-based half-open in reading direction.

        Both readings of a region pool the same bases, except `last`: each its own last one.

        >>> Pooling("center", 2).span(5, reverse=False), Pooling("center", 2).span(5, reverse=True)
        ((1, 3), (2, 4))
        """
        if self.kind == "last":
            return length - 1, length
        if self.kind != "center" or self.size >= length:
            return 0, length
        start = (length - self.size) // 2
        return (length - start - self.size, length - start) if reverse else (start, start + self.size)

    def reduce(self, states_nKD: "Tensor") -> "Tensor":
        """Reduce the states (n, K, D) taken from a window to (1, K, D), or (n, K, D) with none."""
        return _RULES[_RULE_OF[self.kind]].reduce(states_nKD)

    def combine(self, parts: Sequence[Floats], taken: int) -> Floats:
        """Combine the reduced windows of a region, of `taken` positions in all, to its vectors (N, K, D)."""
        rule = _RULE_OF[self.kind]
        if self.per_base:
            return parts[0] if len(parts) == 1 else np.concatenate(parts)
        joined_nKD = _RULES[rule].combine(np.concatenate(parts).astype(np.float64))
        return joined_nKD / taken if rule == "sum" else joined_nKD

    @property
    def per_base(self) -> bool:
        """Rows for every base, none pooled."""
        return self.kind == "none"


def parse_pool(text: str) -> Pooling:
    """Parse --pool: mean, last, max, none or center:N.

    Raises:
        UsageError: it is none of these, or N is not a whole number above 0.

    >>> parse_pool("center:11")
    Pooling(kind='center', size=11)
    """
    kind, colon, size = text.partition(":")
    if colon == "" and kind in _RULE_OF and kind != "center":
        return Pooling(kind)
    if kind == "center" and size.isdecimal() and int(size) > 0:
        return Pooling(kind, int(size))
    raise UsageError(f"unknown pooling '{text}'", at="--pool", remedy="use mean, last, max, none or center:N")


def parse_layer(text: str) -> int | None:
    """Parse --layer: -1 (final norm) or K (after block K, 1-based); None for all.

    Raises:
        UsageError: it is none of these.
    """
    if text == "all":
        return None
    if text == str(FINAL) or (text.isdecimal() and int(text) > 0):
        return int(text)
    raise UsageError(
        f"unknown layer '{text}'",
        at="--layer",
        remedy="use -1 (after the final norm), a block from 1 on, or all",
    )


def choose_layers(layer: int | None, n_layer: int) -> tuple[int, ...]:
    """Return the layers read of a model with `n_layer` blocks; all: the blocks in order, then the final norm.

    Raises:
        UsageError: the model has no such block.

    >>> choose_layers(None, 2), choose_layers(2, 2)
    ((1, 2, -1), (2,))
    """
    if layer is None:
        return (*range(1, n_layer + 1), FINAL)
    if layer > n_layer:
        raise UsageError(
            f"the model has no block {layer}", at="--layer", remedy=f"its blocks are 1 to {n_layer}"
        )
    return (layer,)


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """Options of how a region becomes vectors, before the model is loaded.

    Attributes:
        pooling: which positions, and how they are reduced.
        layer: -1 after the final norm, K >= 1 the residual stream after block K, None all of them.
        rc: none; or mean, or concat (the strand of `readings` first), of the vectors of both strands.
        stranded: read regions on the - strand as reverse complement.
        window: most bases the model reads at once; None is the model's context, or what a soft prompt leaves
            of it.
        stride: bases from one window's start to the next; None is the window.
        average: of a longer sequence, average the outputs of `even_windows` rather than pool all its bases.

    Raises:
        UsageError: a number is out of its range, or there is no such `rc`.
    """

    pooling: Pooling = Pooling("mean")
    layer: int | None = -1
    rc: str = "none"
    stranded: bool = False
    window: int | None = None
    stride: int | None = None
    average: bool = False

    def __post_init__(self) -> None:
        check_word("--rc", self.rc, ("none", "mean", "concat"))
        check_range("--window", self.window, 1)
        check_range("--stride", self.stride, 1)

    def readings(self, strand: str) -> tuple[bool, ...]:
        """Return which strands of a region are read, in order; true is the reverse complement.

        >>> EmbeddingOptions(rc="mean", stranded=True).readings("-")
        (True, False)
        """
        first = self.stranded and strand == "-"
        return (first,) if self.rc == "none" else (first, not first)

    def layers(self, config: "HyenaConfig") -> tuple[int, ...]:
        """Return the layers read of a model; UsageError if it has no such block."""
        return choose_layers(self.layer, config.n_layer)

    def width(self, config: "HyenaConfig") -> int:
        """Return the numbers per vector."""
        return config.d_model * (2 if self.rc == "concat" else 1)

    def windows(self, config: "HyenaConfig", longest: int) -> tuple[int, int]:
        """Return width and stride of the windows for a model, in bases.

        Args:
            config: of the model.
            longest: tokens that the model takes, of which a soft prompt leaves fewer.

        Raises:
            UsageError: the model takes no such window, or the stride leaves gaps.
        """
        limit = min(config.context, longest)
        window = self.window or limit
        if window > longest:
            raise UsageError(
                f"the model takes at most {limit:,} bases, not {window:,}",
                at="--window",
                remedy="choose a smaller window",
            )
        check_stride(window, self.stride)
        return window, self.stride or window


def parse_embedding_options(
    *, pool: str, layer: str, rc: str, stranded: bool, window: int | None, stride: int | None
) -> EmbeddingOptions:
    """Parse the options of the command line.

    Raises:
        UsageError: a value is unknown, or windows have gaps between them.
    """
    options = EmbeddingOptions(
        pooling=parse_pool(pool),
        layer=parse_layer(layer),
        rc=rc,
        stranded=stranded,
        window=window,
        stride=stride,
    )
    if window is not None:
        check_stride(window, stride)
    return options


def check_stride(window: int, stride: int | None) -> None:
    """Check that a stride leaves no gaps between windows; UsageError if it does."""
    if stride is not None and stride > window:
        raise UsageError(
            f"a stride of {stride:,} skips bases between windows of {window:,}",
            at="--stride",
            remedy="make it at most the window",
        )


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


def even_windows(length: int, width: int, stride: int, *, circular: bool = False) -> list[tuple[int, int]]:
    """Return evenly spaced windows that cover a sequence, 0-based half-open: the same from either end.

    No two begin further apart than the stride. The middle one of an odd number has a base less where it could
    not lie in the middle otherwise. Windows of a circle go on at its start, with ends beyond its length.

    >>> even_windows(10, 4, 4), even_windows(11, 4, 4)
    ([(0, 4), (3, 7), (6, 10)], [(0, 4), (4, 7), (7, 11)])
    >>> even_windows(10, 4, 2, circular=True)
    [(9, 13), (1, 5), (3, 7), (5, 9), (7, 11)]
    """
    if length <= width:
        return [(0, length)]
    count = -(-length // stride) if circular else 1 - (width - length) // stride
    starts = []
    for i in range(count // 2):
        # rounded up, so that the step to the window in the middle is not the largest
        if circular:
            starts.append(-((count * width - (2 * i + 1) * length) // (2 * count)))
        else:
            starts.append(-(-i * (length - width) // (count - 1)))
    middle = [-((width - length) // 2)] * (count % 2)
    spans = [(start, start + width) for start in starts]
    spans += [(start, length - start) for start in middle]
    spans += [(length - width - start, length - start) for start in reversed(starts)]
    return [(start % length, start % length + end - start) for start, end in spans]
