"""The effect of alleles on what a model expects: log-likelihood ratios and distances of states.

Alleles of one window and strand share a reference pass; each then costs its own suffix only, whatever the
size of the window. Windows are those of `haplotypes`; nothing depends on which alleles come together.

B window, L position.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import torch

from hyenacli.devices import is_out_of_memory
from hyenacli.errors import UserError
from hyenacli.genome.variant import Variant
from hyenacli.variants.haplotypes import (
    N_WINDOW,
    OK,
    Sequences,
    Strand,
    WindowRule,
    build_haplotypes,
    tokens,
    window_status,
)
from hyenacli.variants.score_functions import Differences, Job
from hyenadna import HyenaDNA

_KEPT_BYTES = 1 << 30
_LOOKAHEAD = 1 << 14
_Place = tuple[str, int]
"""Contig and start of a window."""


@dataclass(frozen=True)
class ScoringOptions:
    """What is computed of an allele.

    Attributes:
        rule: which windows are read, and how many positions are scored.
        scores: some of `variant_plan.SCORES`.
        both_strands: take the mean of both strands; else the forward strand alone.
    """

    rule: WindowRule
    scores: tuple[str, ...] = ("llr",)
    both_strands: bool = True


@dataclass(frozen=True, slots=True)
class AlleleScore:
    """The answer for one allele.

    Attributes:
        status: OK, EDGE, or why there are no values.
        values: by the names of the recipe's scores; NaN where a score means nothing, none where all do.
    """

    status: str
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Task:
    """One allele as it reads on one strand: `number` is its place among the alleles looked at together."""

    number: int
    own: Variant


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
        recipe: what to compute.
        batch_tokens: most tokens in one forward pass, those of a soft prompt included.
        precision: context of every pass.
        on_progress: called while alleles are read, with the number read since the last call; an allele read
            on the first of two strands counts half.
    """

    def __init__(
        self,
        model: HyenaDNA,
        genome: Sequences,
        recipe: ScoringOptions,
        *,
        batch_tokens: int,
        precision: AbstractContextManager[object],
        on_progress: Callable[[float], None] = lambda _alleles: None,
    ):
        self._on_progress = on_progress
        self._genome, self._recipe = genome, recipe
        self._batch_tokens, self._precision = batch_tokens, precision
        self._device = next(model.parameters()).device
        # the site's own bases are predicted from what precedes them: nothing else is read for them
        site_alone = recipe.scores == ("site",)
        self._rule = rule = replace(recipe.rule, downstream=1) if site_alone else recipe.rule
        first = rule.size // 2 - 1  # the position before the earliest site
        config, pass_tokens = model.config, model.backbone.n_soft + rule.read
        per_window = 4 * config.d_model * (rule.read - first) * (3 * config.n_layer + 1)
        self._windows = max(1, min(_KEPT_BYTES // per_window, batch_tokens // pass_tokens))
        self._differences = Differences(model, recipe.scores, first)

    def score(self, alleles: Iterable[Variant | str]) -> Iterator[AlleleScore]:
        """The answers, in order.

        Args:
            alleles: variants whose REF is the genome's, or a status that says why there is none.

        Raises:
            UserError: a single window does not fit into memory.
        """
        rest = iter(alleles)
        while chunk := list(islice(rest, _LOOKAHEAD)):
            yield from self._chunk(chunk)

    def _chunk(self, alleles: Sequence[Variant | str]) -> list[AlleleScore]:
        statuses = [allele if isinstance(allele, str) else OK for allele in alleles]
        sums: list[list[dict[str, float]]] = [[] for _ in alleles]
        for reverse in (False, True)[: 1 + self._recipe.both_strands]:
            strands = _Strands(self._genome, reverse=reverse)
            windows = self._tasks(alleles, statuses, strands)
            places = sorted(windows)
            first = 0
            while first < len(places):  # where memory runs out, `_windows` is less from then on
                some = places[first : first + self._windows]
                first += len(some)
                found = self._bearable(some, [windows[place] for place in some], strands)
                for number, values in found:
                    sums[number].append(values)
                self._on_progress(len(found) / (1 + self._recipe.both_strands))
        return [
            AlleleScore(status, _mean(values) if values and status in (OK, "EDGE") else {})
            for status, values in zip(statuses, sums, strict=True)
        ]

    def _tasks(
        self, alleles: Sequence[Variant | str], statuses: list[str], strands: _Strands
    ) -> dict[_Place, list[_Task]]:
        """The alleles by window; statuses are changed by what the windows are like."""
        windows: dict[_Place, list[_Task]] = defaultdict(list)
        seen: dict[_Place, str] = {}
        for number, allele in enumerate(alleles):
            if isinstance(allele, str):
                continue
            strand = strands[allele.contig]
            own = strand.variant(allele)
            place = allele.contig, self._rule.start(own.position)
            if place not in seen:
                seen[place] = window_status(strand, self._rule, place[1])
            if seen[place] != OK and statuses[number] != N_WINDOW:
                statuses[number] = seen[place]
            if seen[place] != N_WINDOW:
                windows[place].append(_Task(number, own))
        return windows

    def _bearable(
        self, places: Sequence[_Place], tasks: Sequence[Sequence[_Task]], strands: _Strands
    ) -> list[tuple[int, dict[str, float]]]:
        """What `_read` gives, of half as much at a time from now on where memory runs out."""
        try:
            return list(self._read(places, tasks, strands))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, where the error's frames no longer keep the tensors of the failed pass.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(places) // 2
        if half:
            self._windows = half
            first = self._bearable(places[:half], tasks[:half], strands)
            return [*first, *self._bearable(places[half:], tasks[half:], strands)]
        if self._batch_tokens > self._rule.read:
            self._batch_tokens //= 2
            return self._bearable(places, tasks, strands)
        raise UserError(
            f"out of memory on {self._device} with one window of {self._rule.size:,} bases",
            remedy="choose a smaller --window or --downstream, or a device with more memory",
        )

    def _read(
        self, places: Sequence[_Place], tasks: Sequence[Sequence[_Task]], strands: _Strands
    ) -> Iterator[tuple[int, dict[str, float]]]:
        """One reference pass over windows, and the suffixes of their alleles."""
        length = self._rule.read
        rows = [tokens(strands[contig].bases(start, start + length)) for contig, start in places]
        ids_BL = torch.from_numpy(np.stack(rows)).to(self._device).long()
        jobs = [
            self._job(row, strands[contig], task)
            for row, ((contig, _), here) in enumerate(zip(places, tasks, strict=True))
            for task in here
        ]
        with torch.inference_mode(), self._precision:
            yield from self._differences.of(ids_BL, jobs, self._batch_tokens)

    def _job(self, row: int, strand: Strand, task: _Task) -> Job:
        found = build_haplotypes(strand, task.own, self._rule)
        return Job(task.number, row, found.offset, tokens(found.ref), tokens(found.alt))


def _mean(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of both strands' values."""
    return {name: sum(values[name] for values in found) / len(found) for name in found[0]}
