"""The long convolution in blocks of positions and groups of channels, with a transformed filter.

C channel, B sequence, L position, N block, P blocks, F = N + 1 frequencies of a transform of 2 N points.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .tiling import Tiling

# Time per sample of a real transform of m * 2^k points against one of 2^k points (measured, 2^11 to 2^17).
_RELATIVE_COST = {1: 1.0, 3: 1.12, 5: 1.15, 9: 1.12, 15: 1.25}


def fft_length(at_least: int) -> int:
    """Return the even number of points, at least so many, whose real transform is the cheapest.

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
    """Division of a sequence for convolution: `parts` blocks of `block` positions, transforms twice as long.

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
    """Choose the partition for sequences of `length` positions."""
    if length <= 2 * tiling.block:
        return Partition(fft_length(2 * length - 1) // 2, 1)
    parts = -(-length // tiling.block)
    return Partition(fft_length(2 * -(-length // parts)) // 2, parts)


class Workspace:
    """Memory that is used again and again.

    Fresh memory of more than a few megabytes comes from the operating system page by page, which takes longer
    than filling it with results.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype], Tensor] = {}

    def empty(self, name: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a tensor with any content on the device of `like`; it overwrites the last of that name."""
        n, key = math.prod(shape), (name, dtype)
        if key not in self._buffers or self._buffers[key].numel() < n:
            self._buffers.pop(key, None)
            self._buffers[key] = torch.empty(n, dtype=dtype, device=like.device)
        return self._buffers[key][:n].view(shape)


def filter_block_spectrum(k_CN: Tensor, skip_C: Tensor | None, part: Partition, out_CF: Tensor) -> None:
    """Compute one transformed filter block, with 1 / n_fft folded in.

    Args:
        k_CN: the taps of the block, `part.block` or fewer; missing ones are zero.
        skip_C: weight of the untouched input, which goes into tap 0: of the first block, None for the others.
        part: the partition.
        out_CF: the spectrum.
    """
    if skip_C is not None:
        k_CN = torch.cat([k_CN[:, :1] + skip_C[:, None], k_CN[:, 1:]], dim=1)
    if k_CN.shape[1] == 0:
        out_CF.zero_()
    else:
        torch.fft.rfft(k_CN, n=part.n_fft, norm="forward", out=out_CF)


def convolve_(z_CBL: Tensor, spectrum_PCF: Tensor, part: Partition, work: Workspace | None = None) -> None:
    """Replace every sequence by its causal convolution with its channel's filter, skip term included.

    Equals `fftconv.fft_conv`. The arithmetic is in the spectrum's precision, whatever z's is.

    Args:
        z_CBL: input and output.
        spectrum_PCF: of `filter_block_spectrum`, for each block.
        part: the partition it was made for; at least L positions.
        work: memory to work in.
    """
    (c, b, length), work = z_CBL.shape, work or Workspace()
    n, parts = part.block, -(-length // part.block)
    real, complex_ = spectrum_PCF.real.dtype, spectrum_PCF.dtype
    x_PCBF = work.empty("spectrum", (parts, c, b, n + 1), z_CBL, complex_)
    padded_CBn = work.empty("padded", (c, b, 2 * n), z_CBL, real)
    for j in range(parts):
        # the block before and this one: of the circular convolution the second half is right
        padded_CBn[..., :n] = padded_CBn[..., n:] if j else 0
        block_CBN = z_CBL[..., j * n : (j + 1) * n]
        padded_CBn[..., n : n + block_CBN.shape[-1]] = block_CBN
        padded_CBn[..., n + block_CBN.shape[-1] :] = 0
        torch.fft.rfft(padded_CBn, out=x_PCBF[j])
    for j in reversed(range(parts)):
        # block j is needed for no earlier output, so that its sum can take its place
        y_CBF = x_PCBF[j]
        y_CBF *= spectrum_PCF[0, :, None]
        for i in range(j):
            y_CBF.addcmul_(x_PCBF[i], spectrum_PCF[j - i, :, None])
        torch.fft.irfft(y_CBF, n=2 * n, norm="forward", out=padded_CBn)
        block_CBN = z_CBL[..., j * n : (j + 1) * n]
        block_CBN.copy_(padded_CBn[..., n : n + block_CBN.shape[-1]])


def complex_dtype(real: torch.dtype) -> torch.dtype:
    """Return the complex type of a real one."""
    return torch.complex128 if real == torch.float64 else torch.complex64
