"""The long convolution in blocks of positions and groups of channels, and the spectra of its filters.

A filter does not depend on the input, so that a model that is only read needs each of them once per length.

C channel, B sequence, L position, N block, P blocks, F = N + 1 frequencies of a transform of 2 N points, E
positional feature, H filter width.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from .tiling import Tiling, slices
from .workspace import Workspace

if TYPE_CHECKING:
    from hyenadna.operator import HyenaFilter

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

    Equals `operator.fft_conv`. The arithmetic is in the spectrum's precision, whatever z's is.

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


_DEFAULT_BYTES = 1 << 30
_FEATURE_ROWS = 1 << 16
_CHANNELS = 16


def filter_features(layer: "HyenaFilter", length: int, rows: int = _FEATURE_ROWS) -> Tensor:
    """Compute the filter MLP before its last linear layer, (L, H), on slices of so many positions."""
    z_LE = layer.pos_emb.z[0, :length]
    mlp = nn.Sequential(*list(layer.implicit_filter)[:-1])
    if length <= rows:
        return mlp(z_LE)  # type: ignore[no-any-return]
    features_LH = z_LE.new_empty(length, layer.last_weight.shape[1])
    for positions in slices(length, rows):
        features_LH[positions] = mlp(z_LE[positions])
    return features_LH


def filter_window(layer: "HyenaFilter", channels: slice, start: int, end: int) -> Tensor:
    """Compute the decay window (C, end - start) of some channels at these positions, floor included."""
    modulation = layer.modulation
    rate_C1 = modulation.deltas[0, 0, channels, None].abs()
    return torch.exp(-layer.pos_emb.t[0, start:end, 0] * rate_C1).add_(modulation.shift)


def filter_taps(layer: "HyenaFilter", features_LH: Tensor, channels: slice, start: int = 0) -> Tensor:
    """Compute the taps (C, L) of some channels of `HyenaFilter.forward`, from position `start` on."""
    k_CL = layer.last_weight[channels] @ features_LH.T
    return k_CL.mul_(filter_window(layer, channels, start, start + len(features_LH)))


class Spectra:
    """The spectra of one layer for one partition, a group of channels at a time.

    Args:
        layer: the filter.
        part: the partition; taps beyond the model's context are zero.
        cached_PDF: the spectra of all channels, if they are kept.
    """

    def __init__(self, layer: "HyenaFilter", part: Partition, cached_PDF: Tensor | None = None):
        self._layer, self._part, self._cached_PDF = layer, part, cached_PDF

    def groups(
        self, channels: Sequence[slice], work: Workspace | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """Yield each of these groups with its spectra (P, C, F), in `work`, valid until the next."""
        if self._cached_PDF is not None:
            yield from ((group, self._cached_PDF[:, group]) for group in channels)
            return
        work = work or Workspace()
        features_LH = filter_features(self._layer, min(self._part.span, self._layer.pos_emb.z.shape[1]))
        for group in channels:
            yield group, self._make(features_LH, group, work)

    def all_channels(self) -> Tensor:
        """Compute the spectra (P, D, F) of every channel, a group at a time: all taps are as large again."""
        skip_D = self._layer.bias
        shape = (self._part.parts, len(skip_D), self._part.block + 1)
        out_PDF = skip_D.new_empty(shape, dtype=complex_dtype(skip_D.dtype))
        for group, spectra_PCF in self.groups(list(slices(len(skip_D), _CHANNELS))):
            out_PDF[:, group] = spectra_PCF
        return out_PDF

    def _make(self, features_LH: Tensor, group: slice, work: Workspace) -> Tensor:
        part, skip_C = self._part, self._layer.bias[group]
        shape = (part.parts, len(skip_C), part.block + 1)
        out_PCF = work.empty("filter", shape, skip_C, complex_dtype(skip_C.dtype))
        for j in range(part.parts):
            start = j * part.block
            k_CN = filter_taps(self._layer, features_LH[start : start + part.block], group, start)
            filter_block_spectrum(k_CN, skip_C if j == 0 else None, part, out_PCF[j])
        return out_PCF


class SpectrumCache:
    """The spectra of a model's layers for the lengths last used, within a bound on memory.

    Lengths are rounded up to what shares a transform, so that inputs of many lengths share few entries. A
    length whose spectra would not fit is not kept: they are then made anew, a group of channels at a time.
    An entry is used only while the filter's tensors are the ones it was made from, unchanged in place;
    tensors changed through `.data` behind torch's back need `drop`.

    Args:
        max_bytes: most memory for all entries.
    """

    def __init__(self, max_bytes: int = _DEFAULT_BYTES):
        self.max_bytes = max_bytes
        self._kept: OrderedDict[Partition, dict[int, tuple[object, Tensor]]] = OrderedDict()

    def spectra(self, layers: Sequence["HyenaFilter"], index: int, part: Partition) -> Spectra:
        """Return the spectra of layer `index` of `layers`."""
        layer = layers[index]
        if not self._make_room(layers, part):
            return Spectra(layer, part)
        kept = self._kept[part]
        state = _state(layer)
        if index not in kept or kept[index][0] != state:
            kept[index] = state, Spectra(layer, part).all_channels()
        return Spectra(layer, part, kept[index][1])

    @property
    def n_bytes(self) -> int:
        """Memory in use."""
        return sum(t.numel() * t.itemsize for kept in self._kept.values() for _, t in kept.values())

    def drop(self) -> None:
        """Drop all spectra and free their memory."""
        self._kept.clear()

    def _make_room(self, layers: Sequence["HyenaFilter"], part: Partition) -> bool:
        """Make room for the spectra of `part`, dropping the least recently used; return whether they fit."""
        need = sum(_n_bytes(layer, part) for layer in layers)
        if need > self.max_bytes:
            return False
        self._kept.setdefault(part, {})
        self._kept.move_to_end(part)
        while sum(_n_bytes(layer, p) for p in self._kept for layer in layers) > self.max_bytes:
            self._kept.popitem(last=False)
        return True

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Return an empty cache: a copy of a model makes its own spectra."""
        return type(self)(self.max_bytes)

    def __reduce__(self) -> tuple[type[Self], tuple[int]]:
        return type(self), (self.max_bytes,)


def _n_bytes(layer: "HyenaFilter", part: Partition) -> int:
    complex_size = 2 * layer.bias.element_size()
    return len(layer.bias) * part.parts * (part.block + 1) * complex_size


def _state(layer: "HyenaFilter") -> object:
    """Return what identifies a filter: its tensors, and how often each was changed in place."""
    tensors = (*layer.parameters(), layer.pos_emb.z, layer.pos_emb.t, layer.modulation.deltas)
    return (
        layer.modulation.shift,
        *((id(t), t.data_ptr(), t.dtype, 0 if t.is_inference() else t._version) for t in tensors),  # noqa: SLF001
    )
