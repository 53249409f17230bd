"""Pictures of dependency maps.

L bases of a region.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.evaluation.figures import STYLE
from hyenacli.writers.atomic import atomic_path

_MOST_LETTERS = 150
# Colours end at this quantile of what is not on the diagonal.
_QUANTILE = 0.999


def draw_map(
    path: Path, values_LL: NDArray[np.floating[Any]], sequence: str, *, start: int, title: str, measure: str
) -> None:
    """Draw a map: rows are substituted bases, columns those whose prediction changes.

    The axes have letters up to 150 bases, and 1-based positions above that. Colours end at the 99.9 %
    quantile of the values off the diagonal.

    Args:
        path: SVG or PNG, by its suffix.
        values_LL: the map; NaN has no colour.
        sequence: its bases.
        start: position of the first base, 0-based.
        title: above the picture.
        measure: what the colours stand for.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    length = len(sequence)
    others = values_LL[~np.eye(length, dtype=bool)]
    finite = others[np.isfinite(others)]
    limit = float(np.quantile(finite, _QUANTILE)) if finite.size else 0.0
    letters = length <= _MOST_LETTERS
    side = min(15.0, max(4.5, 0.105 * length)) if letters else 7.5
    with rc_context(STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(side + 1.3, side + 0.6), layout="constrained")
        axes = figure.subplots()
        edges = (start + 0.5, start + length + 0.5)
        image = axes.imshow(
            values_LL,
            cmap="magma_r",
            vmin=0,
            vmax=limit or 1.0,
            interpolation="nearest",
            extent=(*edges, *edges[::-1]),
        )
        if letters:
            ticks = range(start + 1, start + length + 1)
            size: Any = {"fontsize": min(9.0, 72 * side * 0.8 / max(length, 1)), "fontfamily": "monospace"}
            axes.set_xticks(ticks, list(sequence), **size)
            axes.set_yticks(ticks, list(sequence), **size)
            axes.tick_params(length=0, pad=1)
        else:
            axes.ticklabel_format(useOffset=False, style="plain")
        axes.set(title=title, xlabel="base whose prediction changes", ylabel="base that is substituted")
        figure.colorbar(image, ax=axes, shrink=0.7, label=f"largest change of {measure}")
        kind = path.suffix[1:]
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        with atomic_path(path) as draft:
            figure.savefig(draft, format=kind, dpi=110, metadata=metadata)
