"""Charts of predictions beside the truth.

Functions return an `<svg>` element for an HTML page, or a paragraph where there is nothing to draw.

Legend of shape suffixes: P items, C classes, K bins, G distinct scores.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt

from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.calibration import BINS, Reliability
from hyenacli.evaluation.figures import (
    BLUE,
    COLORS,
    GREY,
    NO_DATA,
    Note,
    add_legend,
    inline_figure,
    shortened,
    strips,
)

MAX_CLASSES, MAX_POINTS = 30, 1_000
# Up to so many classes, cells of a confusion matrix show counts as well as shares.
_CELL_COUNTS = 6


@dataclass(frozen=True)
class Ranked:
    """One line of a ROC or precision-recall chart.

    Attributes:
        label: its name in the legend.
        positive: which items (P,) are positive.
        scores: of the items (P,); higher is more positive.
    """

    label: str
    positive: npt.ArrayLike
    scores: npt.ArrayLike


def confusion_matrix(counts: npt.ArrayLike, labels: Sequence[str]) -> str:
    """Draw items by true class (rows) and predicted class (columns), shaded by their share of the row.

    Cells have the count and the share; those of more than six classes have the share only, as a whole number
    of per cent. All show both when pointed at.

    Args:
        counts: (C, C); at most 30 classes are drawn.
        labels: names of the classes.
    """
    counts_CC = np.asarray(counts, dtype=np.float64)
    classes = len(labels)
    if classes > MAX_CLASSES:
        return f"<p>{classes} classes are more than a figure of {MAX_CLASSES} can show.</p>"
    shares_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    names = [shortened(label, 22) for label in labels]
    numbered = classes <= _CELL_COUNTS

    def draw(axes: Any) -> Iterator[Note]:
        from matplotlib.colors import LinearSegmentedColormap

        colors = LinearSegmentedColormap.from_list("shares", ["#f6f6f6", BLUE])
        axes.pcolormesh(shares_CC, cmap=colors, vmin=0, vmax=1, edgecolors="white", linewidth=1)
        for i, j in np.ndindex(classes, classes):
            share = float(shares_CC[i, j])
            text = f"{_count(float(counts_CC[i, j]))}\n{share:.0%}" if numbered else f"{100 * share:.0f}"
            if numbered or text != "0":
                style = {"color": "white" if share > 0.55 else "#333333", "fontsize": 9 if numbered else 7}
                axes.text(j + 0.5, i + 0.5, text, ha="center", va="center", in_layout=False, **style)
            title = f"{labels[i]} as {labels[j]}: {counts_CC[i, j]:,.0f}, {share:.1%} of the row"
            yield Note(title, j, j + 1, i, i + 1)
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

    side = max(2.2, 0.6 * classes) if numbered else min(6.0, 2.4 + 0.2 * classes)
    return inline_figure(draw, (side + 1.6, side + 1.1), "Confusion matrix")


def roc_chart(lines: Sequence[Ranked]) -> str:
    """Draw true against false positive rate, with the area of each line in the legend."""

    def trace(true_G: Floats, false_G: Floats) -> tuple[Floats, Floats, float]:
        x_G, y_G = np.append(0, false_G / false_G[-1]), np.append(0, true_G / true_G[-1])
        return x_G, y_G, float(((y_G[1:] + y_G[:-1]) / 2 * np.diff(x_G)).sum())

    def draw(axes: Any) -> Iterator[Note]:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        notes = _draw_ranked(axes, lines, trace, "false positive rate")
        _finish_square(axes, "false positive rate", "true positive rate", "area under the ROC curve")
        return notes

    return inline_figure(draw, _square_size(len(lines)), "ROC curves")


def pr_chart(lines: Sequence[Ranked]) -> str:
    """Draw precision against recall, with the average precision of each line in the legend.

    A dashed line is the share of positive items, which is the precision of chance.
    """

    def trace(true_G: Floats, false_G: Floats) -> tuple[Floats, Floats, float]:
        recall_G, precision_G = true_G / true_G[-1], true_G / (true_G + false_G)
        average = float((np.diff(recall_G, prepend=0) * precision_G).sum())
        return np.append(0, recall_G), np.append(precision_G[0], precision_G), average

    def draw(axes: Any) -> Iterator[Note]:
        notes = _draw_ranked(axes, lines, trace, "recall")
        for share in {float(np.mean(np.asarray(line.positive, np.bool_))) for line in lines} - {0.0, 1.0}:
            axes.plot([0, 1], [share, share], color=GREY, linestyle="--", linewidth=1, zorder=1)
        _finish_square(axes, "recall", "precision", "average precision")
        return notes

    return inline_figure(draw, _square_size(len(lines)), "Precision-recall curves")


def _draw_ranked(axes: Any, lines: Sequence[Ranked], trace: Any, x_label: str) -> Iterator[Note]:
    """Draw the lines that `trace` makes of running counts (true, false), and return their notes."""
    xs = np.linspace(0, 1, 51)
    texts = [[f"{x_label} {x:.2f}"] for x in xs]
    for line, color in zip(lines, cycle(COLORS), strict=False):
        name = shortened(line.label, 34)
        true_G, false_G = _running(line)
        if not (true_G[-1] and false_G[-1]):
            axes.plot([], [], color=color, label=f"{name}: one class only")
            continue
        x_G, y_G, area = trace(true_G, false_G)
        axes.plot(x_G, y_G, color=color, label=f"{name}: {area:.3f}")
        for text, y in zip(texts, np.interp(xs, x_G, y_G), strict=True):
            text.append(f"{line.label}: {y:.3f}")
    return strips(xs.tolist(), map("\n".join, texts))


def scatter_chart(truth: npt.ArrayLike, predicted: npt.ArrayLike, *, name: str = "") -> str:
    """Draw predicted against true numbers with the line on which both are the same.

    Args:
        truth: numbers (P,), NaN where missing, which are left out.
        predicted: for them; of more than 1,000 a random sample is drawn, and the legend says so.
        name: of the quantity.
    """
    x_P, y_P = np.asarray(truth, dtype=np.float64).ravel(), np.asarray(predicted, dtype=np.float64).ravel()
    finite_P = np.isfinite(x_P) & np.isfinite(y_P)
    x_P, y_P = x_P[finite_P], y_P[finite_P]
    total = len(x_P)
    if not total:
        return NO_DATA
    if total > MAX_POINTS:
        sample = np.sort(np.random.default_rng(0).choice(total, MAX_POINTS, replace=False))
        x_P, y_P = x_P[sample], y_P[sample]
    count = f"{total:,} points" if total == len(x_P) else f"{len(x_P):,} of {total:,} points"

    def draw(axes: Any) -> Iterator[Note]:
        low, high = min(x_P.min(), y_P.min()), max(x_P.max(), y_P.max())
        axes.plot(x_P, y_P, "o", color=BLUE, markersize=3, markeredgewidth=0, alpha=0.5, label=count)
        axes.axline((low, low), slope=1, color=GREY, linestyle="--", linewidth=1, label="predicted = true")
        margin = 0.04 * (high - low) or 1.0
        limits = (low - margin, high + margin)
        _finish_square(axes, f"true {name}".strip(), f"predicted {name}".strip(), None, limits)
        half = 0.01 * (limits[1] - limits[0])
        for x, y in zip(x_P.tolist(), y_P.tolist(), strict=True):
            yield Note(f"true {x:.4g}, predicted {y:.4g}", x - half, x + half, y - half, y + half)

    return inline_figure(draw, _square_size(1), f"Predicted against true {name}")


def reliability_chart(curves: Sequence[tuple[str, Reliability]]) -> str:
    """Draw how often probabilities came true, with the calibration error of each line in the legend.

    Bars below are the share of the items in each bin of the first line; dots of small bins are small.
    """

    def draw(axes: Any) -> Iterator[Note]:
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
        middles = ((np.arange(BINS) + 0.5) / BINS).tolist()
        texts: list[list[str]] = [[] for _ in middles]
        for number, (label, curve) in enumerate(curves):
            color = COLORS[number % len(COLORS)]
            share_K = curve.count_K / max(1.0, curve.count_K.sum())
            filled = np.flatnonzero(curve.count_K)
            if number == 0:
                heights = share_K[filled] / 4
                axes.bar((filled + 0.5) / BINS, heights, width=0.9 / BINS, color=color, alpha=0.2)
            x_K, y_K = curve.predicted_K[filled], curve.observed_K[filled]
            axes.plot(x_K, y_K, color=color, label=f"{shortened(label, 34)}: {curve.error:.3f}")
            axes.scatter(x_K, y_K, s=(4 + 8 * np.sqrt(share_K[filled])) ** 2 / 2, color=color, zorder=3)
            for k in filled.tolist():
                values = f"predicted {curve.predicted_K[k]:.2f}, observed {curve.observed_K[k]:.2f}"
                texts[k].append(f"{label}: {values}, {curve.count_K[k]:,.0f} items")
        labels = "predicted probability", "observed frequency"
        _finish_square(axes, *labels, "expected calibration error")
        return strips(middles, ("\n".join(text) or "no items" for text in texts))

    return inline_figure(draw, _square_size(len(curves)), "Observed against predicted frequencies")


def _square_size(entries: int) -> tuple[float, float]:
    """Return the size in inches of a square plot with a legend of so many entries below."""
    return 4.0, 4.3 + 0.19 * entries


def _finish_square(
    axes: Any, x_label: str, y_label: str, title: str | None, limits: tuple[float, float] = (-0.02, 1.02)
) -> None:
    """Label a square plot and add its legend below."""
    axes.set(xlim=limits, ylim=limits, xlabel=x_label, ylabel=y_label, box_aspect=1)
    add_legend(axes, title)


def _count(value: float) -> str:
    return f"{value:,.0f}" if value < 1e6 else f"{value:.2g}"


def _running(line: Ranked) -> tuple[Floats, Floats]:
    """Count positive and other items with at least each distinct score, highest first."""
    scores_P = np.asarray(line.scores, dtype=np.float64)
    order_P = np.argsort(-scores_P, kind="stable")
    positive_P = np.asarray(line.positive, dtype=np.bool_)[order_P]
    ordered_P = scores_P[order_P]
    ends_G = np.flatnonzero(np.append(ordered_P[1:] != ordered_P[:-1], True))
    true_G = np.cumsum(positive_P)[ends_G].astype(np.float64)
    return true_G, ends_G + 1 - true_G
