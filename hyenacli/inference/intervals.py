"""Intervals of a genome that are trained on, validated on and tested on."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from hyenacli.errors import UserError, abbreviate, nearest
from hyenacli.genome.contigs import ContigMap, match_contigs
from hyenacli.readers.genome import Contig
from hyenacli.readers.regions import read_bed

SPLITS = ("train", "valid", "test")
Unit = TypeVar("Unit", str, int)


@dataclass(frozen=True, order=True)
class Interval:
    """Bases start..end (0-based half-open) of contig number `contig`."""

    contig: int
    start: int
    end: int

    def __len__(self) -> int:
        """Return the length in bases."""
        return self.end - self.start


@dataclass(frozen=True)
class Splits:
    """Disjoint intervals of the contigs, by split."""

    train: list[Interval] = field(default_factory=list)
    valid: list[Interval] = field(default_factory=list)
    test: list[Interval] = field(default_factory=list)

    def bases(self) -> dict[str, int]:
        """Count the bases in each split."""
        return {name: sum(map(len, getattr(self, name))) for name in SPLITS}


def split_by_contigs(contigs: Sequence[Contig], valid: Sequence[str], test: Sequence[str]) -> Splits:
    """Hold out whole contigs by name; a name in several files is held out in all of them.

    chr1 and 1, chrM and MT are taken for each other where the FASTA has only one of them.

    Raises:
        UserError: a name that no file has, or that is asked for twice.
    """
    valid_names, test_names = (named_contigs(contigs, names, "to hold out") for names in (valid, test))
    if both := valid_names & test_names:
        raise UserError(f"contigs both for validation and test: {', '.join(sorted(both))}")
    splits = Splits()
    for number, contig in enumerate(contigs):
        interval = Interval(number, 0, len(contig))
        if contig.name in valid_names:
            splits.valid.append(interval)
        else:
            (splits.test if contig.name in test_names else splits.train).append(interval)
    return splits


def named_contigs(contigs: Sequence[Contig], names: Sequence[str], purpose: str) -> set[str]:
    """Return contigs by name, as the genomes spell them.

    Raises:
        UserError: a name that no file has; the message says what it was named for.
    """
    spellings = _spellings(contigs, f"the names {purpose}")
    named = set()
    for name in names:
        spelt = spellings.resolve(name)
        if spelt is None:
            names_of_genomes = list(dict.fromkeys(contig.name for contig in contigs))
            raise UserError(f"no contig '{name}' {purpose}", remedy=nearest(name, names_of_genomes))
        named.add(spelt)
    return named


def _spellings(contigs: Sequence[Contig], input_name: str) -> ContigMap:
    """Match contig names of another style with those of the genomes."""
    fasta = ", ".join(dict.fromkeys(str(contig.source) for contig in contigs))
    names = dict.fromkeys(contig.name for contig in contigs)
    return match_contigs((), names, style="auto", aliases={}, input_name=input_name, genome_name=fasta)


def split_by_fraction(contigs: Sequence[Contig], fraction: float, window: int, seed: int) -> Splits:
    """Hold out a fraction of the bases in blocks spread over the genome, chosen by seed.

    Contigs are cut into equal blocks, about ten of them held out in all and none shorter than a window, so
    that no window crosses from one split into the other.
    """
    total = sum(map(len, contigs))
    blocks = cut_into_blocks(contigs, max(window, round(total * fraction / 10)))
    n_valid = min(len(blocks) - 1, max(1, round(len(blocks) * fraction))) if fraction else 0
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(blocks))
    chosen = set(order[:n_valid].tolist())
    return Splits(
        train=[b for i, b in enumerate(blocks) if i not in chosen],
        valid=[b for i, b in enumerate(blocks) if i in chosen],
    )


def cut_into_blocks(contigs: Sequence[Contig], least: int) -> list[Interval]:
    """Cut contigs into equal blocks of at least `least` bases; a shorter contig is one block."""
    blocks = []
    for number, contig in enumerate(contigs):
        pieces = max(1, len(contig) // least)
        edges = np.linspace(0, len(contig), pieces + 1).astype(int).tolist()
        blocks += [Interval(number, a, b) for a, b in itertools.pairwise(edges)]
    return blocks


def split_by_intervals(contigs: Sequence[Contig], bed: Path) -> Splits:
    """Take the splits from column 4 of a BED (train, valid or test), as the published recipe does.

    Overlapping intervals of one split are merged, so that no base counts twice. chr1 and 1, chrM and MT are
    taken for each other where the FASTA has only one of them.

    Raises:
        UserError: an unknown split or contig, a contig that several files have, an interval past a contig's
            end, or two splits that overlap.
    """
    numbers = {contig.name: number for number, contig in enumerate(contigs)}
    names = Counter(contig.name for contig in contigs)
    ambiguous = {name for name, times in names.items() if times > 1}
    spellings = _spellings(contigs, str(bed))
    rows: dict[str, list[tuple[Interval, int]]] = {name: [] for name in SPLITS}
    faulty: list[int] = []
    for record in read_bed(bed):
        region = record.region
        if region.name not in rows:
            raise UserError(
                f"column 4 is '{region.name}'", at=bed, line=record.line, remedy="write train, valid or test"
            )
        name = spellings.resolve(region.contig)
        if name in ambiguous:
            raise UserError(
                f"several FASTA files have a contig '{name}'",
                at=bed,
                line=record.line,
                remedy="give contigs names of their own, or use --valid-contigs",
            )
        if name is None:
            raise UserError(
                f"no contig '{region.contig}' in {spellings.genome_name}",
                at=bed,
                line=record.line,
                remedy=nearest(region.contig, list(numbers)),
            )
        number = numbers[name]
        if not len(region) or region.end > len(contigs[number]):
            faulty.append(record.line)
        rows[region.name].append((Interval(number, region.start, region.end), record.line))
    if faulty:
        lines = f"line{'s' * (len(faulty) > 1)} {abbreviate(map(str, faulty))}"
        remedy = "check that BED and FASTA are the same assembly"
        what = f"{len(faulty):,} interval{'s' * (len(faulty) > 1)} without bases, or past the contig's end"
        raise UserError(what, at=f"{bed}, {lines}", remedy=remedy)
    _refuse_overlaps(rows, bed)
    return Splits(**{name: merged([interval for interval, _ in rows[name]]) for name in SPLITS})


def _refuse_overlaps(by_split: dict[str, list[tuple[Interval, int]]], bed: Path) -> None:
    """Raise UserError if two intervals of different splits share a base."""
    rows = sorted((interval, line, name) for name, rows in by_split.items() for interval, line in rows)
    reach: dict[str, tuple[Interval, int]] = {}
    for interval, line, name in rows:
        for other, (last, last_line) in reach.items():
            if other != name and last.contig == interval.contig and last.end > interval.start:
                raise UserError(
                    f"overlaps the {other} interval of line {last_line}",
                    at=bed,
                    line=line,
                    remedy="give every base to one split",
                )
        previous = reach.get(name)
        if previous is None or (previous[0].contig, previous[0].end) < (interval.contig, interval.end):
            reach[name] = (interval, line)


def merged(intervals: list[Interval]) -> list[Interval]:
    """Return the same bases in as few intervals as possible, in order."""
    joined: list[Interval] = []
    for interval in sorted(intervals):
        last = joined[-1] if joined else None
        if last and last.contig == interval.contig and interval.start <= last.end:
            joined[-1] = Interval(last.contig, last.start, max(last.end, interval.end))
        else:
            joined.append(interval)
    return joined


def fill_to_size(units: Sequence[Unit], sizes: Mapping[Unit, int], target: float, limit: int) -> list[Unit]:
    """Choose units, in order, each of which brings the sum of sizes nearer to a target.

    At least one is chosen (the smallest where none brings it nearer), and at most `limit`.

    >>> fill_to_size(["a", "b", "c"], {"a": 9, "b": 3, "c": 1}, target=4, limit=2)
    ['b', 'c']
    """
    chosen: list[Unit] = []
    total = 0
    for unit in units:
        if len(chosen) < limit and abs(total + sizes[unit] - target) < abs(total - target):
            chosen.append(unit)
            total += sizes[unit]
    return chosen or [min(units, key=lambda unit: sizes[unit])]
