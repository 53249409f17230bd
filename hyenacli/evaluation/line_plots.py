"""Charts of numbers over a number, and of how numbers are distributed, in reports and of `--plot`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hyenacli.evaluation.figures import (
    BLUE,
    COLORS,
    GREY,
    NO_DATA,
    WIDE,
    Note,
    add_legend,
    inline_figure,
    short_number,
    shortened,
    strips,
    write_figure,
)

Points = Sequence[tuple[float, float]]
# Longest name in a legend, which is as wide as the figure.
_LONGEST_NAME = 48
_MAX_STRIPS = 60


@dataclass(frozen=True)
class Series:
    """One line of a chart.

    Attributes:
        label: its name in the legend.
        points: (x, y) in data units, by ascending x; those that are not finite leave a gap.
        color: of the line.
        dashed: draw dashes.
        dots: mark every point.
    """

    label: str
    points: Points
    color: str
    dashed: bool = False
    dots: bool = False


def line_chart(
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    y_max: float = math.inf,
    marks: Mapping[float, str] | None = None,
) -> str:
    """Draw lines over a number, with a legend below.

    Args:
        series: the lines.
        x_label: under the chart.
        y_label: beside it.
        y_max: the axis ends here where most points lie below, so that a steep start does not flatten the
            rest.
        marks: labels of upright lines by their x.
    """
    points = [(x, y) for line in series for x, y in line.points if math.isfinite(y)]
    if not points:
        return NO_DATA
    end = max(x for x, _ in points)
    cut = 0 < sum(y > y_max for _, y in points) <= len(points) / 2

    def draw(axes: Any) -> Iterator[Note]:
        axes.set(xlabel=x_label, ylabel=y_label)
        _draw_lines(axes, series)
        if cut:
            axes.set_ylim(min(y for _, y in points) - 0.02 * y_max, y_max)
        axes.xaxis.set_major_formatter(short_number)
        axes.yaxis.set_major_formatter(short_number)
        for number, (x, label) in enumerate((marks or {}).items()):
            if x <= end:
                axes.axvline(x, color="#aaaaaa", linewidth=0.8, linestyle=(0, (2, 3)))
                at = {"transform": axes.get_xaxis_transform(), "ha": "right", "va": "top"}
                axes.text(x, 0.99 - 0.07 * (number % 2), f"{label} ", fontsize=8, **at)
        return _line_notes(series, x_label)

    return inline_figure(draw, WIDE, f"{y_label} over {x_label}")


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

    def draw(axes: Any) -> Iterator[Note]:
        axes.set(xlabel=x_label, ylabel=y_label)
        bins = min(60, max(5, round(numbers.size**0.5)))
        counts, edges, _ = axes.hist(numbers.clip(low, high), bins=bins, color=BLUE)
        for count, left, right in zip(counts, edges, edges[1:], strict=False):
            yield Note(f"{left:.3g} to {right:.3g}: {count:,.0f} {y_label}", left, right)

    return inline_figure(draw, WIDE, f"Distribution of {x_label}")


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
    series = [
        Series(name, list(zip(lengths, numbers, strict=True)), color, dots=True)
        for (name, numbers), color in zip(lines.items(), (BLUE, GREY, *COLORS[1:]), strict=False)
    ]

    def draw(axes: Any) -> Iterator[Note]:
        axes.set(xlabel=x_label, ylabel=y_label)
        _draw_lines(axes, series, always=True)
        axes.set_xscale("log", base=2)
        axes.set_xticks(_apart(sorted(lengths)))
        axes.xaxis.set_major_formatter(lambda value, _position: f"{value:,.0f}")
        axes.minorticks_off()
        return _line_notes(series, x_label, logarithmic=True)

    write_figure(target, draw, (6.4, 3.6))


def write_interval_chart(
    target: Path, rows: Sequence[tuple[str, float, float, float]], *, x_label: str
) -> None:
    """Write an SVG file of values with their intervals, a line each, the first on top.

    Args:
        target: the file.
        rows: name, value, and the ends of its interval.
        x_label: meaning of the values.
    """

    def draw(axes: Any) -> Iterator[Note]:
        for height, (name, value, low, high) in enumerate(reversed(rows)):
            axes.plot([low, high], [height, height], color=GREY, lw=2)
            axes.plot([value], [height], "o", color=BLUE)
            text = f"{name}: {x_label} {value:.4g}, 95 % interval {low:.4g} to {high:.4g}"
            yield Note(text, -math.inf, math.inf, height - 0.5, height + 0.5)
        axes.set(xlabel=x_label, ylim=(-0.6, len(rows) - 0.4))
        axes.set_yticks(range(len(rows)), [shortened(row[0], 40) for row in reversed(rows)])

    write_figure(target, draw, (6.4, 0.9 + 0.4 * len(rows)))


def curve(rows: Sequence[Mapping[str, str]], x: str, y: str) -> list[tuple[float, float]]:
    """Return the points of two columns of metrics.csv, without rows that leave y empty."""
    return [(float(row[x]), float(row[y])) for row in rows if row[y]]


def smoothed(points: Points, count: int = 200) -> list[tuple[float, float]]:
    """Return at most `count` points, each the mean of a run of neighbours."""
    size = max(1, math.ceil(len(points) / count))
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _draw_lines(axes: Any, series: Sequence[Series], *, always: bool = False) -> None:
    """Draw lines and a legend; unless `always`, none where the label of the axis names the only line."""
    for line in series:
        axes.plot(
            [x for x, _ in line.points],
            [y if math.isfinite(y) else math.nan for _, y in line.points],
            color=line.color,
            linestyle="--" if line.dashed else "-",
            marker="o" if line.dots else None,
            label=shortened(line.label, _LONGEST_NAME),
        )
    axes.margins(x=0.02)
    if always or [line.label for line in series] != [axes.get_ylabel()]:
        add_legend(axes)


def _line_notes(series: Sequence[Series], x_label: str, *, logarithmic: bool = False) -> Iterator[Note]:
    """Return notes of all lines, each at the values that most points have."""
    finite = [(line.label, [(x, y) for x, y in line.points if math.isfinite(y)]) for line in series]
    lines = [(label, *np.array(points).T) for label, points in finite if points]
    xs = np.unique(np.concatenate([x_P for _, x_P, _ in lines]))
    xs = xs[:: math.ceil(len(xs) / _MAX_STRIPS)]
    texts = [[f"{x_label}: {x:,.6g}"] for x in xs]
    for label, x_P, y_P in lines:
        for text, x, y in zip(texts, xs, np.interp(xs, x_P, y_P), strict=True):
            if x_P[0] <= x <= x_P[-1]:
                text.append(f"{label}: {y:.4g}")
    return strips(xs.tolist(), map("\n".join, texts), logarithmic=logarithmic)


def _apart(values: Sequence[float]) -> list[float]:
    """Return the values, longest first, that have room for a label on a logarithmic axis."""
    chosen: list[float] = []
    gap = math.log2(values[-1] / values[0]) / 8
    for value in reversed(values):
        if not chosen or math.log2(chosen[-1] / value) >= gap:
            chosen.append(value)
    return chosen
