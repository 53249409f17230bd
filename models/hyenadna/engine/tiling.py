"""Sizes of the pieces of a pass: large enough to keep the device busy, small enough to stay in its cache."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

_CPU_TOKENS = 1 << 18
"""Numbers (tokens x width) in a slice of tokens on a CPU: the MLP's inner layer of it is 4 MiB."""
_GPU_TOKENS = 1 << 26
_CPU_SAMPLES = 1 << 20
"""Samples (channels x sequences x positions) convolved at once on a CPU, before zero padding."""
_GPU_SAMPLES = 1 << 27
_CPU_TRAINING_SAMPLES = 1 << 18
_CPU_ROWS = 1 << 20
"""Numbers (tokens x width) of the sequences that go through a mixer together in training on a CPU."""
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
    def positions(self) -> slice:
        """The positions."""
        return slice(self.start, self.end)


@dataclass(frozen=True)
class Tiling:
    """Sizes of the pieces a pass is made in.

    Attributes:
        tokens: tokens in a slice that goes through projections and MLP.
        samples: numbers convolved at once.
        block: positions per block of a partitioned convolution; longer inputs are partitioned.
        min_channels: fewest channels convolved at once.
        row_tokens: tokens of the sequences that go through a mixer together in training.
        feature_rows: positions that go through the filter MLP at once in training.
        loss_tokens: tokens whose logits exist at once in training.
        kept_bytes: what blocks may keep in training so that the backward pass need not compute it again.
    """

    tokens: int
    samples: int
    block: int
    min_channels: int = 16
    row_tokens: int = 0
    feature_rows: int = 1 << 14
    loss_tokens: int = 1 << 14
    kept_bytes: int = 1 << 29

    def tiles(self, batch: int, length: int) -> Iterator[Tile]:
        """Yield tiles of at most `tokens` tokens that cover (batch, length) in order.

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

    def row_groups(self, batch: int, length: int) -> Iterator[slice]:
        """Yield slices of whole sequences with about `row_tokens` tokens each."""
        yield from slices(batch, max(1, self.row_tokens // length))

    def channel_groups(self, channels: int, samples_per_channel: int) -> Iterator[slice]:
        """Yield slices of channels with about `samples` samples each, and at least `min_channels` channels.

        A transform library needs several rows per call to use several cores.
        """
        size = max(self.min_channels, self.samples // samples_per_channel)
        n_groups = -(-channels // size)
        yield from slices(channels, -(-channels // n_groups))


def tiling(d_model: int, device: torch.device) -> Tiling:
    """Return the sizes for a model of this width on this device."""
    if device.type == "cpu":
        return Tiling(max(64, _CPU_TOKENS // d_model), _CPU_SAMPLES, _CPU_BLOCK)
    return Tiling(max(64, _GPU_TOKENS // d_model), _GPU_SAMPLES, 1 << 62)


def training_tiling(d_model: int, device: torch.device) -> Tiling:
    """Return the sizes for training, where every group of channels reads all tokens of its sequences."""
    sizes = tiling(d_model, device)
    if device.type == "cpu":
        return replace(sizes, samples=_CPU_TRAINING_SAMPLES, row_tokens=_CPU_ROWS // d_model)
    return replace(sizes, row_tokens=sizes.tokens)


def slices(length: int, size: int) -> list[slice]:
    """Return slices of at most `size` that cover `length` in order."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]
