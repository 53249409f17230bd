"""Charts of reports and of `--plot`, drawn by matplotlib as SVG text.

Functions return an `<svg>` element for an HTML page, or a paragraph where there is nothing to draw.

Legend of shape suffixes: P items, C classes, K bins, G distinct scores.
"""

import io
import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hyenacli import console
from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.calibration import BINS, Reliability
from hyenacli.writers.atomic import atomic_path

Points = Sequence[tuple[float, float]]

# Okabe and Ito's palette, which the colour-blind can tell apart; the first colour is the model's.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d3b", "#000000")
BLUE, RED, GREEN = COLORS[:3]
GREY = "#888888"
MAX_CLASSES, MAX_POINTS = 30, 1_000

NO_DATA = "<p>No data yet.</p>"
_CELL_COUNTS = 10
"""Up to so many classes, cells of a confusion matrix show counts as well as shares."""
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "hyena",
    "path.simplify_threshold": 0.4,
    "text.parse_math": False,
    "font.size": 9,
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


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        label: its name in the legend.
        points: (x, y) in data units; those that are not finite leave a gap.
        color: of the line.
        dashed: draw dashes.
        dots: mark every point.
    """

    label: str
    points: Points
    color: str
    dashed: bool = False
    dots: bool = False


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


def _below(points: Sequence[tuple[float, float]], y_max: float) -> Sequence[tuple[float, float]]:
    """Return the points that are not above a limit; all of them where these are the fewer.

    >>> _below([(0, 9.0), (1, 2.0), (2, 1.0)], 3.0), _below([(0, 9.0), (1, 8.0), (2, 1.0)], 3.0)
    ([(1, 2.0), (2, 1.0)], [(0, 9.0), (1, 8.0), (2, 1.0)])
    """
    kept = [(x, y) for x, y in points if not y > y_max]
    return kept if 2 * len(kept) >= len(points) else points


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    y_max: float = math.inf,
    marks: Mapping[float, str] | None = None,
) -> str:
    """Draw lines over a number, with a legend on the right.

    Args:
        series: the lines.
        x_label: under the chart.
        y_label: beside it.
        y_max: points above it are left out where most points lie below, so that a steep start does not
            flatten the rest.
        marks: labels of upright lines by their x.
    """
    kept = [_below(s.points, y_max) for s in series]
    xs = [x for points in kept for x, y in points if math.isfinite(y)]
    if not xs:
        return NO_DATA

    def draw(axes: Any) -> None:
        axes.set(xlabel=x_label, ylabel=y_label)
        _draw_lines(axes, series, kept)
        axes.xaxis.set_major_formatter(lambda value, _position: _short(value))
        axes.yaxis.set_major_formatter(lambda value, _position: _short(value))
        for number, (x, label) in enumerate((marks or {}).items()):
            if x <= max(xs):
                axes.axvline(x, color="#aaaaaa", linewidth=0.8, linestyle=(0, (2, 3)))
                at = {"transform": axes.get_xaxis_transform(), "ha": "right", "va": "top"}
                axes.text(x, 0.99 - 0.06 * (number % 2), f"{label} ", fontsize=8, **at)

    return _inline(_svg(draw, (7.6, 3.0)))


def histogram_chart(values: npt.ArrayLike, *, x_label: str, y_label: str) -> str:
    """Draw how numbers are distributed; the outer 0.5 % at each end are counted in the last bars.

    Args:
        values: finite numbers.
        x_label: what they are.
        y_label: what is counted.
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not numbers.size:
        return NO_DATA
    low, high = np.quantile(numbers, (0.005, 0.995))

    def draw(axes: Any) -> None:
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.hist(numbers.clip(low, high), bins=min(60, max(5, round(numbers.size**0.5))), color=BLUE)

    return _inline(_svg(draw, (7.6, 3.0)))


def write_length_chart(
    target: Path, lengths: Sequence[int], lines: Mapping[str, Sequence[float]], *, x_label: str, y_label: str
) -> None:
    """Write an SVG file of numbers against length, on a logarithmic axis.

    Args:
        target: the file.
        lengths: in bases.
        lines: for each name, five at most, a number for every length; NaN leaves a gap.
        x_label: meaning of the lengths.
        y_label: meaning of the numbers.
    """
    colors = (BLUE, GREY, "#c0c0c0", RED, GREEN)
    series = [
        Series(name, list(zip(lengths, numbers, strict=True)), color, dots=True)
        for (name, numbers), color in zip(lines.items(), colors, strict=False)
    ]

    def draw(axes: Any) -> None:
        axes.set(xlabel=x_label, ylabel=y_label)
        _draw_lines(axes, series, [line.points for line in series])
        axes.set_xscale("log", base=2)
        axes.set_xticks(_apart(sorted(lengths)))
        axes.xaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}")
        axes.minorticks_off()

    with atomic_path(target) as path:
        path.write_text(_svg(draw, (7.6, 3.2)), encoding="utf-8")
    console.log.info("wrote %s", target)


def write_interval_chart(
    target: Path, rows: Sequence[tuple[str, float, float, float]], *, x_label: str
) -> None:
    """Write an SVG file of values with their intervals, a line each, the first on top.

    Args:
        target: the file.
        rows: name, value, and the ends of its interval.
        x_label: meaning of the values.
    """

    def draw(axes: Any) -> None:
        for height, (_, value, low, high) in enumerate(reversed(rows)):
            axes.plot([low, high], [height, height], color=GREY, lw=2)
            axes.plot([value], [height], "o", color=BLUE)
        axes.set(xlabel=x_label, ylim=(-0.6, len(rows) - 0.4))
        axes.set_yticks(range(len(rows)), [_shortened(row[0], 40) for row in reversed(rows)])

    with atomic_path(target) as path:
        path.write_text(_svg(draw, (7.6, 0.9 + 0.4 * len(rows))), encoding="utf-8")
    console.log.info("wrote %s", target)


def confusion_matrix(counts: npt.ArrayLike, labels: Sequence[str]) -> str:
    """Draw items by true class (rows) and predicted class (columns), shaded by their share of the row.

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
    shares_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    names = [_shortened(label, 22) for label in labels]
    numbered = classes <= _CELL_COUNTS

    def draw(axes: Any) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        colors = LinearSegmentedColormap.from_list("shares", ["#f6f6f6", BLUE])
        axes.pcolormesh(shares_CC, cmap=colors, vmin=0, vmax=1, edgecolors="white", linewidth=1, gid="cells")
        for i, j in np.ndindex(classes, classes):
            share = float(shares_CC[i, j])
            text = f"{_count(float(counts_CC[i, j]))}\n{share:.0%}" if numbered else f"{100 * share:.0f}"
            if numbered or text != "0":
                style = {"color": "white" if share > 0.55 else "#333333", "fontsize": 9 if numbered else 7}
                axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", in_layout=False, **style)
        slanted = classes > 3 or max(map(len, names)) > 12
        degrees = 90 if classes > 12 else 45
        rotation = (
            {"rotation": degrees, "ha": "right", "va": "center", "rotation_mode": "anchor"} if slanted else {}
        )
        axes.set_xticks(np.arange(classes) + 0.5, names, **rotation)
        axes.set_yticks(np.arange(classes) + 0.5, names)
        axes.set(xlim=(0, classes), ylim=(classes, 0), aspect="equal", ylabel="true class")
        axes.set_xlabel("predicted class" if numbered else "predicted class; numbers are % of the row")
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)

    side = max(2.2, 0.75 * classes) if numbered else 6.0
    svg = _inline(_svg(draw, (min(side + 1.6, 7.6), min(side + 1.1, 7.1))))
    titles = (
        f"{labels[i]} as {labels[j]}: {counts_CC[i, j]:,.0f}, {shares_CC[i, j]:.1%} of the row"
        for i, j in np.ndindex(classes, classes)
    )
    head, cells, tail = re.split(r'(<g id="cells">.*?</g>)', svg, maxsplit=1, flags=re.DOTALL)
    return head + re.sub("/>", lambda _: f"><title>{escape(next(titles))}</title></path>", cells) + tail


def roc_chart(lines: Sequence[Ranked]) -> str:
    """Draw true against false positive rate, with the area of each line in the legend."""

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        for color, line in _colored(lines):
            true_G, false_G = _running(line)
            if not (true_G[-1] and false_G[-1]):
                axes.plot([], [], color=color, label=f"{_shortened(line.label, 30)}: one class only")
                continue
            x_G, y_G = np.append(0, false_G / false_G[-1]), np.append(0, true_G / true_G[-1])
            area = float(((y_G[1:] + y_G[:-1]) / 2 * np.diff(x_G)).sum())
            axes.plot(x_G, y_G, color=color, label=f"{_shortened(line.label, 30)}: {area:.3f}")
        _finish_square(axes, "false positive rate", "true positive rate", "area under the ROC curve")

    return _inline(_svg(draw, _square_size(len(lines))))


def pr_chart(lines: Sequence[Ranked]) -> str:
    """Draw precision against recall, with the average precision of each line in the legend.

    A dashed line is the share of positive items, which is the precision of chance.
    """

    def draw(axes: Any) -> None:
        chance: set[float] = set()
        for color, line in _colored(lines):
            true_G, false_G = _running(line)
            if not (true_G[-1] and false_G[-1]):
                axes.plot([], [], color=color, label=f"{_shortened(line.label, 30)}: one class only")
                continue
            recall_G, precision_G = true_G / true_G[-1], true_G / (true_G + false_G)
            average = float((np.diff(recall_G, prepend=0) * precision_G).sum())
            chance.add(float(true_G[-1] / (true_G[-1] + false_G[-1])))
            x_G, y_G = np.append(0, recall_G), np.append(precision_G[0], precision_G)
            axes.plot(x_G, y_G, color=color, label=f"{_shortened(line.label, 30)}: {average:.3f}")
        for share in chance:
            axes.plot([0, 1], [share, share], color=GREY, linestyle="--", linewidth=1, zorder=1)
        _finish_square(axes, "recall", "precision", "average precision")

    return _inline(_svg(draw, _square_size(len(lines))))


def scatter_chart(truth: npt.ArrayLike, predicted: npt.ArrayLike, *, name: str = "", seed: int = 0) -> str:
    """Draw predicted against true numbers with the line on which both are the same.

    Args:
        truth: numbers (P,), NaN where missing, which are left out.
        predicted: for them; of more than 1,000 a random sample is drawn, and the legend says so.
        name: of the quantity.
        seed: of the sample.
    """
    x_P, y_P = np.asarray(truth, dtype=np.float64).ravel(), np.asarray(predicted, dtype=np.float64).ravel()
    finite_P = np.isfinite(x_P) & np.isfinite(y_P)
    x_P, y_P = x_P[finite_P], y_P[finite_P]
    total = len(x_P)
    if not total:
        return NO_DATA
    if total > MAX_POINTS:
        sample = np.sort(np.random.default_rng(seed).choice(total, MAX_POINTS, replace=False))
        x_P, y_P = x_P[sample], y_P[sample]
    count = f"{total:,} points" if total == len(x_P) else f"{len(x_P):,} of {total:,} points"

    def draw(axes: Any) -> None:
        low, high = min(x_P.min(), y_P.min()), max(x_P.max(), y_P.max())
        axes.plot(x_P, y_P, "o", color=BLUE, markersize=3, markeredgewidth=0, alpha=0.5, label=count)
        axes.axline((low, low), slope=1, color=GREY, linestyle="--", linewidth=1, label="predicted = true")
        margin = 0.04 * (high - low) or 1.0
        limits = (low - margin, high + margin)
        _finish_square(axes, f"true {name}".strip(), f"predicted {name}".strip(), None, limits)

    return _inline(_svg(draw, _square_size(1)))


def reliability_chart(curves: Sequence[tuple[str, Reliability]]) -> str:
    """Draw how often probabilities came true, with the calibration error of each line in the legend.

    Bars below are the share of the items in each bin of the first line; dots of small bins are small.
    """

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        for number, (label, curve) in enumerate(curves):
            color = COLORS[number % len(COLORS)]
            share_K = curve.count_K / max(1.0, curve.count_K.sum())
            filled = np.flatnonzero(curve.count_K)
            if number == 0:
                heights = share_K[filled] / 4
                axes.bar((filled + 0.5) / BINS, heights, width=0.9 / BINS, color=color, alpha=0.2)
            x_K, y_K = curve.predicted_K[filled], curve.observed_K[filled]
            axes.plot(x_K, y_K, color=color, label=f"{_shortened(label, 30)}: {curve.error:.3f}")
            axes.scatter(x_K, y_K, s=(4 + 8 * np.sqrt(share_K[filled])) ** 2 / 2, color=color, zorder=3)
        labels = "predicted probability", "observed frequency"
        _finish_square(axes, *labels, "expected calibration error")

    return _inline(_svg(draw, _square_size(len(curves))))


def curve(rows: Sequence[Mapping[str, str]], x: str, y: str) -> list[tuple[float, float]]:
    """Return the points of two columns of metrics.csv, without rows that leave y empty."""
    return [(float(row[x]), float(row[y])) for row in rows if row[y]]


def smoothed(points: Points, count: int = 200) -> list[tuple[float, float]]:
    """Return at most `count` points, each the mean of a run of neighbours."""
    size = max(1, math.ceil(len(points) / count))
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _svg(draw: Callable[[Any], None], size: tuple[float, float]) -> str:
    """Return an SVG document of one plot, the same text for the same data; size in inches."""
    # the note that a font cache is being built, once per installation, concerns nobody
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=metadata, transparent=False)
    # hundredths of a point are enough, and a list of fonts need not stand at every text
    text = re.sub(r"(\d\.\d\d)\d+(?=[^<>]*>)", r"\1", buffer.getvalue())
    text = re.sub(r" font-family: [^;]+;", "", text)
    return text.replace("</style>", "text{font-family: 'DejaVu Sans', Verdana, Arial, sans-serif}</style>", 1)


def _inline(document: str) -> str:
    """Return the `<svg>` element of a document without the ids that figures of a page would share."""
    element = document[document.index("<svg") :]
    return re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", element).replace("<svg ", '<svg role="img" ', 1)


def _draw_lines(axes: Any, series: Sequence[Series], kept: Sequence[Points]) -> None:
    """Draw lines and a legend, unless the label of the axis names the only line."""
    for line, points in zip(series, kept, strict=True):
        axes.plot(
            [x for x, _ in points],
            [y if math.isfinite(y) else math.nan for _, y in points],
            color=line.color,
            linestyle="--" if line.dashed else "-",
            marker="o" if line.dots else None,
            label=line.label,
        )
    axes.margins(x=0.02)
    if [line.label for line in series] != [axes.get_ylabel()]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def _square_size(entries: int) -> tuple[float, float]:
    """Return the size in inches of a square plot with a legend of so many entries below."""
    return 4.0, 4.3 + 0.19 * entries


def _finish_square(
    axes: Any, x_label: str, y_label: str, title: str | None, limits: tuple[float, float] = (-0.02, 1.02)
) -> None:
    """Label a square plot and add its legend below."""
    axes.set(xlim=limits, ylim=limits, xlabel=x_label, ylabel=y_label, box_aspect=1)
    axes.legend(
        title=title,
        loc="upper left",
        bbox_to_anchor=(0.0, -0.17),
        borderaxespad=0,
        alignment="left",
        fontsize=8,
    )


def _apart(values: Sequence[float]) -> list[float]:
    """Return the values, longest first, that have room for a label on a logarithmic axis."""
    chosen: list[float] = []
    gap = math.log2(values[-1] / values[0]) / 12
    for value in reversed(values):
        if not chosen or math.log2(chosen[-1] / value) >= gap:
            chosen.append(value)
    return chosen


def _count(value: float) -> str:
    return f"{value:,.0f}" if value < 1e6 else f"{value:.2g}"


def _colored(lines: Sequence[Ranked]) -> list[tuple[str, Ranked]]:
    """Return lines with their colours."""
    palette = iter(COLORS * len(lines))
    return [(line.color or next(palette), line) for line in lines]


def _running(line: Ranked) -> tuple[Floats, Floats]:
    """Count positive and other items with at least each distinct score, highest first."""
    scores_P = np.asarray(line.scores, dtype=np.float64)
    order_P = np.argsort(-scores_P, kind="stable")
    positive_P = np.asarray(line.positive, dtype=np.bool_)[order_P]
    ordered_P = scores_P[order_P]
    ends_G = np.flatnonzero(np.append(ordered_P[1:] != ordered_P[:-1], True))
    true_G = np.cumsum(positive_P)[ends_G].astype(np.float64)
    return true_G, ends_G + 1 - true_G


def _short(value: float) -> str:
    """Return a tick label: 1500000 as 1.5M.

    >>> [_short(v) for v in (0.0, 0.25, 2000.0, 1.5e6)]
    ['0', '0.25', '2k', '1.5M']
    """
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:.4g}"


def _shortened(text: str, limit: int) -> str:
    """Return a text without its middle: names of strains often differ in their ends."""
    end = (limit - 1) // 2
    return text if len(text) <= limit else f"{text[: limit - 1 - end]}\u2026{text[-end:]}"
