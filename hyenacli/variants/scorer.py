"""Scores of alleles under a model: log-likelihood ratios and distances of states.

Alleles of one window and strand share a pass over the reference; each then costs its own suffix only,
whatever the size of the window. Nothing depends on which alleles are scored together.

B window, L position.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from hyenacli.devices import is_out_of_memory
from hyenacli.errors import UsageError, UserError, check_range
from hyenacli.genome.variant import Variant
from hyenacli.readers.genome import Sequences
from hyenacli.readers.vcf import VariantRecord
from hyenacli.variants.haplotypes import (
    EDGE,
    N_WINDOW,
    OK,
    STATUSES,
    Strand,
    WindowRule,
    build_haplotypes,
    tokens,
    window_status,
)
from hyenacli.variants.scores import SCORES, AlleleTokens, WindowPass, compare
from hyenacli.writers.vcf import InfoField
from hyenadna import HyenaDNA

_KEPT_BYTES = 1 << 30
_LOOKAHEAD = 1 << 14
_MAX_DEFAULT_WINDOW = 8192


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
            grid: windows start at multiples of it; None as in `WindowRule.of`.
            downstream: positions scored from the site on; None as in `WindowRule.of`.
            max_allele: longest allele that is scored, in bases; None for window / 4.

        Raises:
            UsageError: a number is below 1, the model takes no such window, or sites could lie beyond the
                window of this grid.
        """
        numbers = {"window": window, "grid": grid, "downstream": downstream, "max-allele": max_allele}
        for name, value in numbers.items():
            check_range(f"--{name}", value, 1)
        context, longest = model.config.context, model.longest_input
        window = window or min(context, longest, _MAX_DEFAULT_WINDOW)
        if window > longest:
            room = model.backbone.describe_room() if model.backbone.n_soft else f"{context:,} bases"
            what = f"the model takes at most {room}, not {window:,}"
            raise UsageError(what, at="--window", remedy="choose a smaller window")
        return cls(WindowRule.of(window, grid, downstream), scores, both_strands, max_allele)

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


@dataclass(frozen=True, slots=True)
class _Window:
    """A window of one strand.

    Attributes:
        contig: its contig.
        start: 0-based on the strand.
        status: OK, EDGE or N_WINDOW.
        alleles: index and variant, as read on the strand, of each allele that is scored in it.
    """

    contig: str
    start: int
    status: str
    alleles: list[tuple[int, Variant]] = field(default_factory=list)


class _Strands(dict[str, Strand]):
    """One strand of every contig, by name."""

    def __init__(self, genome: Sequences, *, reverse: bool):
        super().__init__()
        self._genome, self._reverse = genome, reverse

    def __missing__(self, contig: str) -> Strand:
        strand = self[contig] = Strand(self._genome, contig, reverse=self._reverse)
        return strand


class VariantScorer:
    """Scores alleles with one model and one genome.

    llr: the sum over the scored positions of log p(base of ALT) - log p(base of REF), each given all bases
    before it in its haplotype; negative where ALT is less likely. site: the first of these differences
    alone. cosine, l2: the distance of the mean states at the scored positions. N count in none of them.
    Probabilities are over A, C, G and T.

    Args:
        model: in eval mode, on the device to use.
        genome: the reference.
        options: what to compute.
        batch_tokens: most tokens in one forward pass, those of a soft prompt included.
        precision: context of every pass.
        on_progress: called while alleles are read, with the number read since the last call; an allele read
            on the first of two strands counts half.
    """

    def __init__(
        self,
        model: HyenaDNA,
        genome: Sequences,
        options: ScoringOptions,
        *,
        batch_tokens: int,
        precision: AbstractContextManager[object],
        on_progress: Callable[[float], None] = lambda _alleles: None,
    ):
        self._on_progress = on_progress
        self._model, self._genome, self._options = model, genome, options
        self._batch_tokens, self._precision = batch_tokens, precision
        self._device = next(model.parameters()).device
        # the site's own bases are predicted from what precedes them: nothing else is read for them
        site_only = all(SCORES[name].site_only for name in options.scores)
        self._rule = rule = replace(options.rule, downstream=1) if site_only else options.rule
        self._first = rule.size // 2 - 1  # the position before the earliest site
        self._reference_nats, self._reference_bases = 0.0, 0
        config, pass_tokens = model.config, model.backbone.n_soft + rule.read
        per_window = 4 * config.d_model * (rule.read - self._first) * (3 * config.n_layer + 1)
        self._n_windows = max(1, min(_KEPT_BYTES // per_window, batch_tokens // pass_tokens))

    def score(self, alleles: Iterable[Variant | str]) -> Iterator[AlleleScore]:
        """Yield the scores of alleles, in order.

        Args:
            alleles: variants whose REF is the genome's, or a status that says why there is none.

        Raises:
            UserError: a single window does not fit into memory.
        """
        rest = iter(alleles)
        while chunk := list(islice(rest, _LOOKAHEAD)):
            yield from self._score_chunk(chunk)

    @property
    def reference_loss(self) -> float:
        """The mean -log p, in nats, of the reference's bases that were read for scores; NaN if none was."""
        return self._reference_nats / self._reference_bases if self._reference_bases else math.nan

    def _score_chunk(self, alleles: Sequence[Variant | str]) -> list[AlleleScore]:
        statuses = [allele if isinstance(allele, str) else OK for allele in alleles]
        by_strand: list[list[Mapping[str, float]]] = [[] for _ in alleles]
        n_strands = 1 + self._options.both_strands
        for reverse in (False, True)[:n_strands]:
            strands = _Strands(self._genome, reverse=reverse)
            windows = self._group(alleles, statuses, strands)
            start = 0
            while start < len(windows):  # where memory runs out, `_n_windows` is less from then on
                batch = windows[start : start + self._n_windows]
                start += len(batch)
                scored = self._score_with_retry(batch, strands)
                for index, values in scored:
                    by_strand[index].append(values)
                self._on_progress(len(scored) / n_strands)
        return [
            AlleleScore(status, _mean(values) if values and status in (OK, EDGE) else {})
            for status, values in zip(statuses, by_strand, strict=True)
        ]

    def _group(
        self, alleles: Sequence[Variant | str], statuses: list[str], strands: _Strands
    ) -> list[_Window]:
        """Group alleles by window, in the order of the windows; a status may become that of its window."""
        windows: dict[tuple[str, int], _Window] = {}
        for index, allele in enumerate(alleles):
            if isinstance(allele, str):
                continue
            strand = strands[allele.contig]
            variant = strand.variant(allele)
            key = allele.contig, self._rule.start(variant.position)
            if key not in windows:
                windows[key] = _Window(*key, window_status(strand, self._rule, key[1]))
            window = windows[key]
            if window.status != OK and statuses[index] != N_WINDOW:
                statuses[index] = window.status
            if window.status != N_WINDOW:
                window.alleles.append((index, variant))
        return [windows[key] for key in sorted(windows) if windows[key].alleles]

    def _score_with_retry(
        self, windows: Sequence[_Window], strands: _Strands
    ) -> list[tuple[int, Mapping[str, float]]]:
        """Do what `_score_windows` does, with half as much at a time from now on where memory runs out."""
        try:
            return list(self._score_windows(windows, strands))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, where the error's frames no longer keep the tensors of the failed pass.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(windows) // 2
        if half:
            self._n_windows = half
            first = self._score_with_retry(windows[:half], strands)
            return [*first, *self._score_with_retry(windows[half:], strands)]
        if self._batch_tokens > self._rule.read:
            self._batch_tokens //= 2
            return self._score_with_retry(windows, strands)
        raise UserError(
            f"out of memory on {self._device} with one window of {self._rule.size:,} bases",
            remedy="choose a smaller --window or --downstream, or a device with more memory",
        )

    def _score_windows(
        self, windows: Sequence[_Window], strands: _Strands
    ) -> Iterator[tuple[int, Mapping[str, float]]]:
        """Yield index and values of each allele: one pass over the windows, then the suffixes by length."""
        length = self._rule.read
        rows = [tokens(strands[w.contig].bases(w.start, w.start + length)) for w in windows]
        ids_BL = torch.from_numpy(np.stack(rows)).to(self._device).long()
        alleles = [
            self._tokenize(row, strands[window.contig], index, variant)
            for row, window in enumerate(windows)
            for index, variant in window.alleles
        ]
        alleles.sort(key=lambda allele: len(allele.ref))
        with torch.inference_mode(), self._precision:
            shared = WindowPass(self._model, ids_BL, self._first)
            for batch in _batches(alleles, self._batch_tokens):
                values = compare(shared, batch, self._options.scores)
                yield from zip((allele.index for allele in batch), values, strict=True)
            if not all(SCORES[name].pooled for name in self._options.scores):
                nats, bases = shared.reference_loss()
                self._reference_nats += nats
                self._reference_bases += bases

    def _tokenize(self, row: int, strand: Strand, index: int, variant: Variant) -> AlleleTokens:
        pair = build_haplotypes(strand, variant, self._rule)
        return AlleleTokens(index, row, pair.offset, tokens(pair.ref), tokens(pair.alt))


def _batches(alleles: Sequence[AlleleTokens], batch_tokens: int) -> Iterator[Sequence[AlleleTokens]]:
    """Yield alleles in rising order of length, as many as fit into a forward pass."""
    start = 0
    for end in range(1, len(alleles) + 1):
        following = len(alleles[min(end, len(alleles) - 1)].ref) + 4
        if end == len(alleles) or (end + 1 - start) * following > batch_tokens:
            yield alleles[start:end]
            start = end


def _mean(by_strand: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of both strands' values."""
    return {name: sum(values[name] for values in by_strand) / len(by_strand) for name in by_strand[0]}
