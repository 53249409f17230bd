"""The long convolution in blocks of positions and groups of channels, with a transformed filter.

C channel, B sequence, L position, N block, P blocks, F = N + 1 frequencies of a transform of 2 N points.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .tiling import Tiling

# Time per sample of a real transform of m * 2^k points against one of 2^k points (measured, 2^11 to 2^17).
_RELATIVE_COST = {1: 1.0, 3: 1.12, 5: 1.15, 9: 1.12, 15: 1.25}


def fft_length(at_least: int) -> int:
    """The even number of points, at least so many, whose real transform is the cheapest.

    Published lengths are a context plus two, and twice that has large prime factors: a transform of such a
    length costs several times one of the lengths chosen here.

    >>> fft_length(2 * 1026 - 1), fft_length(2 * 32_770 - 1), fft_length(1)
    (2304, 73728, 2)
    """
    best, best_cost = 0, float("inf")
    for odd, cost in _RELATIVE_COST.items():
        n = 2 * odd
        while n < at_least:
            n *= 2
        if n * cost < best_cost:
            best, best_cost = n, n * cost
    return best


@dataclass(frozen=True)
class Partition:
    """How a sequence is cut for convolution: `parts` blocks of `block` positions, transforms twice as long.

    One part is the ordinary zero-padded convolution. Filter and input are cut alike; output block j is the
    sum over i of input block i with filter block j - i (overlap-save). Beside being faster than one huge
    transform, which falls out of every cache, it is more accurate.
    """

    block: int
    parts: int

    @property
    def span(self) -> int:
        """Positions covered, at least the length it was made for."""
        return self.block * self.parts

    @property
    def n_fft(self) -> int:
        """Points of one transform."""
        return 2 * self.block


def partition(length: int, tiling: Tiling) -> Partition:
    """The partition for sequences of `length` positions."""
    if length <= 2 * tiling.block:
        return Partition(fft_length(2 * length - 1) // 2, 1)
    return Partition(tiling.block, -(-length // tiling.block))


def filter_spectrum(k_CL: Tensor, skip_C: Tensor, part: Partition) -> Tensor:
    """The transformed filter blocks (C, P, F), with the skip term in tap 0 and 1 / n_fft folded in.

    Args:
        k_CL: taps; no more than `part.span` are used, missing ones are zero.
        skip_C: weight of the untouched input.
        part: the partition.
    """
    taps = min(k_CL.shape[1], part.span)
    k_CS = k_CL.new_zeros(k_CL.shape[0], part.span)
    k_CS[:, :taps] = k_CL[:, :taps]
    k_CS[:, 0] += skip_C
    blocks_CPN = k_CS.view(-1, part.parts, part.block)
    spectrum_CPF: Tensor = torch.fft.rfft(blocks_CPN, n=part.n_fft, norm="forward")
    return spectrum_CPF


def convolve_(z_CBL: Tensor, spectrum_CPF: Tensor, part: Partition) -> None:
    """Replace every sequence by its causal convolution with its channel's filter, skip term included.

    Equals `fftconv.fft_conv`. The arithmetic is in the spectrum's precision, whatever z's is.

    Args:
        z_CBL: input and output.
        spectrum_CPF: of `filter_spectrum`.
        part: the partition it was made for; at least L positions.
    """
    c, b, length = z_CBL.shape
    n, parts = part.block, -(-length // part.block)
    padded_CBS = torch.empty(c, b, (parts + 1) * n, dtype=spectrum_CPF.real.dtype, device=z_CBL.device)
    padded_CBS[..., :n] = 0
    padded_CBS[..., n : n + length] = z_CBL
    padded_CBS[..., n + length :] = 0
    x_CBPF = torch.fft.rfft(padded_CBS.unfold(-1, 2 * n, n))
    for j in reversed(range(parts)):
        # Block j is needed for no earlier output, so that its sum can take its place.
        y_CBF = x_CBPF[:, :, j]
        y_CBF *= spectrum_CPF[:, None, 0]
        for i in range(j):
            y_CBF.addcmul_(x_CBPF[:, :, i], spectrum_CPF[:, None, j - i])
    y_CBPN = torch.fft.irfft(x_CBPF, n=2 * n, norm="forward")[..., n:]
    for j in range(parts):
        here = z_CBL[..., j * n : (j + 1) * n]
        here.copy_(y_CBPN[:, :, j, : here.shape[-1]])
