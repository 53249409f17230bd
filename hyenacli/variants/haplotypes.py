"""What of a genome a model reads to score an allele: windows on a grid, and both haplotypes in them.

Positions are 0-based on the strand that is read; on the reverse strand, base 0 is the contig's last one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hyenacli.genome.dna import reverse_complement
from hyenacli.genome.variant import Variant, is_symbolic
from hyenacli.readers.genome import Tokens
from hyenadna import Tokenizer

OK, EDGE = "OK", "EDGE"
REF_MISMATCH, NO_CONTIG, SYMBOLIC = "REF_MISMATCH", "NO_CONTIG", "SYMBOLIC"
TOO_LONG, N_WINDOW, N_ALLELE = "TOO_LONG", "N_WINDOW", "N_ALLELE"
STATUSES = (OK, EDGE, REF_MISMATCH, NO_CONTIG, SYMBOLIC, TOO_LONG, N_WINDOW, N_ALLELE)
# A window of which more than this share is N says nothing about the allele.
MAX_N = 0.5
# Bases read at once on both sides of those asked for.
_AROUND = 1 << 15
_TOKENIZER = Tokenizer()


class Sequences(Protocol):
    """Where bases come from; `readers.genome.Genome` is one."""

    @property
    def lengths(self) -> Mapping[str, int]:
        """Bases of each contig."""

    def fetch(self, contig: str, start: int, end: int) -> bytes:
        """The bases [start, end), inside the contig, on the forward strand."""


@dataclass(frozen=True, slots=True)
class WindowRule:
    """Which windows are read.

    Attributes:
        size: bases of a window.
        grid: window starts are multiples of it; 1 centres every window.
        downstream: positions scored from the site on; None for all to the window's end.
    """

    size: int
    grid: int
    downstream: int | None = None

    def start(self, site: int) -> int:
        """Start of the window of a site, which lies size/2 .. size/2 + grid - 1 into it; may be negative."""
        return (site - self.size // 2) // self.grid * self.grid

    def scored(self, offset: int) -> int:
        """How many positions are scored of a site `offset` bases into its window."""
        rest = self.size - offset
        return rest if self.downstream is None else min(rest, self.downstream)

    @property
    def read(self) -> int:
        """Bases of a window that any score needs: the model is causal."""
        if self.downstream is None:
            return self.size
        return min(self.size, self.size // 2 + self.grid - 1 + self.downstream)


class Strand:
    """One strand of one contig, with N on both sides of it."""

    def __init__(self, genome: Sequences, contig: str, *, reverse: bool):
        self._genome, self.contig, self.reverse = genome, contig, reverse
        self.length = genome.lengths[contig]
        self._held, self._held_from = b"", 0

    def bases(self, start: int, end: int) -> bytes:
        """The bases [start, end) of this strand; beyond the contig N."""
        first, last = min(max(start, 0), self.length), max(min(end, self.length), 0)
        inside = self.fetch(self.contig, first, max(first, last))
        return b"N" * min(end - start, first - start) + inside + b"N" * (end - max(start, first, last))

    def fetch(self, contig: str, start: int, end: int) -> bytes:
        """The bases [start, end), inside the contig, of this strand."""
        if not self.reverse:
            return self._forward(contig, start, end)
        return reverse_complement(self._forward(contig, self.length - end, self.length - start))

    def _forward(self, contig: str, start: int, end: int) -> bytes:
        """From what was read last, which reaches further than asked: alleles mostly come in order."""
        first = self._held_from
        if start < first or end > first + len(self._held):
            first = self._held_from = max(0, start - _AROUND)
            self._held = self._genome.fetch(contig, first, min(self.length, end + _AROUND))
        return self._held[start - first : end - first]

    def variant(self, variant: Variant) -> Variant:
        """A forward variant as it reads on this strand, where its haplotypes first differ."""
        own = variant.mirrored(self.length) if self.reverse else variant
        return own.right_aligned(self.fetch, self.length)


@dataclass(frozen=True, slots=True)
class Haplotypes:
    """An allele and the reference in one window of one strand.

    Attributes:
        start: of the window.
        offset: of the first base that differs, in the window.
        ref: the reference's bases scored, from there on.
        alt: the allele's, as many.
    """

    start: int
    offset: int
    ref: bytes
    alt: bytes


def haplotypes(strand: Strand, variant: Variant, rule: WindowRule) -> Haplotypes:
    """Both haplotypes from the first base that differs on.

    Both fill the window exactly: what an insertion pushes out of it is lost, what a deletion pulls in is read
    from the genome.
    """
    return build_haplotypes(strand, strand.variant(variant), rule)


def build_haplotypes(strand: Strand, own: Variant, rule: WindowRule) -> Haplotypes:
    """As `haplotypes`, of what `Strand.variant` made of a variant."""
    start = rule.start(own.position)
    offset = own.position - start
    n = rule.scored(offset)
    after = own.position + len(own.ref)
    return Haplotypes(
        start,
        offset,
        strand.bases(own.position, own.position + n),
        (own.alt + strand.bases(after, after + max(0, n - len(own.alt))))[:n],
    )


def status_of(
    genome: Sequences, contig: str | None, position: int, ref: bytes, alt: bytes, *, max_allele: int
) -> str:
    """Why an allele cannot be scored, or OK; what its windows look like is not asked here.

    Args:
        genome: the reference.
        contig: in the genome's spelling, or None if it has no such contig.
        position: 0-based, of `ref`.
        ref: normalised.
        alt: as the file has it, or normalised.
        max_allele: most bases of an allele once what both share is trimmed.
    """
    if contig is None:
        return NO_CONTIG
    if is_symbolic(alt):
        return SYMBOLIC
    end = position + len(ref)
    inside = position >= 0 and end <= genome.lengths[contig]
    bases = genome.fetch(contig, position, end) if inside else b""
    if not inside or not _matches(ref, bases):
        return REF_MISMATCH
    if b"N" in ref or b"N" in bases or set(alt.upper()) - set(b"ACGTU"):
        return N_ALLELE
    core = Variant(contig, position, ref, alt).trimmed()
    if max(len(core.ref), len(core.alt)) > max_allele:
        return TOO_LONG
    return OK


def _matches(ref: bytes, bases: bytes) -> bool:
    """Whether REF is what the genome has; N on either side says nothing against it."""
    return all(a == b or b"N"[0] in (a, b) for a, b in zip(ref, bases, strict=True))


def window_status(strand: Strand, rule: WindowRule, start: int) -> str:
    """OK, EDGE where the window reaches past the contig, N_WINDOW where what it has of it is mostly N."""
    first, last = max(0, start), min(strand.length, start + rule.size)
    inside = strand.fetch(strand.contig, first, max(first, last))
    if inside.count(b"N") > MAX_N * len(inside):
        return N_WINDOW
    return OK if len(inside) == rule.size else EDGE


def tokens(bases: bytes) -> Tokens:
    """Token ids of normalised bases."""
    return np.asarray(_TOKENIZER.encode_array(bases))
