"""Maps of embeddings: vectors in two dimensions, coloured by a column.

N records, E numbers of a vector.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.console import log
from hyenacli.embed.probe import Coloring, Probe, color_records, probe_column
from hyenacli.embed.settings import EmbedSettings
from hyenacli.errors import UsageError, UserError, abbreviate
from hyenacli.evaluation.plots import COLORS, inline_svg, shortened, svg_document
from hyenacli.evaluation.report import facts_table, number_table, write_page
from hyenacli.inference.embedding import RECORD_COLUMNS, Embedded
from hyenacli.readers.records import SequenceRecord
from hyenacli.writers.atomic import atomic_path
from hyenacli.writers.columns import Column

Array = NDArray[Any]
MAX_RECORDS = 10_000
"""Of more records a random sample is drawn and probed."""
_COLORS = (*COLORS, "#882255", "#999933")
_METHODS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
# More points are drawn as an image, without names.
_MAX_NAMED = 3_000
_EXPLAINED = (
    "A linear model of the embeddings, and one of the frequencies of k-mers on both strands, each predict "
    "the column of records that they were not fitted to (five folds; equal sequences stay in one; a class "
    "needs ten records)."
)
# t-SNE and UMAP begin from the directions of most variance.
_COMPONENTS = 50
_SEED = 0


def check_map(config: EmbedSettings) -> None:
    """Check the options of the map.

    Raises:
        UsageError: a suffix that is no map, options without one, vectors of bases, or no umap-learn.
    """
    if config.map is None:
        for flag, given in (("--color-by", config.color_by), ("--map-method", config.map_method != "pca")):
            if given:
                raise UsageError("is of a map", at=flag, remedy="add --map FILE")
        return
    if config.map.suffix not in (".svg", ".html"):
        raise UsageError("a map is .svg or .html", at=config.map, remedy="choose one of these suffixes")
    if config.pool == "none":
        raise UsageError("a map has a point per record", at="--pool none", remedy="leave out one of them")
    if config.map_method == "umap":
        _umap()


def _umap() -> Any:
    try:
        from umap import UMAP
    except ImportError:
        remedy = "pip install umap-learn, or choose tsne"
        raise UsageError("needs the package umap-learn", at="--map-method umap", remedy=remedy) from None
    return UMAP


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
        record = embedded.record
        # the last layer; a copy, so that the others can go
        vector_E = embedded.vectors[0, -1].copy()
        value = "" if self.color_by is None else (dict(record.extra) | _texts(record))[self.color_by]
        bases = record.bases[record.left : record.left + len(record)]
        drawn = (record.id, value, bases, vector_E)
        self.total += 1
        if len(self._drawn) < MAX_RECORDS:
            self._drawn.append(drawn)
        elif (index := int(self._random.integers(self.total))) < MAX_RECORDS:
            self._drawn[index] = drawn

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
        """Bases of the records, without flanks."""
        return [drawn[2] for drawn in self._drawn]

    @cached_property
    def vectors_NE(self) -> NDArray[np.float32]:  # noqa: N802  (a shape)
        """Their vectors."""
        return np.array([drawn[3] for drawn in self._drawn], np.float32).reshape(-1, self.width)


def _texts(record: SequenceRecord) -> dict[str, str]:
    """Return the columns of every record as texts, but the bases that were pooled."""
    names = ("id", "chrom", "start", "end", "strand", "status")
    return {name: str(getattr(record, name)) for name in names} | {"n_bases": str(len(record))}


def lay_out(vectors_NE: Array, method: str) -> tuple[Array, tuple[str, str]]:
    """Return points (N, 2) and the names of the axes; all features are on one scale first.

    Raises:
        UserError: there are fewer than five records.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import StandardScaler

    count = len(vectors_NE)
    if count < 5:
        raise UserError(f"{count} vectors are too few", at="--map", remedy="give five records or more")
    scaled = StandardScaler().fit_transform(vectors_NE.astype(np.float64))
    size = 2 if method == "pca" else min(_COMPONENTS, *scaled.shape)
    pca = PCA(size, svd_solver="full").fit(scaled)
    components = pca.transform(scaled)
    if method == "pca":
        first, second = (
            f"component {k} ({share:.0%})" for k, share in enumerate(pca.explained_variance_ratio_, 1)
        )
        return components, (first, second)
    if method == "tsne":
        tsne = TSNE(init="pca", perplexity=min(30.0, (count - 1) / 3), random_state=_SEED)
        return tsne.fit_transform(components), ("t-SNE 1", "t-SNE 2")
    umap = _umap()(n_neighbors=min(15, count - 1), random_state=_SEED, n_jobs=1)
    return umap.fit_transform(components), ("UMAP 1", "UMAP 2")


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
    svg = _draw(points_N2, axes, coloring, sample.color_by, probe)
    if path.suffix == ".html":
        _write_page(path, config, sample, coloring, probe, _with_names(svg, coloring, sample))
    else:
        with atomic_path(path) as draft:
            draft.write_text(svg, encoding="utf-8")
    log.info("wrote %s, %s points", path, f"{len(points_N2):,}")


def _draw(
    points_N2: Array, labels: tuple[str, str], coloring: Coloring, column: str | None, probe: Probe | None
) -> str:
    count = len(points_N2)
    style: Any = {"s": max(3.0, min(30.0, 20_000 / count)), "linewidths": 0, "rasterized": count > _MAX_NAMED}

    def draw(axes: Any) -> None:
        axes.set(xlabel=labels[0], ylabel=labels[1], box_aspect=1)
        axes.grid(visible=False)
        if probe is not None:
            axes.set_title(f"{column}: {probe.sentence}", fontsize=9, loc="left")
        if coloring.numeric and column is not None:
            order = np.argsort(np.isfinite(coloring.target_N), kind="stable")
            dots = axes.scatter(
                *points_N2[order].T,
                c=coloring.target_N[order],
                cmap="viridis",
                gid="points",
                plotnonfinite=True,
                **style,
            )
            axes.figure.colorbar(dots, ax=axes, label=column, shrink=0.7)
            return
        # rare classes lie on top of frequent ones
        for k in [-1, *range(len(coloring.names))]:
            chosen = coloring.target_N == k
            if not chosen.any():
                continue
            name = coloring.names[k] if k >= 0 else "other" if coloring.names else None
            legend = name and f"{shortened(name, 30)} ({chosen.sum():,})"
            color = _COLORS[k] if k >= 0 else "#c8c8c8" if coloring.names else COLORS[0]
            axes.scatter(*points_N2[chosen].T, color=color, alpha=0.7, label=legend, gid=f"class{k}", **style)
        if coloring.names:
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), markerscale=(30 / style["s"]) ** 0.5)

    return svg_document(draw, (7.6, 5.4))


def _with_names(svg: str, coloring: Coloring, sample: MapSample) -> str:
    """Return the picture with the name of each point, which is shown where one points at it."""
    ids, values = sample.ids, sample.values
    if len(ids) > _MAX_NAMED:
        return svg
    groups: dict[str, Array] = {}
    if coloring.numeric:
        groups["points"] = np.argsort(np.isfinite(coloring.target_N), kind="stable")
    for k in range(-1, len(coloring.names)):
        groups[f"class{k}"] = np.flatnonzero(coloring.target_N == k)
    for name, indices in groups.items():
        titles = iter(indices.tolist())

        def titled(match: re.Match[str], titles: Iterator[int] = titles) -> str:
            i = next(titles)
            text = f"{ids[i]}: {values[i]}" if values[i] else ids[i]
            return f"{match[1]}><title>{escape(text)}</title></use>"

        head, group, tail = (
            re.split(rf'(<g id="{name}">.*?</g>)', svg, maxsplit=1, flags=re.DOTALL)
            if f'<g id="{name}">' in svg
            else (svg, "", "")
        )
        svg = head + re.sub(r"(<use [^>]*?)/>", titled, group) + tail
    return svg


def _write_page(
    path: Path,
    config: EmbedSettings,
    sample: MapSample,
    coloring: Coloring,
    probe: Probe | None,
    svg: str,
) -> None:
    count = len(sample.ids)
    points = f"{count:,}" if count == sample.total else f"{count:,} of {sample.total:,}, drawn at random"
    facts = {
        "input": config.input or ", ".join(config.region or ()),
        "model": config.model,
        "vectors": f"--pool {config.pool} --layer {config.layer} --rc {config.rc}",
        "points": points,
        "method": _METHODS[config.map_method],
    }
    title = f"{path.stem}: embedding map"
    sections = [f"<h1>{escape(title)}</h1>", facts_table(facts), inline_svg(svg)]
    if probe is not None:
        sections.append(
            f"<h2>Probe</h2><p>{_EXPLAINED}</p><p>{escape(str(sample.color_by))}: {probe.sentence}.</p>"
        )
    if probe is not None and probe.by_class:
        counts = Counter(coloring.target_N.tolist())
        rows = [
            [name, f"{counts[k]:,}", *("-" if np.isnan(value) else f"{value:.3f}" for value in pair)]
            for k, (name, pair) in enumerate(zip(coloring.names, probe.by_class, strict=True))
        ]
        sections.append(number_table([str(sample.color_by), "records", "F1, embeddings", "F1, k-mers"], rows))
    write_page(path, title, sections)
