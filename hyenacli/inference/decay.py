"""How what a substitution changes falls with the distance, beside how far the filters of the model reach.

L bases of a map, d distance.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.console import log
from hyenacli.evaluation.line_plots import write_length_chart
from hyenacli.inference.filters import drawn_layers, filter_lines, layer_filters, power_lags
from hyenacli.writers.columns import Column
from hyenacli.writers.tables import open_table
from hyenadna import HyenaDNA

COLUMNS = [Column("distance", int), *(Column(name, float) for name in ("after", "before", "share"))]


class Decay:
    """Sums of maps by distance."""

    def __init__(self) -> None:
        self._sums_2d: NDArray[Any] = np.zeros((2, 1))
        self._pairs_2d: NDArray[Any] = np.zeros((2, 1), np.int64)

    def add(self, values_LL: NDArray[np.floating[Any]]) -> None:
        """Add a map; NaN count as nothing."""
        more = max(0, len(values_LL) - self._sums_2d.shape[1])
        self._sums_2d, self._pairs_2d = (
            np.pad(array, ((0, 0), (0, more))) for array in (self._sums_2d, self._pairs_2d)
        )
        for side, matrix_LL in enumerate((values_LL, values_LL.T)):
            for distance in range(1, len(matrix_LL)):
                diagonal = np.diagonal(matrix_LL, distance)
                self._sums_2d[side, distance] += np.nansum(diagonal, dtype=np.float64)
                self._pairs_2d[side, distance] += np.isfinite(diagonal).sum()

    def means(self) -> NDArray[np.float64]:
        """Compute the mean change (2, d) of bases after and before a substitution, from distance 1 on."""
        with np.errstate(invalid="ignore"):
            means: NDArray[np.float64] = self._sums_2d[:, 1:] / self._pairs_2d[:, 1:]
        return means

    def shares(self) -> NDArray[np.float64]:
        """Compute the share (d) of the change that lies within each distance, both sides together."""
        totals_d = np.nansum(self.means(), axis=0).cumsum()
        return totals_d / totals_d[-1] if len(totals_d) and totals_d[-1] else np.full(len(totals_d), np.nan)


def write_decay(decay: Decay, model: HyenaDNA, target: Path | None, plot: Path | None) -> None:
    """Write a row per distance, and a picture beside the filters of the first, middle and last layer.

    Shares of both are of what lies within the longest distance of a map.

    Args:
        decay: of maps.
        model: that they are of.
        target: a table; None for none.
        plot: an SVG; None for none.

    Raises:
        UserError: as `open_table`.
    """
    means_2d, share_d = decay.means(), decay.shares()
    longest = len(share_d)
    if target is not None:
        rows = {"distance": list(range(1, longest + 1)), "after": means_2d[0], "before": means_2d[1]}
        with open_table(target, None, COLUMNS, {}) as table:
            table.write(rows | {"share": share_d})
    if not longest or np.isnan(share_d[-1]):
        log.warning("no map has a change, and so none falls with the distance")
        return
    log.info("half of the change lies within %d of %d bases", np.searchsorted(share_d, 0.5) + 1, longest)
    if plot is None:
        return
    lags = power_lags(longest)
    lines = {"dependency maps": [float(share_d[lag - 1]) for lag in lags]}
    lines |= filter_lines(layer_filters(model, drawn_layers(model)), lags)
    write_length_chart(plot, lags, lines, x_label="distance in bases", y_label="share within it")
