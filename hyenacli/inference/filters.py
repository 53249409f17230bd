"""How far back the long filters of a model reach.

C channel, L lag in bases; the tap at lag 0 is the current base.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hyenacli.evaluation.line_plots import write_length_chart
from hyenacli.writers.columns import Column
from hyenacli.writers.tables import open_table
from hyenadna import HyenaDNA
from hyenadna.engine.convolution import filter_features, filter_taps

Floats = NDArray[np.float64]
# Taps computed at once.
_TAPS = 1 << 24
COLUMNS = [
    *(Column("layer", int), Column("channel", int), Column("half_mass", int), Column("mass_99", int)),
    *(Column("decay_length", float), Column("mass", float), Column("skip", float)),
]


@dataclass(frozen=True)
class LayerFilters:
    """The filters of one layer.

    Attributes:
        layer: its number, from 1.
        half_mass_C: bases, the current one included, that have half of the sum of |h|.
        mass_99_C: bases that have 99 % of it.
        decay_length_C: bases in which the decay window falls to 1 / e, its floor left out.
        mass_C: sum of |h| over the context.
        skip_C: weight of the current base beside the filter.
        share_L: share of the sum of |h| within the first L + 1 bases, mean over the channels.
    """

    layer: int
    half_mass_C: NDArray[np.int64]
    mass_99_C: NDArray[np.int64]
    decay_length_C: Floats
    mass_C: Floats
    skip_C: Floats
    share_L: Floats


@torch.no_grad()
def layer_filters(model: HyenaDNA, numbers: Iterable[int] | None = None) -> Iterator[LayerFilters]:
    """Measure filters over the model's context, layer by layer.

    Args:
        model: the model.
        numbers: of the layers, from 1; None for all.
    """
    length, width = model.config.context, model.config.d_model
    blocks = dict(enumerate(model.backbone.blocks(), start=1))
    for number in blocks if numbers is None else numbers:
        layer = blocks[number].mixer.filter_fn
        features_LH = filter_features(layer, length)
        size = max(1, _TAPS // length)
        parts, share_L = [], np.zeros(length)
        for first in range(0, width, size):
            taps_CL = filter_taps(layer, features_LH, slice(first, first + size))
            summed_CL = taps_CL.abs().cpu().double().cumsum(1).numpy()
            mass_C = summed_CL[:, -1].copy()
            summed_CL /= np.maximum(mass_C, np.finfo(np.float64).tiny)[:, None]
            reach = [(summed_CL < share).sum(axis=1) + 1 for share in (0.5, 0.99)]
            parts.append((*reach, mass_C))
            share_L += summed_CL.sum(axis=0) / width
        half_C, most_C, mass_C = (np.concatenate(values) for values in zip(*parts, strict=True))
        # the window is exp(-t rate), t running from 0 to 1 over the longest input
        rate_C = layer.modulation.deltas[0, 0].abs().cpu().double().numpy()
        step = float(layer.pos_emb.t[0, 1, 0])
        decay_C = 1 / (rate_C * step)
        skip_C = layer.bias.cpu().double().numpy()
        yield LayerFilters(number, half_C, most_C, decay_C, mass_C, skip_C, share_L)


def drawn_layers(model: HyenaDNA) -> list[int]:
    """Return the numbers of the layers that pictures show: the first, the middle and the last."""
    count = model.config.n_layer
    return sorted({1, count // 2 + 1, count})


def power_lags(longest: int) -> list[int]:
    """Return the distances that pictures show: powers of two, and the longest."""
    return sorted({2**i for i in range(longest.bit_length())} | {longest})


def filter_lines(layers: Iterable[LayerFilters], lags: list[int]) -> dict[str, list[float]]:
    """Compute the share of filters within each distance, of what lies within the last, by the layers."""
    return {
        f"filters of layer {layer.layer}": (
            layer.share_L[np.array(lags) - 1] / layer.share_L[lags[-1] - 1]
        ).tolist()
        for layer in layers
    }


def write_filters(model: HyenaDNA, target: Path | None, plot: Path | None) -> list[tuple[object, ...]]:
    """Write a row per filter, and a picture of the first, the middle and the last layer.

    Args:
        model: the model.
        target: a table; `-` for stdout; None for none.
        plot: an SVG, or None.

    Returns:
        For each layer its number, and the median and the longest of both lengths over the channels.

    Raises:
        UserError: as `open_table`.
    """
    layers = list(layer_filters(model))
    if target is not None:
        with open_table(target, None, COLUMNS, {}) as table:
            for layer in layers:
                table.write(_rows(layer))
    if plot is not None:
        lags = power_lags(model.config.context)
        lines = filter_lines([layers[number - 1] for number in drawn_layers(model)], lags)
        write_length_chart(
            plot, lags, lines, x_label="bases back", y_label="share of |filter|, mean of channels"
        )
    return [
        (
            layer.layer,
            *(int(f(values)) for values in (layer.half_mass_C, layer.mass_99_C) for f in (np.median, np.max)),
        )
        for layer in layers
    ]


def _rows(layer: LayerFilters) -> dict[str, object]:
    count = len(layer.mass_C)
    return {
        "layer": [layer.layer] * count,
        "channel": list(range(count)),
        "half_mass": layer.half_mass_C.tolist(),
        "mass_99": layer.mass_99_C.tolist(),
        "decay_length": layer.decay_length_C,
        "mass": layer.mass_C,
        "skip": layer.skip_C,
    }
