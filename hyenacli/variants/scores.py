"""The scores of an allele in one table, and what is asked of them.

To add a score: a function and a `Score` in `SCORES`, and a word in the help of --score and in the README.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from hyenacli.errors import UsageError, nearest
from hyenacli.readers.vcf import VariantRecord
from hyenacli.variants.comparison import AlleleTokens, Comparison, WindowPass
from hyenacli.variants.haplotypes import STATUSES, WindowRule
from hyenacli.writers.vcf import InfoField
from hyenadna import HyenaDNA

_MAX_DEFAULT_WINDOW = 8192


def _llr(comparison: Comparison) -> Sequence[float]:
    ratios = comparison.log_ratios
    return list(np.add.reduceat(ratios.nats_M, ratios.starts_N).tolist())


def _site(comparison: Comparison) -> Sequence[float]:
    starts_N, nats_M, real_M = comparison.log_ratios
    return list(np.where(real_M[starts_N], nats_M[starts_N], np.nan).tolist())


def _cosine(comparison: Comparison) -> Sequence[float]:
    return [float(1 - torch.cosine_similarity(*pair, dim=0)) for pair in comparison.mean_states]


def _l2(comparison: Comparison) -> Sequence[float]:
    return [float((alt_D - ref_D).norm()) for ref_D, alt_D in comparison.mean_states]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score.

    Attributes:
        description: a sentence for a file's header; {sum}, {span}, {strands}, {window}, {grid} are filled in.
        compute: the values of a comparison's alleles; NaN where the score is undefined.
        site_only: only the first position that differs is scored, so nothing behind it is read.
        pooled: the states at all scored positions are needed, also at the last.
    """

    description: str
    compute: Callable[[Comparison], Sequence[float]]
    site_only: bool = False
    pooled: bool = False


SCORES = {
    "llr": Score(
        description="{sum} of log p(ALT) - log p(REF) in nats, p over A C G T, {strands}, window {window}, "
        "grid {grid}; negative: ALT is less likely",
        compute=_llr,
    ),
    "site": Score(
        description="log p(ALT) - log p(REF) in nats of the first differing base, given those before "
        "it, p over A C G T, {strands}; negative: ALT is less likely",
        compute=_site,
        site_only=True,
    ),
    "cosine": Score(
        description="Cosine distance of the mean embeddings of ALT and REF over {span}, {strands}",
        compute=_cosine,
        pooled=True,
    ),
    "l2": Score(
        description="Euclidean distance of the mean embeddings of ALT and REF over {span}, {strands}",
        compute=_l2,
        pooled=True,
    ),
}


def parse_scores(text: str) -> tuple[str, ...]:
    """Return the names of a comma-separated list, each once.

    Raises:
        UsageError: a name is not in `SCORES`.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in SCORES:
            raise UsageError(f"unknown score '{name}'", at="--score", remedy=nearest(name, list(SCORES)))
    return names


def compare(
    windows: WindowPass, alleles: Sequence[AlleleTokens], scores: Sequence[str]
) -> list[Mapping[str, float]]:
    """Return the values of each allele by the names of the scores.

    Raises:
        UserError: the model gives values that are not finite.
    """
    comparison = Comparison(windows, alleles, pooled=any(SCORES[name].pooled for name in scores))
    columns = [SCORES[name].compute(comparison) for name in scores]
    rows = [dict(zip(scores, row, strict=True)) for row in zip(*columns, strict=True)]
    # Equal haplotypes differ by nothing, not by how the two ways of reading them are rounded.
    zeros = dict.fromkeys(scores, 0.0)
    return [
        zeros if np.array_equal(allele.ref, allele.alt) else row
        for allele, row in zip(alleles, rows, strict=True)
    ]


@dataclass(frozen=True)
class ScoringOptions:
    """What is computed of an allele.

    Attributes:
        rule: which windows are read, and how many positions are scored.
        scores: names in `SCORES`.
        both_strands: take the mean of both strands; else the forward strand alone.
        max_allele: longest allele that is scored, in bases; None for a quarter of the window.
    """

    rule: WindowRule
    scores: tuple[str, ...] = ("llr",)
    both_strands: bool = True
    max_allele: int | None = None

    @classmethod
    def for_model(
        cls,
        model: HyenaDNA,
        scores: tuple[str, ...] = ("llr",),
        *,
        both_strands: bool = True,
        window: int | None = None,
        grid: int | None = None,
        downstream: int | None = None,
        max_allele: int | None = None,
    ) -> "ScoringOptions":
        """Return the options with what is left to the model filled in.

        Args:
            model: the model.
            scores: names in `SCORES`.
            both_strands: take the mean of both strands.
            window: bases read; None for the model's context less a soft prompt, at most 8,192.
            grid: windows start at multiples of it; None for window / 8.
            downstream: positions scored from the site on; None for all to the window's end.
            max_allele: longest allele that is scored, in bases; None for window / 4.

        Raises:
            UsageError: the model takes no such window, or sites could lie beyond the window of this grid.
        """
        context, longest = model.config.context, model.longest_input
        window = window or min(context, longest, _MAX_DEFAULT_WINDOW)
        if window > longest:
            room = model.backbone.describe_room() if model.backbone.n_soft else f"{context:,} bases"
            what = f"the model takes at most {room}, not {window:,}"
            raise UsageError(what, at="--window", remedy="choose a smaller window")
        grid = grid or max(1, window // 8)
        if grid > window // 2:
            what = f"a grid of {grid:,} leaves sites outside windows of {window:,}"
            raise UsageError(what, at="--grid", remedy="make it at most half the window")
        return cls(WindowRule(window, grid, downstream), scores, both_strands, max_allele)

    @property
    def longest_allele(self) -> int:
        """Longest allele that is scored, in bases without what REF and ALT share."""
        return self.max_allele or max(1, self.rule.size // 4)


@dataclass(frozen=True, slots=True)
class AlleleScore:
    """The scores of one allele.

    Attributes:
        status: OK, EDGE, or why there are no values.
        values: by the names of the scores; NaN where a score is undefined, none where all are.
    """

    status: str
    values: Mapping[str, float] = field(default_factory=dict)


ScoredRecord = tuple[VariantRecord, Sequence[AlleleScore]]
"""A record with the scores of its ALT alleles, in order."""


def info_fields(options: ScoringOptions) -> list[InfoField]:
    """Return the INFO fields, or columns, of the scores and, last, of the status."""
    rule = options.rule
    span = "the bases to the window's end" if rule.downstream is None else f"{rule.downstream} bases"
    words = {
        "sum": f"Sum over {span}, from the first that differs on,",
        "span": f"{span}, from the first that differs on",
        "strands": "mean of both strands" if options.both_strands else "forward strand",
        "window": str(rule.size),
        "grid": str(rule.grid),
    }
    fields = [
        InfoField(_info_id(name), "A", "Float", SCORES[name].description.format(**words))
        for name in options.scores
    ]
    return [*fields, InfoField(_info_id("status"), "A", "String", f"One of {', '.join(STATUSES)}")]


def info_values(options: ScoringOptions, alleles: Sequence[AlleleScore]) -> dict[str, list[Any]]:
    """Return the values of a record's alleles by the IDs of `info_fields`; None where there is none."""
    values: dict[str, list[Any]] = {}
    for name in options.scores:
        column = (allele.values.get(name, math.nan) for allele in alleles)
        values[_info_id(name)] = [None if math.isnan(value) else value for value in column]
    return {**values, _info_id("status"): [allele.status for allele in alleles]}


def _info_id(name: str) -> str:
    return f"HYENA_{name.upper()}"
