"""Maps of embeddings: vectors in two dimensions, coloured by a column.

N records, E numbers of a vector.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.console import log
from hyenacli.embed.settings import EmbedSettings
from hyenacli.errors import UsageError, abbreviate
from hyenacli.evaluation.figures import (
    COLORS,
    Draw,
    Note,
    add_legend,
    inline_figure,
    shortened,
    write_figure,
)
from hyenacli.evaluation.probe import Coloring, Probe, color_records, import_umap, lay_out, probe_column
from hyenacli.evaluation.report import facts_table, number_table, write_page
from hyenacli.inference.embedding import RECORD_COLUMNS, Embedded, record_rows
from hyenacli.writers.atomic import ensure_writable
from hyenacli.writers.columns import Column

Array = NDArray[Any]
MAX_RECORDS = 10_000
"""Of more records a random sample is drawn and probed."""

_WIDTH = 4.8
_METHODS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
# More points are drawn as an image, and without names.
_MAX_NAMED = 3_000
_EXPLAINED = (
    "A linear model of the embeddings, and one of the frequencies of k-mers on both strands, each predict "
    "the column of records that they were not fitted to (five folds, or fewer; equal sequences stay in one; "
    "a class needs ten records)."
)
_SEED = 0


def check_map(config: EmbedSettings) -> None:
    """Check the options of the map.

    Raises:
        UsageError: a suffix that is no map, options without one, an input in its place, vectors of bases, or
            no umap-learn.
        UserError: the file cannot be written.
    """
    if config.map is None:
        for flag, given in (("--color-by", config.color_by), ("--map-method", config.map_method != "pca")):
            if given:
                raise UsageError("is of a map", at=flag, remedy="add --map FILE")
        return
    if config.map.suffix not in (".svg", ".html"):
        raise UsageError("a map is .svg or .html", at=config.map, remedy="choose one of these suffixes")
    ensure_writable(config.map, config.input, config.fasta, outputs=(config.output,))
    if config.pool == "none":
        raise UsageError("a map has a point per record", at="--pool none", remedy="leave out one of them")
    if config.map_method == "umap":
        import_umap()


class MapSample:
    """The records of a map: all that have a vector, or a random sample of them.

    Args:
        color_by: the column that colours them; None for none.
        columns: of the table.
        extra: names of the further columns.

    Raises:
        UsageError: there is no such column.
    """

    def __init__(self, color_by: str | None, columns: Sequence[Column], extra: Sequence[str]) -> None:
        names = [*(column.name for column in RECORD_COLUMNS), *extra]
        if color_by is not None and color_by not in names:
            remedy = f"choose one of {abbreviate(names, 20)}"
            raise UsageError(f"no column '{color_by}'", at="--color-by", remedy=remedy)
        self.color_by, self.total = color_by, 0
        self.width = next(column.width for column in columns if column.name == "embedding")
        self._drawn: list[tuple[str, str, bytes, NDArray[np.float32]]] = []
        self._random = np.random.default_rng(_SEED)

    def add(self, embedded: Embedded) -> None:
        """Take a record, or leave it out at random; one without a vector has no point."""
        if embedded.vectors is None:
            return
        self.total += 1
        index = len(self._drawn)
        if index == MAX_RECORDS:
            index = int(self._random.integers(self.total))
        if index >= MAX_RECORDS:
            return
        record, value, bases = embedded.record, "", b""
        if self.color_by is not None:
            value = str(record_rows(record, embedded.n_bases, 1)[self.color_by][0])
            bases = record.bases[record.left : record.left + len(record)]
        # the last layer; a copy, so that the others can go
        self._drawn[index : index + 1] = [(record.id, value, bases, embedded.vectors[0, -1].copy())]

    @property
    def ids(self) -> list[str]:
        """Names of the records."""
        return [drawn[0] for drawn in self._drawn]

    @property
    def values(self) -> list[str]:
        """Texts of the column that colours them."""
        return [drawn[1] for drawn in self._drawn]

    @property
    def sequences(self) -> list[bytes]:
        """Bases of the records, without flanks; empty without a column, which they are to predict."""
        return [drawn[2] for drawn in self._drawn]

    @cached_property
    def vectors_NE(self) -> NDArray[np.float32]:  # noqa: N802  (a shape)
        """Their vectors."""
        return np.array([drawn[3] for drawn in self._drawn], np.float32).reshape(-1, self.width)


def write_map(config: EmbedSettings, sample: MapSample) -> None:
    """Lay out, probe and draw a sample, and log what the probe says.

    Raises:
        UserError: too few records, or the file cannot be written.
    """
    path = config.map
    assert path is not None  # noqa: S101  (the caller asks for a map)
    points_N2, axes = lay_out(sample.vectors_NE, config.map_method)
    coloring = color_records(sample.values)
    probe = None
    if sample.color_by is not None:
        log.info("predicting %s from embeddings and from k-mers", sample.color_by)
        probe = probe_column(coloring, sample.vectors_NE, sample.sequences)
        if probe is None:
            log.warning("--color-by %s: too few records of two classes for a probe", sample.color_by)
        else:
            log.info("%s: %s", sample.color_by, probe.sentence)
    draw = _drawing(points_N2, axes, coloring, sample, probe)
    if path.suffix == ".html":
        _write_page(config, sample, coloring, probe, draw)
        log.info("wrote %s", path)
    else:
        write_figure(path, draw, _size(coloring))


def _size(coloring: Coloring) -> tuple[float, float]:
    """Return width and height in inches of a square plot with a legend below."""
    return _WIDTH, _WIDTH + 0.19 * len(coloring.names)


def _drawing(
    points_N2: Array, labels: tuple[str, str], coloring: Coloring, sample: MapSample, probe: Probe | None
) -> Draw:
    """Return what draws the points, with the name of each where they are few."""
    count, column, ids, values = len(points_N2), sample.color_by, sample.ids, sample.values
    style: Any = {
        "s": max(3.0, min(30.0, 20_000 / count)),
        "linewidths": 0,
        "rasterized": count > _MAX_NAMED,
    }

    def draw(axes: Any) -> Iterator[Note]:
        axes.set(xlabel=labels[0], ylabel=labels[1], box_aspect=1)
        axes.grid(visible=False)
        if probe is not None:
            axes.set_title(f"{shortened(str(column), 40)}:\n{probe.sentence}", fontsize=9, loc="left")
        if coloring.numeric:
            dots = axes.scatter(
                *points_N2.T, c=coloring.target_N, cmap="viridis", plotnonfinite=True, **style
            )
            axes.figure.colorbar(dots, ax=axes, label=column, shrink=0.7)
        # rare classes lie on top of frequent ones
        for k in () if coloring.numeric else range(-1, len(coloring.names)):
            chosen = coloring.target_N == k
            if not chosen.any():
                continue
            name = coloring.names[k] if k >= 0 else "rarer or none" if coloring.names else None
            label = name and f"{shortened(name, 30)} ({chosen.sum():,})"
            # the colours that everybody can tell apart come again, with another mark
            color = COLORS[k % len(COLORS)] if k >= 0 else "#c8c8c8" if coloring.names else COLORS[0]
            mark = "^" if k >= len(COLORS) else "o"
            axes.scatter(*points_N2[chosen].T, color=color, marker=mark, alpha=0.7, label=label, **style)
        if coloring.names:
            add_legend(axes, markerscale=(30 / style["s"]) ** 0.5)
        if count > _MAX_NAMED:
            return
        half_2 = np.ptp(points_N2, axis=0) / 150
        for (x, y), name, value in zip(points_N2, ids, values, strict=True):
            text = f"{name}: {value}" if value else name
            yield Note(text, x - half_2[0], x + half_2[0], y - half_2[1], y + half_2[1])

    return draw


def _write_page(
    config: EmbedSettings, sample: MapSample, coloring: Coloring, probe: Probe | None, draw: Draw
) -> None:
    path, column, count = config.map, str(sample.color_by), len(sample.ids)
    assert path is not None  # noqa: S101  (the caller asks for a map)
    points = f"{count:,}" if count == sample.total else f"{count:,} of {sample.total:,}, drawn at random"
    method = _METHODS[config.map_method]
    facts = {
        "input": config.input or ", ".join(config.region or ()),
        "model": config.model,
        "vectors": f"--pool {config.pool} --layer {config.layer} --rc {config.rc}",
        "points": points,
        "method": method,
    }
    verdict = f"{points} points by {method}" if probe is None else f"predicting {column}: {probe.sentence}"
    sections = [facts_table(facts), inline_figure(draw, _size(coloring), f"Embeddings by {method}")]
    if probe is not None:
        sections.append(f"<h2>Probe</h2><p>{_EXPLAINED}</p>")
    if probe is not None and probe.by_class:
        counts = Counter(coloring.target_N.tolist())
        rows = [
            [name, f"{counts[k]:,}", *("-" if np.isnan(value) else f"{value:.3f}" for value in pair)]
            for k, (name, pair) in enumerate(zip(coloring.names, probe.by_class, strict=True))
        ]
        sections.append(number_table([column, "records", "F1, embeddings", "F1, k-mers"], rows))
    tables = [] if str(config.output) == "-" else [config.output]
    write_page(path, f"{path.stem}: embedding map", sections, verdict=verdict, tables=tables)
