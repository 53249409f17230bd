"""Sequence that the splits of species share and should not: whole contigs, accessions, and k-mers."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import combinations
from typing import Any, Literal

from hyenacli.evaluation.report import number_table
from hyenacli.evaluation.sketch import K, Sketch, shared_kmers, sketch
from hyenacli.inference.intervals import SPLITS, Interval
from hyenacli.inference.sampling import complement
from hyenacli.readers.genome import Contig
from hyenacli.species.splits import SpeciesSplits

MAX_SHARE = 0.05
"""A larger share of k-mers is worth a warning."""
_MIN_KMERS = 100
_PIECE = 1 << 20

# INSDC, RefSeq and WGS accessions, alone, with a version, or inside a longer name.
_ACCESSION = re.compile(r"(?<![A-Za-z0-9])([A-Z]{2}_?\d{6,9}|[A-Z]{4,6}\d{8,})(?![A-Za-uw-z0-9])")

Assignment = tuple[int, tuple[str, ...]]
"""The label of a contig's species, and the splits that the contig is in."""


@dataclass(frozen=True)
class DuplicateContigs:
    """Contigs that two species, or two splits of one species, both have.

    Attributes:
        kind: "contents" for the same bases on either strand, or "accession".
        first: a species and its splits, such as "human train".
        count: how many contigs both have.
        example: one contig of each.
    """

    kind: Literal["contents", "accession"]
    first: str
    second: str
    count: int
    example: tuple[Contig, Contig]

    @property
    def sentence(self) -> str:
        """A sentence for a warning."""
        relation = "with the same bases" if self.kind == "contents" else "of one accession"
        names = " and ".join(f"{contig.name} ({contig.source})" for contig in self.example)
        number = f"{self.count:,} contigs" if self.count > 1 else "a contig"
        return f"{self.first} and {self.second} have {number} {relation}, such as {names}"


@dataclass(frozen=True)
class KmerContainment:
    """How much of a held-out split occurs in a training split, by a sample of its distinct k-mers.

    Attributes:
        held_out: a species and its split, such as "mouse test".
        training: a species and its training split.
        count: k-mers of the sample that occur in the training split.
        total: k-mers of the sample.
    """

    held_out: str
    training: str
    count: int
    total: int

    @property
    def share(self) -> float | None:
        """The share of the k-mers that occur in the training split; None where the sample is too small."""
        return self.count / self.total if self.total >= _MIN_KMERS else None

    @property
    def sentence(self) -> str:
        """A sentence for a warning."""
        if self.share is None:
            return f"{self.held_out}: too few {K}-mers to tell whether {self.training} has them"
        return f"{self.held_out}: {self.share:.1%} of its {K}-mers occur in {self.training}"


@dataclass(frozen=True)
class LeakageReport:
    """The result of `find_leakage`.

    Attributes:
        duplicates: contigs that should be in one split of one species only.
        containments: of every held-out split in every training split, however small.
    """

    duplicates: tuple[DuplicateContigs, ...]
    containments: tuple[KmerContainment, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report for metrics.json."""
        return {
            "contigs": [duplicate.sentence for duplicate in self.duplicates],
            f"shared_{K}_mers": [
                {"held": c.held_out, "seen": c.training, "share": c.share, "count": c.count, "total": c.total}
                for c in self.containments
            ],
        }

    def to_html(self) -> str:
        """Return the section of report.html, with every share, however small."""
        shares = {(c.held_out, c.training): c.share for c in self.containments}
        rows_of, columns = (list(dict.fromkeys(names)) for names in zip(*shares, strict=True))
        rows = [[row, *(_percent(shares[row, column]) for column in columns)] for row in rows_of]
        table = number_table([f"share of the {K}-mers of", *(f"in {column}" for column in columns)], rows)
        duplicates = "".join(f"<p>{escape(duplicate.sentence)}</p>" for duplicate in self.duplicates)
        return f"<h2>What held-out splits share with training splits</h2>{table}{duplicates}"

    def sentences(self, above: float = MAX_SHARE) -> list[str]:
        """Return warnings: duplicates, shares of k-mers above a limit, and samples that are too small."""
        large = [c for c in self.containments if c.share is None or c.share > above]
        return [duplicate.sentence for duplicate in self.duplicates] + [c.sentence for c in large]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def find_leakage(splits: SpeciesSplits) -> LeakageReport:
    """Search the splits of species for shared sequence; strands and the order of contigs make no difference.

    Contigs with the same bases or accession are searched for between all species, and between the splits of
    each. Every validation and test split is compared with the training splits of all species by its distinct
    31-mers, or a sample of them (see `sketch`). A 31-mer is too long to occur twice by chance: a shared one
    is a copy, which may also be a repeat of the genome, or a gene that related species have.

    Reads every base of every split: about half a minute for a billion.
    """
    assignments = _assignments(splits)
    digests = {number: _digest(splits.contigs[number]) for number in assignments}
    accessions = {number: _accession(splits.contigs[number].name) for number in assignments}
    duplicates = [
        *_duplicates(splits, assignments, "contents", digests),
        *_duplicates(splits, assignments, "accession", accessions, digests),
    ]
    return LeakageReport(tuple(duplicates), tuple(_containments(splits)))


def _assignments(splits: SpeciesSplits) -> dict[int, Assignment]:
    """Return the assignment of each contig, by its number, without contigs that are in no split."""
    names: dict[int, dict[str, None]] = {}
    for split in SPLITS:
        for intervals in splits.intervals(split):
            for interval in intervals:
                names.setdefault(interval.contig, {})[split] = None
    return {number: (splits.labels[number], tuple(names[number])) for number in sorted(names)}


def _duplicates(
    splits: SpeciesSplits,
    assignments: Mapping[int, Assignment],
    kind: Literal["contents", "accession"],
    keys: Mapping[int, bytes | str | None],
    digests: Mapping[int, bytes] | None = None,
) -> Iterator[DuplicateContigs]:
    """Yield contigs of two assignments with one key; with `digests`, only those that differ in these."""
    by_key: dict[bytes | str, dict[Assignment, list[int]]] = {}
    for number, key in keys.items():
        if key is not None:
            by_key.setdefault(key, {}).setdefault(assignments[number], []).append(number)
    pairs: dict[tuple[Assignment, Assignment], list[tuple[int, int]]] = {}
    for numbers in by_key.values():
        for a, b in _pairs(numbers):
            if digests is None or digests[a] != digests[b]:
                pairs.setdefault((assignments[a], assignments[b]), []).append((a, b))
    for between, examples in pairs.items():
        first, second = (f"{splits.names[label]} {'/'.join(names)}" for label, names in between)
        a, b = examples[0]
        yield DuplicateContigs(kind, first, second, len(examples), (splits.contigs[a], splits.contigs[b]))


def _pairs(numbers: Mapping[Assignment, Sequence[int]]) -> Iterator[tuple[int, int]]:
    """Yield a pair of contigs for every two assignments, and for an assignment to several splits."""
    for (_, splits), (first, *others) in numbers.items():
        if len(splits) > 1 and others:
            yield first, others[0]
    for (a, *_), (b, *_) in combinations(numbers.values(), 2):
        yield a, b


def _digest(contig: Contig) -> bytes:
    """Return a digest that is equal for a sequence and its reverse complement."""
    forward, reverse = (hashlib.blake2b(digest_size=16) for _ in range(2))
    for start in range(0, len(contig), _PIECE):
        forward.update(contig.tokens(start, start + _PIECE).tobytes())
    for end in range(len(contig), 0, -_PIECE):
        reverse.update(complement(contig.tokens(max(0, end - _PIECE), end)).tobytes())
    return min(forward.digest(), reverse.digest())


def _accession(name: str) -> str | None:
    """Return the accession in a contig's name, without its version.

    >>> _accession("gi|9626243|ref|NC_001416.1|"), _accession("chrUn_KI270302v1"), _accession("chr1")
    ('NC_001416', 'KI270302', None)
    """
    match = _ACCESSION.search(name)
    return match[1] if match else None


def _containments(splits: SpeciesSplits) -> Iterator[KmerContainment]:
    training = [_sketch(splits, intervals) for intervals in splits.intervals("train")]
    for split in ("valid", "test"):
        for name, intervals in zip(splits.names, splits.intervals(split), strict=True):
            if intervals:
                held_out = _sketch(splits, intervals)
                for other, kmers in zip(splits.names, training, strict=True):
                    yield KmerContainment(f"{name} {split}", f"{other} train", *shared_kmers(held_out, kmers))


def _sketch(splits: SpeciesSplits, intervals: list[Interval]) -> Sketch:
    stretches = (splits.contigs[i.contig].codes[i.start : i.end] for i in intervals)
    return sketch(stretches, sum(map(len, intervals)))
