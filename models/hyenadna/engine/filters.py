"""Filters and their spectra: made a group of channels at a time, kept where that pays.

A filter does not depend on the input, so that a model that is only read needs each of them once per length.

C channel, L position, E positional feature, H filter width, P blocks, F frequency.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from .convolution import Partition, Workspace, complex_dtype, filter_block_spectrum
from .tiling import slices

if TYPE_CHECKING:
    from hyenadna.filter import HyenaFilter

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
