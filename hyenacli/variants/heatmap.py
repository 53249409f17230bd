"""Heatmaps of the effects of every substitution of regions, as self-contained SVG.

L position, V one of A, C, G and T.
"""

import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hyenacli.console import log
from hyenacli.genome.region import Region
from hyenacli.readers.genome import Sequences
from hyenacli.variants.input import NamedRegion
from hyenacli.variants.scorer import ScoredRecord
from hyenacli.writers.atomic import atomic_path

Floats = npt.NDArray[np.float64]

BASES = "ACGT"
# Longest region that a picture can show, in bases.
_MAX_DRAWN = 20_000
# Colours of the scale, from the lowest to the highest: few enough for neighbours to share one.
STEPS = 33
# Effects beyond this quantile of their sizes have the colour of the limit.
QUANTILE = 0.99
# ColorBrewer's RdBu reversed, which the colour-blind can read.
_ANCHORS = (
    *("053061", "2166ac", "4393c3", "92c5de", "d1e5f0", "f7f7f7"),
    *("fddbc7", "f4a582", "d6604d", "b2182b", "67001f"),
)
_NONE = "#bdbdbd"
_BELOW, _ABOVE = "#2166ac", "#b2182b"
_COLUMNS, _WIDTH, _LEAST_WIDTH, _WIDEST, _LOWEST = 200, 1000, 600, 16, 11
_LEFT, _RIGHT, _BARS, _GAP, _STRIP, _AXIS = 48, 28, 42, 5, 13, 32
_SWATCH, _LINE, _LEAST_APART = 6, 15, 9
_STYLE = (
    ".heatmap text{font:11px Helvetica,Arial,sans-serif;fill:#333}"
    ".heatmap .title{font-size:14px;font-weight:bold}"
    ".heatmap .bases{font-family:Menlo,Consolas,'DejaVu Sans Mono',monospace}"
    ".heatmap .small{font-size:10px}"
    ".heatmap .m{text-anchor:middle}.heatmap .e{text-anchor:end}"
    ".heatmap .grid{stroke:#ddd}.heatmap .axis{stroke:#777;fill:none}"
    ".heatmap .ref{stroke:#222;stroke-width:3;stroke-linecap:round}"
    ".heatmap .cells path{shape-rendering:crispEdges}"
    ".heatmap .own{fill:#fff}"
    f".heatmap .none{{fill:{_NONE}}}.heatmap .below{{fill:{_BELOW}}}.heatmap .above{{fill:{_ABOVE}}}"
)


def draw_heatmap(
    region: Region, effects_LV: Floats, reference: bytes, *, score: str = "effect", description: str = ""
) -> str:
    """Draw effects as an SVG document: a row per base, a column per position, the mean above it.

    Long regions are wrapped into panels of at most 200 positions. All panels share the colours, which end at
    the 99 % quantile of the effects' sizes, and the axis of the means, which are not cut. At most about 100
    bytes per position.

    Args:
        region: what is drawn; its name, if any, is in the title.
        effects_LV: of the substitution by A, C, G and T, on the forward strand; what is not finite (the
            reference base, or what was not scored) has no colour of the scale.
        reference: the bases of the region.
        score: what the effects are called.
        description: what they are, in a sentence or two.

    Raises:
        ValueError: the region has no positions, or effects or reference are not as long as it.
    """
    effects_LV = np.asarray(effects_LV, dtype=np.float64)
    length = len(region)
    if not length or effects_LV.shape != (length, len(BASES)) or len(reference) != length:
        raise ValueError(f"{effects_LV.shape} effects and {len(reference)} bases for {length} positions")
    effects_LV = np.where(np.isfinite(effects_LV), effects_LV, np.nan)
    panels = math.ceil(length / _COLUMNS)
    columns = length if panels == 1 else math.ceil(length / panels / 10) * 10
    drawing = _Drawing(region, effects_LV, reference.decode("ascii").upper(), columns)
    head, y = drawing.head(score, description)
    body = []
    for first in range(0, length, columns):
        body.append(drawing.panel(first, min(first + columns, length), y))
        y += drawing.panel_height
    name = f"Positions in {region.contig}, 1-based"
    body.append(_text(_LEFT, y + 4, name, "small"))
    width, height = drawing.width, round(y + 14)
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="heatmap" role="img" {size}>',
            f"<title>{escape(drawing.title)}</title>",
            f"<style>{_STYLE}{''.join(_swatches())}</style>",
            f'<rect width="{width}" height="{height}" fill="#fff"/>',
            *head,
            *body,
            "</svg>",
            "",
        ]
    )


class _Drawing:
    """Scales and sizes that the panels of a heatmap share.

    Args:
        region: as `draw_heatmap`.
        effects_LV: finite or NaN.
        bases: of the region.
        columns: positions of a full panel.
    """

    def __init__(self, region: Region, effects_LV: Floats, bases: str, columns: int):
        self._region, self._bases, self._effects_LV = region, bases, effects_LV
        self._cell = min(_WIDEST, _WIDTH // columns)
        self._row = max(_LOWEST, self._cell)
        self.width = max(_LEAST_WIDTH, _LEFT + columns * self._cell + _RIGHT)
        self.panel_height = _BARS + _GAP + _STRIP + len(BASES) * self._row + _AXIS
        sizes = np.abs(effects_LV[np.isfinite(effects_LV)])
        self._scored = sizes.size > 0
        self._signed = bool((effects_LV < 0).any())
        self._limit = (float(np.quantile(sizes, QUANTILE)) or float(sizes.max())) if self._scored else 0.0
        self._steps_LV = color_steps(effects_LV, self._limit)
        self._means_L = _means(effects_LV)
        finite = self._means_L[np.isfinite(self._means_L)]
        marks = _ticks(min(0.0, *finite), max(0.0, *finite), 4) if finite.size else [0.0]
        self._ticks = sorted({marks[0], 0.0, marks[-1]})
        location = f"{region.contig}:{region.start + 1:,}-{region.end:,}"
        count = f"{len(region):,} base{'s' * (len(region) > 1)}"
        self.title = ", ".join([*([region.name] if region.name else []), location, count])

    def head(self, score: str, description: str) -> tuple[list[str], int]:
        """Return title and legend, and their height."""
        parts, y = [_text(_LEFT, 22, self.title, "title")], 22
        for line in textwrap.wrap(description, (self.width - _LEFT - _RIGHT) // 6):
            y += _LINE
            parts.append(_text(_LEFT, y, line))
        y += 10
        if not self._scored:
            return [*parts, _text(_LEFT, y + 10, f"{score}: no substitution was scored")], y + 30
        steps = range(0 if self._signed else STEPS // 2, STEPS)
        scale = [f'<path class="c{s}" d="M{i} 0h1v1h-1z"/>' for i, s in enumerate(steps)]
        wide = len(steps) * _SWATCH
        move = f"translate({_LEFT} {y}) scale({_SWATCH} 11)"
        limit, last = f"{self._limit:.3g}", _LEFT + wide
        parts += [f'<g class="cells" transform="{move}">{"".join(scale)}</g>']
        parts.append(_text(last - _SWATCH / 2, y + 23, f"\u2265 {limit}", "small m"))
        if self._signed:
            parts.append(_text(_LEFT + _SWATCH / 2, y + 23, f"\u2264 \u2212{limit}", "small m"))
        parts.append(_text(_LEFT + (wide if self._signed else _SWATCH) / 2, y + 23, "0", "small m"))
        x = last + 32
        parts.append(
            _text(x, y + 9, f"{score}; colours end at the {100 * QUANTILE:g} % quantile of |{score}|")
        )
        parts.append(f'<path class="ref" d="M{x + 3} {y + 20}h.01"/>')
        parts.append(_text(x + 11, y + 23, "reference base", "small"))
        parts.append(f'<rect class="none" x="{x + 92}" y="{y + 15}" width="10" height="9"/>')
        parts.append(_text(x + 107, y + 23, "not scored", "small"))
        parts.append(_text(x + 170, y + 23, "bars: mean of a position", "small"))
        return parts, y + 42

    def panel(self, first: int, end: int, y: int) -> str:
        """Draw positions first..end (0-based half-open, in the region) with their upper edge at y."""
        top = _BARS + _GAP + _STRIP
        wide, high = (end - first) * self._cell, len(BASES) * self._row
        names = [_text(-6, top + (v + 0.5) * self._row + 4, base, "bases e") for v, base in enumerate(BASES)]
        scale = f"translate(0 {top}) scale({self._cell} {self._row})"
        return "\n".join(
            [
                f'<g transform="translate({_LEFT} {y})">',
                *self._bars(first, end),
                self._letters(first, end, _BARS + _GAP + _STRIP - 3),
                *names,
                f'<g class="cells" transform="{scale}">{"".join(self._cells(first, end))}</g>',
                self._reference(first, end, top),
                f'<rect class="axis" y="{top}" width="{wide}" height="{high}"/>',
                *self._axis(first, end, top + high),
                "</g>",
            ]
        )

    def _cells(self, first: int, end: int) -> Iterator[str]:
        """Yield a path per colour, of runs of positions with that colour."""
        runs: dict[str, list[str]] = {}
        for row, base in enumerate(BASES):
            steps = self._steps_LV[first:end, row].tolist()
            names = [
                f"c{step}" if step >= 0 else "own" if letter == base else "none"
                for step, letter in zip(steps, self._bases[first:end], strict=True)
            ]
            x = 0
            for name, same in groupby(names):
                n = len(list(same))
                runs.setdefault(name, []).append(f"M{x} {row}h{n}v1h-{n}z")
                x += n
        for name, parts in sorted(runs.items()):
            yield f'<path class="{name}" d="{"".join(parts)}"/>'

    def _reference(self, first: int, end: int, top: int) -> str:
        """Draw a dot in the cell of each reference base; none at N."""
        dots = [
            f"M{_number((i + 0.5) * self._cell)} {_number(top + (BASES.index(base) + 0.5) * self._row)}h.01"
            for i, base in enumerate(self._bases[first:end])
            if base in BASES
        ]
        return f'<path class="ref" d="{"".join(dots)}"/>'

    def _letters(self, first: int, end: int, y: int) -> str:
        """Draw the bases of the reference, each above its column."""
        xs = " ".join(_number((i + 0.5) * self._cell) for i in range(end - first))
        size = _number(min(12, self._cell / 0.62))
        bases = escape(self._bases[first:end])
        return f'<text class="bases m" style="font-size:{size}px" x="{xs}" y="{y}">{bases}</text>'

    def _bars(self, first: int, end: int) -> Iterator[str]:
        """Yield the mean effect of each position, on the axis of all panels."""
        low, high = self._ticks[0], self._ticks[-1]
        per_unit = _BARS / (high - low or 1)
        wide = (end - first) * self._cell
        for tick in self._ticks:
            y = _number((high - tick) * per_unit)
            yield f'<path class="{"axis" if tick == 0 else "grid"}" d="M0 {y}h{wide}"/>'
            if tick == 0 or abs(tick) * per_unit > _LEAST_APART:
                label = f"{tick:.4g}".replace("-", "\u2212")
                yield _text(-6, (high - tick) * per_unit + 3, label, "small e")
        paths: dict[str, list[str]] = {"below": [], "above": []}
        zero = _number(high * per_unit)
        for i, mean in enumerate(self._means_L[first:end].tolist()):
            rise = _number(-mean * per_unit) if math.isfinite(mean) else "0"
            if rise != "0":
                paths["below" if mean < 0 else "above"].append(f"M{i} {zero}v{rise}h1V{zero}z")
        drawn = [f'<path class="{name}" d="{"".join(d)}"/>' for name, d in paths.items() if d]
        yield f'<g class="cells" transform="scale({self._cell} 1)">{"".join(drawn)}</g>'

    def _axis(self, first: int, end: int, y: int) -> Iterator[str]:
        """Yield 1-based coordinates at round numbers, as many as fit."""
        low = self._region.start + first + 1
        room = 7 * len(f"{self._region.end:,}") + 12
        step = next(s for s in (1, 2, 5, 10, 20, 50, 100) if s * self._cell >= room)
        positions = range(-(-low // step) * step, self._region.start + end + 1, step)
        for position in positions or (low,):
            x = (position - low + 0.5) * self._cell
            yield f'<path class="axis" d="M{_number(x)} {y}v4"/>'
            yield _text(x, y + 15, f"{position:,}", "small m")


def color_steps(effects_LV: Floats, limit: float) -> npt.NDArray[np.int64]:
    """Return the colour of every effect: 0 up to -limit, the middle of STEPS at 0, -1 where it is NaN."""
    middle = STEPS // 2
    scaled_LV = np.clip(np.nan_to_num(effects_LV) / (limit or 1.0), -1, 1)
    return np.where(np.isnan(effects_LV), -1, np.rint((scaled_LV + 1) * middle).astype(np.int64))


def _means(effects_LV: Floats) -> Floats:
    """Return the mean (L,) of the effects that are not NaN, NaN where all are."""
    finite_LV = np.isfinite(effects_LV)
    count_L = finite_LV.sum(axis=1)
    sum_L = np.where(finite_LV, effects_LV, 0).sum(axis=1)
    return np.where(count_L > 0, sum_L / np.maximum(count_L, 1), np.nan)


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return round numbers that enclose [low, high], about `count` steps apart.

    >>> _ticks(0.0, 9.3)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    span = (high - low) or abs(high) or 1.0
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, max(last, first + 1) + 1)]


def _swatches() -> Iterator[str]:
    """Yield the style of every step, interpolated between the anchors."""
    anchors = np.array([list(bytes.fromhex(color)) for color in _ANCHORS], dtype=np.float64)
    for step in range(STEPS):
        position = step / (STEPS - 1) * (len(anchors) - 1)
        red, green, blue = (
            round(float(np.interp(position, range(len(anchors)), anchors[:, i]))) for i in range(3)
        )
        yield f".heatmap .c{step}{{fill:#{red:02x}{green:02x}{blue:02x}}}"


def _number(value: float) -> str:
    """Format a coordinate with at most one decimal.

    >>> [_number(value) for value in (12.0, 2.46, -0.04)]
    ['12', '2.5', '0']
    """
    return f"{round(value, 1) or 0:g}"


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{_number(x)}" y="{_number(y)}">{escape(text)}</text>'


def draw_regions(
    scored: Iterator[ScoredRecord],
    regions: Sequence[NamedRegion],
    genome: Sequences,
    folder: Path,
    score: str,
    description: str,
) -> Iterator[ScoredRecord]:
    """Pass the scored substitutions of regions on, and draw each region when it is complete.

    Args:
        scored: all of `substitutions`, in order.
        regions: whose they are.
        genome: the reference.
        folder: for CONTIG_START-END.svg, 1-based; made if it is missing.
        score: the name of the score that is drawn.
        description: what it is and how it was made, in a sentence or two.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = 0
    for named, region in regions:
        if len(region) > _MAX_DRAWN:
            log.warning("%s is too long for a picture, which shows %s bases", named, f"{_MAX_DRAWN:,}")
            steps = range(region.start, region.end, _MAX_DRAWN)
            parts = (genome.fetch(region.contig, at, min(at + _MAX_DRAWN, region.end)) for at in steps)
            yield from islice(scored, sum(len(bases) - bases.count(b"N") for bases in parts))
            continue
        reference = genome.fetch(region.contig, region.start, region.end)
        effects_LV = np.full((len(reference), len(BASES)), np.nan)
        for record, alleles in islice(scored, len(reference) - reference.count(b"N")):
            for alt, allele in zip(record.alts, alleles, strict=True):
                column = BASES.index(alt.decode())
                offset = (record.position - region.start) % genome.lengths[region.contig]
                effects_LV[offset, column] = allele.values.get(score, np.nan)
            yield record, alleles
        name = re.sub(r"[^\w.-]+", "_", str(named))
        with atomic_path(folder / f"{name}.svg") as path:
            picture = draw_heatmap(named, effects_LV, reference, score=score, description=description)
            path.write_text(picture, encoding="utf-8")
        drawn += 1
    log.info("drew %d region%s into %s", drawn, "s" * (drawn != 1), folder)
    yield from scored  # none are left, but whoever counts must see the end
