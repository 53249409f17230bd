"""Variants that lie near each other on one haplotype, scored together and each alone.

All are scored in the same window and over the same positions, so that the joint score is the sum of the
others where the model sees no interaction.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

from hyenacli import console
from hyenacli.console import log
from hyenacli.errors import UsageError
from hyenacli.genome.variant import Variant
from hyenacli.readers.genome import Sequences
from hyenacli.readers.genotypes import Call, read_calls, sample_names
from hyenacli.readers.vcf import VariantRecord, spell_allele
from hyenacli.variants.haplotypes import AlleleReader, Replacement, Strand, WindowRule
from hyenacli.variants.input import VariantInput
from hyenacli.variants.scorer import AlleleScore, ScoredRecord, VariantScorer
from hyenacli.writers.columns import Column, TableWriter

# A sample and a haplotype from 0, and a phase set: None before the first.
_Key = tuple[int, int, str | None]
OVERLAP = "OVERLAP"
# Groups scored together.
_BATCH = 512
_OPTION = "--phased"
COLUMNS = [
    *(Column("sample", str), Column("haplotype", int), Column("phase_set", str)),
    *(Column("chrom", str), Column("start", int), Column("end", int)),
    *(Column("n_variants", int), Column("variants", str), Column("status", str)),
    *(Column("llr", float), Column("llr_sum", float), Column("llr_minus_sum", float)),
    Column("llr_each", str),
]


class _Allele(NamedTuple):
    """An allele of a haplotype, with its variant on the genome or the status that says why there is none."""

    record: VariantRecord
    alt: bytes
    variant: Variant | str


@dataclass(slots=True)
class _Group:
    """Alleles of one haplotype that are scored together."""

    sample: str
    haplotype: int
    phase_set: str
    alleles: list[_Allele] = field(default_factory=list)

    def reaches(self, record: VariantRecord, span: int) -> bool:
        """Return whether a record lies on the contig, not before the last allele and within the span."""
        return _reach(self.alleles[0].record, self.alleles[-1].record, record, span)


def _reach(first: VariantRecord, last: VariantRecord, record: VariantRecord, span: int) -> bool:
    behind = record.contig == last.contig and record.position >= last.position
    return behind and record.end - first.position <= span


def phased_rule(rule: WindowRule, span: int | None) -> tuple[WindowRule, int]:
    """Return the windows of groups, and how many bases a group may span.

    From the first base of a group, `span` more positions are scored than of a variant alone, so that its
    last variant has its share too.

    Args:
        rule: the windows of variants alone.
        span: most bases from the first to the last variant; None for as many as are scored of a variant, at
            most window / 8.

    Raises:
        UsageError: the span leaves no room for the scored bases in half a window.
    """
    downstream = rule.downstream or 0
    span = span or max(1, min(downstream or rule.size, rule.size // 8))
    room = rule.size // 2 - downstream - span
    if room < 1:
        what = f"{span:,} bases and the {downstream:,} that are scored exceed half a window of {rule.size:,}"
        raise UsageError(what, at="--phase-span", remedy="choose a smaller one, or a larger --window")
    return replace(
        rule, grid=min(rule.grid, room), downstream=downstream + span if downstream else None
    ), span


def phased_calls(source: VariantInput) -> tuple[list[str], Callable[[VariantRecord], Iterable[Call]]]:
    """Return the samples of an input, and what reads the genotypes of its records.

    Variants that were typed are on one haplotype of a sample without a name.

    Raises:
        UsageError: the input has no genotypes.
    """
    if source.typed:
        if any(len(record.alts) > 1 for record in source.records):
            raise UsageError("a haplotype has one ALT of each variant", at=_OPTION, remedy="type one of them")
        return [""], lambda _record: [Call(0, (1,), phased=True)]
    names = sample_names(source.header.lines[-1]) if source.header.kind != "table" else []
    if not names:
        remedy = "give a VCF with phased GT, or type the variants of one haplotype"
        raise UsageError(f"{source.name} has no genotypes", at=_OPTION, remedy=remedy)
    return names, lambda record: read_calls(record.text)


class PhasedTable:
    """A table with a row for each group of two variants or more on a haplotype.

    Args:
        table: takes the rows.
        source: the input.
        reader: of its alleles.
        scorer: of llr alone, with the rule of `phased_rule`.
        span: most bases from the first variant of a group to its last.

    Raises:
        UsageError: the input has no genotypes.
    """

    def __init__(
        self,
        table: TableWriter,
        source: VariantInput,
        reader: AlleleReader,
        scorer: VariantScorer,
        span: int,
    ) -> None:
        self._table, self._reader, self._scorer, self._genome = table, reader, scorer, source.genome
        self._samples, self._calls = phased_calls(source)
        self._span = span
        self._open: dict[_Key, _Group] = {}
        self._closed: list[_Group] = []
        # the phase set of each sample's last genotype
        self._phase_sets: dict[int, str | None] = {}
        # homozygous alleles of each sample and haplotype within the span, and the set that they have joined
        self._homozygous: dict[tuple[int, int], tuple[str | None, list[_Allele]]] = {}
        self._contig = ""
        self.rows = self.unphased = 0

    def watch(self, scored: Iterable[ScoredRecord]) -> Iterator[ScoredRecord]:
        """Pass records on, and write the groups of their alleles."""
        for record, scores in scored:
            self._add(record)
            yield record, scores
        self._close(list(self._open))
        self._write()

    def _add(self, record: VariantRecord) -> None:
        if record.contig != self._contig:
            self._contig, self._phase_sets = record.contig, {}
        self._close([key for key, group in self._open.items() if not group.reaches(record, self._span)])
        if len(self._closed) >= _BATCH:
            self._write()
        variants: list[Variant | str] = []
        for call in self._calls(record):
            if not (call.phased or call.homozygous):
                self.unphased += 1
                continue
            # homozygous alleles without a set are in that of the call before, and in the next that begins
            has_set = call.phased and (call.phase_set or not call.homozygous)
            phase_set = call.phase_set if has_set else self._phase_sets.get(call.sample)
            self._phase_sets[call.sample] = phase_set
            variants = variants or self._reader.read(record)
            for haplotype, number in enumerate(call.alleles):
                # `*` is part of a deletion that has a record of its own
                if not 0 < number <= len(record.alts) or record.alts[number - 1] == b"*":
                    continue
                key = call.sample, haplotype, phase_set
                if key not in self._open:
                    self._begin(key, record)
                allele = _Allele(record, record.alts[number - 1], variants[number - 1])
                self._open[key].alleles.append(allele)
                if call.homozygous:
                    self._homozygous[key[:2]] = phase_set, [*self._shared(key, record)[1], allele]

    def _begin(self, key: _Key, record: VariantRecord) -> None:
        """Open a group, with the homozygous alleles before it that have joined another set."""
        sample, haplotype, phase_set = key
        group = self._open[key] = _Group(self._samples[sample], haplotype + 1, phase_set or "")
        joined, alleles = self._shared(key, record)
        if joined != phase_set and alleles:
            group.alleles = alleles
            self._homozygous[key[:2]] = phase_set, alleles.copy()
            previous = self._open.get((sample, haplotype, joined))
            if previous is not None and previous.alleles == alleles:  # no other alleles were in it
                del self._open[sample, haplotype, joined]

    def _shared(self, key: _Key, record: VariantRecord) -> tuple[str | None, list[_Allele]]:
        """Return the set of the homozygous alleles before a record, and those within the span."""
        joined, alleles = self._homozygous.get(key[:2], (None, []))
        return joined, [a for a in alleles if _reach(a.record, a.record, record, self._span)]

    def _close(self, keys: Sequence[_Key]) -> None:
        """End groups; a variant alone is none."""
        groups = [self._open.pop(key) for key in keys]
        self._closed += [group for group in groups if len(group.alleles) > 1]

    def _write(self) -> None:
        """Score the groups that are complete, each combination of variants once, and write a row for each."""
        keys = dict.fromkeys(tuple(allele.variant for allele in group.alleles) for group in self._closed)
        to_score = {key: joint_and_each(self._genome, key) for key in keys}
        scores = self._scorer.score(item for items in to_score.values() for item in items)
        scored = {key: [next(scores) for _ in items] for key, items in to_score.items()}
        for group in self._closed:
            self._table.write(_row(group, scored[tuple(allele.variant for allele in group.alleles)]))
        self.rows += len(self._closed)
        self._closed = []

    def finish(self) -> None:
        """Log what was written, and what has no phase."""
        log.info("wrote %s of several variants", console.counted(self.rows, "haplotype"))
        if self.unphased:
            log.info("%s without a phase left out", console.counted(self.unphased, "genotype"))
        console.event("phased", haplotypes=self.rows, unphased=self.unphased)


def _row(group: _Group, scores: Sequence[AlleleScore]) -> dict[str, list[Any]]:
    """Return the cells of a group, whose joint score comes first."""
    joint, *each = [score.values.get("llr", math.nan) for score in scores]
    total = math.fsum(each) if each else math.nan
    first, records = group.alleles[0].record, [allele.record for allele in group.alleles]
    variants = (spell_allele(record, alt) for record, alt, _ in group.alleles)
    return {
        "sample": [group.sample],
        "haplotype": [group.haplotype],
        "phase_set": [group.phase_set],
        "chrom": [first.contig],
        "start": [first.position],
        "end": [max(record.end for record in records)],
        "n_variants": [len(records)],
        "variants": [" ".join(variants)],
        "status": [scores[0].status],
        "llr": [joint],
        "llr_sum": [total],
        "llr_minus_sum": [joint - total],
        "llr_each": [",".join(f"{value:.9g}" for value in each if not math.isnan(value))],
    }


def joint_and_each(genome: Sequences, variants: Sequence[Variant | str]) -> Sequence[Replacement | str]:
    """Return the haplotype with all variants, then those with each alone, as spellings of one stretch.

    The stretch holds every spelling of every variant, so that equivalent ones give equal scores.

    Args:
        genome: the reference.
        variants: of one contig, or the statuses of those that cannot be scored.

    Returns:
        The replacements, or the status that says why there are none: OVERLAP where two variants change the
        same bases.
    """
    cores = [variant.trimmed() for variant in variants if isinstance(variant, Variant)]
    if problems := [variant for variant in variants if isinstance(variant, str)]:
        return problems[:1]
    ordered = sorted(cores, key=lambda core: (core.position, len(core.ref)))
    for core, following in pairwise(ordered):
        both_insert = core.position == following.position and not core.ref and not following.ref
        if both_insert or following.position < core.position + len(core.ref):
            return [OVERLAP]
    contig = cores[0].contig
    start, end = _stretch(genome, contig, cores)
    bases = genome.fetch(contig, start, end)

    def replaced(chosen: Iterable[Variant]) -> Replacement:
        alt, read = b"", start
        for core in chosen:
            alt += bases[read - start : core.position - start] + core.alt
            read = core.position + len(core.ref)
        return Replacement(contig, start, bases, alt + bases[read - start :])

    return [replaced(ordered), *(replaced([core]) for core in cores)]


def _stretch(genome: Sequences, contig: str, cores: Sequence[Variant]) -> tuple[int, int]:
    """Return the start of the leftmost spelling of any variant, and the end of the rightmost."""
    first, last = (min(core.position for core in cores), max(core.position + len(core.ref) for core in cores))
    if contig in genome.circular:  # which may have no first spelling
        return first, last
    length = genome.lengths[contig]
    reverse = Strand(genome, contig, reverse=True)
    for core in cores:
        first = min(first, reverse.variant(core).mirrored(length).position)
        rightmost = core.right_aligned(genome.fetch, length)
        last = max(last, rightmost.position + len(rightmost.ref))
    return first, last
