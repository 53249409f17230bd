"""Which examples each step reads, epoch by epoch: a function of the seed, whoever asks.

N examples, their places 0 to N - 1.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hyenacli.training.curriculum import Stage

Places = NDArray[np.int64]
# Examples are sorted by length within so many batches: enough that those of a batch are of like length.
_BATCHES_SORTED = 32
_ORDER, _SHUFFLE, _MIRROR = range(3)


class Epochs:
    """The steps of a number of epochs, each a shuffled pass over all examples in batches of like length.

    Example number n of the stream is the (n mod N)-th of epoch n // N.

    Args:
        lengths: tokens of every example.
        batch_size: examples of a step; an epoch's last may have fewer.
        epochs: how many.
        seed: of the order, and of which examples are read as their reverse complement.
        rc_augment: read each example of an epoch as its reverse complement with probability 1/2.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, epochs: int, seed: int, *, rc_augment: bool
    ) -> None:
        self._lengths, self._batch_size, self._seed = np.array(lengths, np.int64), batch_size, seed
        self._rc_augment = rc_augment
        self.per_epoch = -(-len(lengths) // batch_size)
        self.steps = epochs * self.per_epoch
        self._order = lru_cache(maxsize=2)(self._make_order)

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return int(self._lengths.max())

    @property
    def most_at_once(self) -> int:
        """Examples of a whole step."""
        return min(self._batch_size, len(self._lengths))

    def at(self, step: int) -> Stage:
        """The examples of a 0-based step, as their numbers, and how long the longest of them is."""
        epoch, batch = divmod(step, self.per_epoch)
        places, starts, _ = self._order(epoch)
        first, end = int(starts[batch]), int(starts[batch + 1])
        longest = int(self._lengths[places[first:end]].max())
        return Stage(longest, end - first, step, 1, epoch * len(self._lengths) + first)

    def draw(self, numbers: range) -> tuple[Places, NDArray[np.bool_]]:
        """The places of examples by their numbers, and which are read as their reverse complement."""
        drawn = [divmod(number, len(self._lengths)) for number in numbers]
        places = [self._order(epoch)[0][i] for epoch, i in drawn]
        mirrored = [self._order(epoch)[2][i] for epoch, i in drawn]
        return np.array(places, np.int64), np.array(mirrored, np.bool_)

    def _make_order(self, epoch: int) -> tuple[Places, Places, NDArray[np.bool_]]:
        """The examples of an epoch in order, where each batch begins and the last ends, and the mirrored."""
        n, size = len(self._lengths), self._batch_size
        shuffled = np.argsort(self._words(epoch, _ORDER, n), kind="stable")
        batches: list[Places] = []
        for first in range(0, n, size * _BATCHES_SORTED):
            chunk = shuffled[first : first + size * _BATCHES_SORTED]
            chunk = chunk[np.argsort(self._lengths[chunk], kind="stable")]
            batches += [chunk[start : start + size] for start in range(0, len(chunk), size)]
        turns = np.argsort(self._words(epoch, _SHUFFLE, len(batches)), kind="stable")
        ordered = [batches[turn] for turn in turns.tolist()]
        starts = np.cumsum([0, *map(len, ordered)])
        coins = self._words(epoch, _MIRROR, n) & np.uint64(1)
        return np.concatenate(ordered), starts, self._rc_augment & (coins == 1)

    def _words(self, epoch: int, purpose: int, count: int) -> NDArray[np.uint64]:
        # counter-based, and documented to be the same in every version of NumPy
        return np.random.Philox(key=self._seed, counter=[0, 0, purpose, epoch]).random_raw(count)
