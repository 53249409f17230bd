"""How much is worked on at once: enough to keep the device busy, little enough to stay in its cache."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

_CPU_TOKENS = 1 << 18
"""Numbers (tokens x width) in a slice of tokens on a CPU: the MLP's inner layer of it is 4 MiB."""
_GPU_TOKENS = 1 << 26
_CPU_SAMPLES = 1 << 20
"""Samples (channels x sequences x positions) convolved at once on a CPU, before zero padding."""
_GPU_SAMPLES = 1 << 27
_CPU_BLOCK = 1 << 16
"""Positions in a block of a partitioned convolution: transforms twice as long still fit a core's cache."""


@dataclass(frozen=True)
class Tile:
    """Some sequences, and some of their positions: rows `first_row:last_row`, positions `start:end`."""

    first_row: int
    last_row: int
    start: int
    end: int

    @property
    def rows(self) -> slice:
        """The sequences."""
        return slice(self.first_row, self.last_row)

    @property
    def places(self) -> slice:
        """The positions."""
        return slice(self.start, self.end)


@dataclass(frozen=True)
class Tiling:
    """Sizes of the pieces a pass is made in.

    Attributes:
        tokens: tokens in a slice that goes through projections and MLP.
        samples: numbers convolved at once.
        block: positions per block of a partitioned convolution; longer inputs are partitioned.
    """

    tokens: int
    samples: int
    block: int

    def tiles(self, batch: int, length: int) -> Iterator[Tile]:
        """Tiles of at most `tokens` tokens that cover (batch, length) in order.

        Whole sequences are grouped where they are short; a long one is cut by itself.
        """
        if length <= self.tokens:
            rows = self.tokens // length
            for row in range(0, batch, rows):
                yield Tile(row, min(row + rows, batch), 0, length)
            return
        for row in range(batch):
            for start in range(0, length, self.tokens):
                yield Tile(row, row + 1, start, min(start + self.tokens, length))

    def channel_groups(self, channels: int, samples_per_channel: int) -> Iterator[slice]:
        """Slices of channels with about `samples` samples each.

        Never fewer than four channels where there are four: a transform library needs several rows per call
        to use several cores.
        """
        size = max(4, self.samples // samples_per_channel)
        n_groups = -(-channels // size)
        even = -(-channels // n_groups)
        for first in range(0, channels, even):
            yield slice(first, min(first + even, channels))


def tiling(d_model: int, device: torch.device) -> Tiling:
    """The sizes for a model of this width on this device."""
    if device.type == "cpu":
        return Tiling(max(64, _CPU_TOKENS // d_model), _CPU_SAMPLES, _CPU_BLOCK)
    return Tiling(max(64, _GPU_TOKENS // d_model), _GPU_SAMPLES, 1 << 62)
