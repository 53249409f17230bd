"""What all charts share: palette, style, and SVG text with a note under the pointer; drawn by matplotlib."""

import io
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

from hyenacli import console
from hyenacli.writers.atomic import atomic_path

# Any two of these, grey too, differ by a deltaE of 30 or more, also under protanopia and deuteranopia.
COLORS = ("#0072b2", "#d55e00", "#222222", "#5a10d0", "#773311", "#33cc77")
BLUE, RED, BLACK = COLORS[:3]
GREY = "#888888"

NO_DATA = "<p>No data yet.</p>"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hyena",
    "path.simplify_threshold": 0.4,
    "text.parse_math": False,
    "font.size": 10,
    "legend.fontsize": 9,
    "text.color": "#333333",
    "axes.labelcolor": "#333333",
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.edgecolor": "#999999",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
}
# Width and height in inches of a chart of lines: its text is legible on a telephone too.
WIDE = (4.8, 3.0)
# Wider figures are not made smaller on a telephone, but scroll; in inches.
_SCROLLED = 5.0


@dataclass(frozen=True)
class Note:
    """Text that appears when a rectangle of a plot is pointed at.

    Attributes:
        text: one or several lines.
        left: the edges of the rectangle in data units; what lies outside of the plot is cut off.
        right: as `left`.
        low: as `left`.
        high: as `left`.
    """

    text: str
    left: float
    right: float
    low: float = -math.inf
    high: float = math.inf


def strips(xs: Sequence[float], texts: Iterable[str], *, logarithmic: bool = False) -> Iterator[Note]:
    """Yield a note for each upright strip of a plot, from halfway before a value to halfway after it.

    Args:
        xs: values in ascending order.
        texts: of their strips.
        logarithmic: the axis is.
    """
    between = (math.sqrt(a * b) if logarithmic else (a + b) / 2 for a, b in pairwise(xs))
    edges = [-math.inf, *between, math.inf]
    for text, (left, right) in zip(texts, pairwise(edges), strict=True):
        yield Note(text, left, right)


Draw = Callable[[Any], Iterable[Note]]
"""Draws on matplotlib axes, and returns the notes of the plot."""


def inline_figure(draw: Draw, size: tuple[float, float], description: str) -> str:
    """Return a plot as an `<svg>` element for a page.

    Args:
        draw: see `Draw`.
        size: width and height in inches.
        description: what it shows, for those who cannot see it.
    """
    document = draw_svg(draw, size)
    # figures of a page would share these ids
    element = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", document[document.index("<svg") :])
    element = element.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1)
    return f'<div class="chart{" wide" * (size[0] > _SCROLLED)}">{element}</div>'


def write_figure(target: Path, draw: Draw, size: tuple[float, float]) -> None:
    """Write a plot as an SVG file, atomically."""
    with atomic_path(target) as path:
        path.write_text(draw_svg(draw, size), encoding="utf-8")
    console.log.info("wrote %s", target)


def draw_svg(draw: Draw, size: tuple[float, float]) -> str:
    """Return an SVG document of one plot, the same text for the same data; size in inches."""
    # the note that a font cache is being built, once per installation, concerns nobody
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots()
        notes = list(draw(axes))
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=metadata, transparent=False)
    # hundredths of a point are enough, and a list of fonts need not stand at every text
    text = re.sub(r"(\d\.\d\d)\d+(?=[^<>]*>)", r"\1", buffer.getvalue())
    text = re.sub(r" font-family: [^;]+;", "", text)
    text = text.replace("</style>", "text{font-family: 'DejaVu Sans', Verdana, Arial, sans-serif}</style>", 1)
    areas = "".join(_areas(axes, notes))
    return text.replace("</svg>", f'<g fill-opacity="0" pointer-events="all">{areas}</g></svg>')


def _areas(axes: Any, notes: Iterable[Note]) -> Iterator[str]:
    """Yield a rectangle with a title for each note, in points of the page."""
    (x_low, x_high), (y_low, y_high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    to_page = axes.transData - axes.figure.transFigure
    width, height = 72 * axes.figure.get_size_inches()
    for note in notes:
        corners = (
            (max(x_low, note.left), max(y_low, note.low)),
            (min(x_high, note.right), min(y_high, note.high)),
        )
        (x, y), (x_end, y_end) = to_page.transform(corners) * (width, -height) + (0, height)
        (x, x_end), (y, y_end) = sorted((x, x_end)), sorted((y, y_end))
        box = f'x="{x:.1f}" y="{y:.1f}" width="{x_end - x:.1f}" height="{y_end - y:.1f}"'
        yield f"<rect {box}><title>{escape(note.text)}</title></rect>"


def add_legend(axes: Any, title: str | None = None, **how: Any) -> None:
    """Put the names of lines below a plot, in two columns where they are short."""
    labels = axes.get_legend_handles_labels()[1]
    columns = 2 if len(labels) > 1 and max(map(len, labels)) <= 24 else 1
    loc = "outside lower left"
    axes.figure.legend(title=title, loc=loc, ncols=columns, alignment="left", borderaxespad=0.2, **how)


def short_number(value: float, _position: int = 0) -> str:
    """Return a tick label: 1500000 as 1.5M.

    >>> [short_number(v) for v in (0.0, 0.25, 2000.0, 1.5e6)]
    ['0', '0.25', '2k', '1.5M']
    """
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:.4g}"


def shortened(text: str, limit: int) -> str:
    """Return a text without its middle: names of strains often differ in their ends."""
    end = (limit - 1) // 2
    return text if len(text) <= limit else f"{text[: limit - 1 - end]}\u2026{text[-end:]}"
