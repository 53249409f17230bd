"""Line charts as SVG text, for reports that are one self-contained file."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

Points = Sequence[tuple[float, float]]

STYLE = """
svg text { font: 11px system-ui, sans-serif; } .grid { stroke: #e4e4e4; }
.mark { stroke: #aaa; stroke-dasharray: 2 3; }
"""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 300, 64, 150, 16, 44


@dataclass(frozen=True)
class Series:
    """One line of a chart, in data units."""

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
    x_labels: Mapping[float, str] | None = None,
) -> str:
    """A chart with axes, ticks and a label at the right end of every line.

    Points that are not finite are left out, and those above `y_max` unless a line ends there, so that a steep
    start does not flatten the rest. A chart without points says so. `marks` are labelled upright lines at
    places of the x axis, `x_labels` what to write below it instead of round numbers.
    """
    finite = [_finite(s.points) for s in series]
    top = max([y_max, *(points[-1][1] for points in finite if points)])
    finite = [[(x, y) for x, y in points if y <= top] for points in finite]
    xs = [x for points in finite for x, _ in points]
    ys = [y for points in finite for _, y in points]
    if not xs:
        return "<p>No data yet.</p>"
    y_ticks = ticks(min(ys), max(ys))
    labels = x_labels or {x: _short(x) for x in ticks(min(xs), max(xs))}
    x_low, x_high = min(xs), max(*xs, min(xs) + 1e-09)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (x - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    for y in y_ticks:
        _, py = place(x_low, y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py:.1f}" y2="{py:.1f}"/>')
        parts.append(_text(LEFT - 6, py + 4, _short(y), "end"))
    parts += [
        _text(place(x, y_low)[0], HEIGHT - BOTTOM + 16, label, "middle")
        for x, label in labels.items()
        if x_low <= x <= x_high
    ]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label, "middle"))
    parts.append(
        f'<g transform="translate(14 {HEIGHT / 2}) rotate(-90)">{_text(0, 0, y_label, "middle")}</g>'
    )
    for number, (x, label) in enumerate((marks or {}).items()):
        px, _ = place(x, y_low)
        if px <= WIDTH - RIGHT:
            parts.append(
                f'<line class="mark" x1="{px:.1f}" x2="{px:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            )
            parts.append(_text(px - 3, TOP + 9 + 11 * (number % 2), label, "end"))
    heights = _spread([place(*points[-1])[1] if points else 0.0 for points in finite])
    for s, points, label_y in zip(series, finite, heights, strict=True):
        parts += _line(s, [place(x, y) for x, y in points], label_y)
    return "\n".join([*parts, "</svg>"])


def standalone(chart: str) -> str:
    """A chart as an SVG file of its own, on white."""
    head = '<svg xmlns="http://www.w3.org/2000/svg" '
    return f"{head}{chart.removeprefix('<svg ')}".replace(
        ">", f'><style>{STYLE}</style><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', 1
    )


def _line(series: Series, places: Points, label_y: float) -> list[str]:
    if not places:
        return []
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = ' stroke-dasharray="5 4"' if series.dashed else ""
    parts = [f'<polyline points="{path}" fill="none" stroke="{series.color}" stroke-width="1.6"{dash}/>']
    if series.dots:
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{series.color}"/>' for x, y in places]
    return [*parts, _text(WIDTH - RIGHT + 6, label_y + 4, series.label, "start", series.color)]


def _text(x: float, y: float, text: str, anchor: str, color: str = "#444") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}">{escape(text)}</text>'


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that enclose [low, high], about `count` steps apart.

    >>> ticks(0.0, 9.3)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    span = (high - low) or abs(high) or 1.0
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def smoothed(points: Points, count: int = 200) -> list[tuple[float, float]]:
    """At most `count` points, each the mean of a run of neighbours."""
    size = max(1, math.ceil(len(points) / count))
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _spread(heights: list[float], gap: float = 14) -> list[float]:
    """Label heights moved apart so that none covers another, in the same order."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = list(heights)
    for before, after in itertools.pairwise(order):
        placed[after] = max(placed[after], placed[before] + gap)
    return placed


def _short(value: float) -> str:
    """A tick label: 1500000 as 1.5M.

    >>> [_short(v) for v in (0.0, 0.25, 2000.0, 1.5e6)]
    ['0', '0.25', '2k', '1.5M']
    """
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{letter}"
    return f"{value:.4g}"
