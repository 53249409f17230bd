"""Figures of how good predictions are, as SVG text in the style of `svg`, whose STYLE they need.

Legend of shape suffixes: P items, C classes, K bins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import numpy.typing as npt

from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.calibration import BINS, Reliability
from hyenacli.evaluation.svg import WIDTH, ticks

# The first is for the model itself, grey for what it is set beside.
COLORS = ("#1f6fb4", "#c03d3e", "#2e8b57", "#8c5fa8", "#c98a1b", "#3aa6b9", "#d16ba5", "#7a6a4f")
GREY = "#888888"
MAX_CLASSES, MAX_POINTS, MAX_VERTICES = 30, 2_000, 300

_SIDE, _LEFT, _TOP, _BELOW = 360, 72, 16, 48
_CELLS, _WIDEST_CELL, _ROOMY, _CHARACTER = 480, 72, 44, 6.2


@dataclass(frozen=True)
class Ranked:
    """One line of a ROC or precision-recall chart.

    Attributes:
        label: its name in the legend.
        positive: which items (P,) are positive.
        scores: of the items (P,); higher is more positive.
        color: of the line; None takes the next of COLORS.
    """

    label: str
    positive: npt.ArrayLike
    scores: npt.ArrayLike
    color: str | None = None


def confusion_matrix(counts: npt.ArrayLike, labels: Sequence[str]) -> str:
    """Items by true class (rows) and predicted class (columns), shaded by their share of the row.

    Cells have the count and the share; those of more than ten classes have the share only, as a whole number
    of per cent, and show both when pointed at.

    Args:
        counts: (C, C); at most 30 classes are drawn.
        labels: names of the classes.
    """
    counts_CC = np.asarray(counts, dtype=np.float64)
    classes = len(labels)
    if classes > MAX_CLASSES:
        return f"<p>{classes} classes are more than a figure of {MAX_CLASSES} can show.</p>"
    cell = min(_WIDEST_CELL, max(18, _CELLS // classes))
    names = [_shortened(label, 18) for label in labels]
    left = 44 + round(max(map(len, names)) * _CHARACTER)
    upright = max(map(len, names)) * _CHARACTER <= cell
    top = 44 if upright else 44 + round(max(map(len, names)) * _CHARACTER * 0.75)
    side = cell * classes
    parts = [_head(top + side + 24)]
    parts.append(_text(left + side / 2, 14, "predicted", "middle"))
    parts.append(_turned(14, top + side / 2, "true"))
    for i, name in enumerate(names):
        middle = (i + 0.5) * cell
        parts.append(_text(left - 6, top + middle + 4, name, "end"))
        if upright:
            parts.append(_text(left + middle, top - 8, name, "middle"))
        else:
            parts.append(_turned(left + middle, top - 6, name, "start", -48))
    if cell < _ROOMY:
        parts.append(_text(left, top + side + 16, "numbers are % of the row", "start"))
    shares_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    parts.append('<g stroke="#e4e4e4" stroke-width="0.5">')
    for i, j in np.ndindex(classes, classes):
        about = f"{labels[i]} as {labels[j]}: {counts_CC[i, j]:,.0f}, {shares_CC[i, j]:.1%} of the row"
        parts.append(_shade((left + j * cell, top + i * cell), cell, float(shares_CC[i, j]), about))
    frame = f'x="{left}" y="{top}" width="{side}" height="{side}"'
    parts.append(f'</g><rect {frame} fill="none" stroke="#777" stroke-width="0.8"/>')
    for i, j in np.ndindex(classes, classes):
        center = (left + (j + 0.5) * cell, top + (i + 0.5) * cell)
        parts += _figures(center, cell, float(counts_CC[i, j]), float(shares_CC[i, j]))
    return "\n".join([*parts, "</svg>"])


def roc_chart(lines: Sequence[Ranked]) -> str:
    """True against false positive rate, the area of each line in the legend, and the diagonal of chance."""
    axes = _Axes((0.0, 1.0), (0.0, 1.0), "false positive rate", "true positive rate")
    legend, body = [], [axes.line([(0, 0), (1, 1)], GREY, dashed=True)]
    for color, line in _colored(lines):
        true_G, false_G = _running(line)
        if not (true_G[-1] and false_G[-1]):
            legend.append((f"{line.label}: one class only", color))
            continue
        x_G, y_G = np.append(0, false_G / false_G[-1]), np.append(0, true_G / true_G[-1])
        area = float(((y_G[1:] + y_G[:-1]) / 2 * np.diff(x_G)).sum())
        body.append(axes.line(_thinned(x_G, y_G), color))
        legend.append((f"{line.label}: {area:.3f}", color))
    return axes.chart([*body, *axes.legend("Area under the curve", legend)])


def pr_chart(lines: Sequence[Ranked]) -> str:
    """Precision against recall, with the average precision of each line in the legend.

    A dashed line is the share of positive items, which is the precision of chance.
    """
    axes = _Axes((0.0, 1.0), (0.0, 1.0), "recall", "precision")
    legend: list[tuple[str, str]] = []
    body: list[str] = []
    chance: set[float] = set()
    for color, line in _colored(lines):
        true_G, false_G = _running(line)
        if not (true_G[-1] and false_G[-1]):
            legend.append((f"{line.label}: one class only", color))
            continue
        recall_G, precision_G = true_G / true_G[-1], true_G / (true_G + false_G)
        average = float((np.diff(recall_G, prepend=0) * precision_G).sum())
        share = float(true_G[-1] / (true_G[-1] + false_G[-1]))
        if share not in chance:
            body.insert(0, axes.line([(0, share), (1, share)], GREY, dashed=True))
        chance.add(share)
        body.append(
            axes.line(_thinned(np.append(0, recall_G), np.append(precision_G[0], precision_G)), color)
        )
        legend.append((f"{line.label}: {average:.3f}", color))
    return axes.chart([*body, *axes.legend("Average precision", legend)])


def scatter_chart(truth: npt.ArrayLike, predicted: npt.ArrayLike, *, name: str = "", seed: int = 0) -> str:
    """Predicted against true numbers with the line on which both are the same.

    Of more than 2,000 points as many are drawn by lot, and the figure says so; missing ones are left out.

    Args:
        truth: numbers (P,), NaN where missing.
        predicted: for them.
        name: of the quantity.
        seed: of the lot.
    """
    x_P, y_P = np.asarray(truth, dtype=np.float64).ravel(), np.asarray(predicted, dtype=np.float64).ravel()
    there_P = np.isfinite(x_P) & np.isfinite(y_P)
    x_P, y_P = x_P[there_P], y_P[there_P]
    if not len(x_P):
        return "<p>No data yet.</p>"
    total = len(x_P)
    if total > MAX_POINTS:
        shown = np.sort(np.random.default_rng(seed).choice(total, MAX_POINTS, replace=False))
        x_P, y_P = x_P[shown], y_P[shown]
    low, high = min(x_P.min(), y_P.min()), max(x_P.max(), y_P.max())
    span = ticks(float(low), float(high))
    edges = (span[0], span[-1])
    axes = _Axes(edges, edges, f"true {name}".strip(), f"predicted {name}".strip())
    dots = "".join(
        "M{:.1f} {:.1f}h0".format(*axes.place(x, y)) for x, y in zip(x_P.tolist(), y_P.tolist(), strict=True)
    )
    points = f'<path d="{dots}" stroke="{COLORS[0]}" stroke-width="3" stroke-linecap="round" opacity="0.5"/>'
    count = f"{total:,} points" if total == len(x_P) else f"{len(x_P):,} of {total:,} points"
    identity = axes.line([(edges[0], edges[0]), (edges[1], edges[1])], GREY, dashed=True)
    return axes.chart([points, identity, *axes.legend(count, [("predicted = true", GREY)])])


def reliability_chart(curves: Sequence[tuple[str, Reliability]]) -> str:
    """How often probabilities came true, with the calibration error of each line in the legend.

    Bars below are the share of the items in each bin of the first line; dots of small bins are small.
    """
    axes = _Axes((0.0, 1.0), (0.0, 1.0), "predicted probability", "share that came true")
    body = [axes.line([(0, 0), (1, 1)], GREY, dashed=True)]
    legend = []
    for number, (label, found) in enumerate(curves):
        color = COLORS[number % len(COLORS)]
        share_K = found.count_K / max(1.0, found.count_K.sum())
        if number == 0:
            body += [_bar(axes, k, share) for k, share in enumerate(share_K.tolist()) if share > 0]
        filled = np.flatnonzero(found.count_K)
        points = list(zip(found.predicted_K[filled].tolist(), found.observed_K[filled].tolist(), strict=True))
        if points:
            body.append(axes.line(points, color))
        for (x, y), share in zip(points, share_K[filled].tolist(), strict=True):
            px, py = axes.place(x, y)
            radius = 2 + 4 * share**0.5
            body.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{radius:.1f}" fill="{color}"/>')
        legend.append((f"{label}: {found.error:.3f}", color))
    return axes.chart([*body, *axes.legend("Expected calibration error", legend)])


class _Axes:
    """A square plot with a legend on its right.

    Args:
        x_range: data at the left and right edge.
        y_range: at the lower and upper edge.
        x_label: under the plot.
        y_label: beside it.
    """

    def __init__(
        self, x_range: tuple[float, float], y_range: tuple[float, float], x_label: str, y_label: str
    ):
        self._x, self._y, self._labels = x_range, y_range, (x_label, y_label)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point of the data is in the figure."""
        (x_low, x_high), (y_low, y_high) = self._x, self._y
        return (
            _LEFT + (x - x_low) / (x_high - x_low) * _SIDE,
            _TOP + _SIDE - (y - y_low) / (y_high - y_low) * _SIDE,
        )

    def line(self, points: Sequence[tuple[float, float]], color: str, *, dashed: bool = False) -> str:
        """Points of the data, joined."""
        path = " ".join("{:.1f},{:.1f}".format(*self.place(x, y)) for x, y in points)
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.6"{dash}/>'

    def legend(self, title: str, lines: Sequence[tuple[str, str]]) -> Iterator[str]:
        """A title, and below it labels, each with its colour."""
        x = _LEFT + _SIDE + 24
        yield _text(x, _TOP + 12, title, "start")
        for number, (label, color) in enumerate(lines):
            y = _TOP + 32 + 18 * number
            yield f'<path d="M{x} {y - 4}h18" stroke="{color}" stroke-width="2.5"/>'
            yield _text(x + 24, y, _shortened(label, 44), "start", color)

    def chart(self, body: Sequence[str]) -> str:
        """The figure with ticks and labels."""
        parts = [_head(_TOP + _SIDE + _BELOW)]
        for y in ticks(*self._y):
            px, py = self.place(self._x[0], y)
            parts.append(f'<line class="grid" x1="{px}" x2="{px + _SIDE}" y1="{py:.1f}" y2="{py:.1f}"/>')
            parts.append(_text(px - 6, py + 4, f"{y:.4g}", "end"))
        for x in ticks(*self._x):
            px, py = self.place(x, self._y[0])
            parts.append(f'<line class="grid" x1="{px:.1f}" x2="{px:.1f}" y1="{_TOP}" y2="{py}"/>')
            parts.append(_text(px, py + 16, f"{x:.4g}", "middle"))
        parts.append(_text(_LEFT + _SIDE / 2, _TOP + _SIDE + 38, self._labels[0], "middle"))
        parts.append(_turned(18, _TOP + _SIDE / 2, self._labels[1]))
        return "\n".join([*parts, *body, "</svg>"])


def _bar(axes: _Axes, k: int, share: float) -> str:
    """The share of the items in bin k, a quarter of the plot for all of them."""
    left, foot = axes.place(k / BINS, 0)
    right, top = axes.place((k + 1) / BINS, share / 4)
    size = f'width="{right - left - 1:.1f}" height="{foot - top:.1f}"'
    return f'<rect x="{left + 0.5:.1f}" y="{top:.1f}" {size} fill="{COLORS[0]}" opacity="0.2"/>'


def _shade(corner: tuple[float, float], size: int, share: float, about: str) -> str:
    """The ground of one cell of a confusion matrix: the darker, the larger its share of the row."""
    rgb = (round(255 + (int(COLORS[0][i : i + 2], 16) - 255) * share) for i in (1, 3, 5))
    place = f'x="{corner[0]}" y="{corner[1]}" width="{size}" height="{size}"'
    return f'<rect {place} fill="#{bytes(rgb).hex()}"><title>{escape(about)}</title></rect>'


def _figures(center: tuple[float, float], size: int, count: float, share: float) -> list[str]:
    """What is written in one cell."""
    x, y = center
    color = "white" if share > 0.55 else "#333"
    if size >= _ROOMY:
        number = f"{count:.0f}" if count < 1e6 else f"{count:.2g}"
        return [_text(x, y - 2, number, "middle", color), _text(x, y + 13, f"{share:.0%}", "middle", color)]
    percent = f"{100 * share:.0f}"
    return [] if percent == "0" else [_text(x, y + 4, percent, "middle", color)]


def _colored(lines: Sequence[Ranked]) -> Iterator[tuple[str, Ranked]]:
    chosen = 0
    for line in lines:
        yield line.color or COLORS[chosen % len(COLORS)], line
        chosen += line.color is None


def _running(line: Ranked) -> tuple[Floats, Floats]:
    """Positive and other items with at least each distinct score, highest first."""
    scores_P = np.asarray(line.scores, dtype=np.float64)
    order_P = np.argsort(-scores_P, kind="stable")
    positive_P = np.asarray(line.positive, dtype=np.bool_)[order_P]
    ordered_P = scores_P[order_P]
    ends_G = np.flatnonzero(np.append(ordered_P[1:] != ordered_P[:-1], True))
    true_G = np.cumsum(positive_P)[ends_G].astype(np.float64)
    return true_G, ends_G + 1 - true_G


def _thinned(x_G: Floats, y_G: Floats) -> list[tuple[float, float]]:
    """At most about MAX_VERTICES of the points, evenly along the line, the first and last among them."""
    if len(x_G) > MAX_VERTICES:
        way_G = np.append(0, np.cumsum(np.abs(np.diff(x_G)) + np.abs(np.diff(y_G))))
        marks = np.linspace(0, way_G[-1], MAX_VERTICES)
        kept = np.unique(np.append(0, np.searchsorted(way_G, marks).clip(max=len(x_G) - 1)))
        x_G, y_G = x_G[kept], y_G[kept]
    return list(zip(x_G.tolist(), y_G.tolist(), strict=True))


def _head(height: float) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img">'


def _text(x: float, y: float, text: str, anchor: str, color: str = "#444") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(text)}</text>'


def _turned(x: float, y: float, text: str, anchor: str = "middle", degrees: int = -90) -> str:
    return f'<g transform="translate({x:g} {y:g}) rotate({degrees})">{_text(0, 0, text, anchor)}</g>'


def _shortened(text: str, most: int) -> str:
    """A text without its middle: names of strains often differ in their ends."""
    end = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - end]}\u2026{text[-end:]}"
