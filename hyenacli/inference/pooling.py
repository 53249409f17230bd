"""From the states of positions to the vectors of a region: which positions, and what is made of them.

K layers, D width, n positions of one window, N rows of a region.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.floating[Any]]
FINAL = -1


@dataclass(frozen=True)
class _Rule:
    """A reduction that does not care how the positions are spread over windows."""

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
    """What becomes of a region's positions.

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
        """Positions pooled of a region of `length` bases, 0-based half-open in reading direction.

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
        """What a window gives of the states (n, K, D) taken from it: (1, K, D), or (n, K, D) with none."""
        return _RULES[_RULE_OF[self.kind]].reduce(states_nKD)

    def combine(self, parts: Sequence[Floats], taken: int) -> Floats:
        """The vectors (N, K, D) of a region from its reduced windows, `taken` positions in all."""
        rule = _RULE_OF[self.kind]
        joined_nKD = _RULES[rule].combine(np.concatenate(parts).astype(np.float64))
        return joined_nKD / taken if rule == "sum" else joined_nKD

    @property
    def per_base(self) -> bool:
        """Whether every base is a row."""
        return self.kind == "none"


def parse_pool(text: str) -> Pooling:
    """The pooling called mean, last, max, none or center:N.

    Raises:
        UsageError: another word, or N is no whole number above 0.

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
    """The layer -1 (final norm) or K (after block K, 1-based); None for all.

    Raises:
        UsageError: anything else.
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
    """The layers read of a model with `n_layer` blocks; all are the blocks in order, then the final norm.

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
