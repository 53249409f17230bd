"""What a model reads of a genome to score an allele: windows on a grid, and both haplotypes in them.

Positions are 0-based on the strand that is read; on the reverse strand, base 0 is the contig's last one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from hyenacli.errors import UsageError
from hyenacli.genome.dna import first_invalid, normalise, reverse_complement
from hyenacli.genome.variant import Variant, is_symbolic
from hyenacli.readers.genome import Sequences, Tokens
from hyenacli.readers.vcf import VariantRecord
from hyenadna import Tokenizer

OK, EDGE = "OK", "EDGE"
REF_MISMATCH, NO_CONTIG, SYMBOLIC = "REF_MISMATCH", "NO_CONTIG", "SYMBOLIC"
TOO_LONG, N_WINDOW, N_ALLELE = "TOO_LONG", "N_WINDOW", "N_ALLELE"
STATUSES = (OK, EDGE, REF_MISMATCH, NO_CONTIG, SYMBOLIC, TOO_LONG, N_WINDOW, N_ALLELE)
# A window of which a larger share than this is N is not scored.
MAX_N = 0.5
_DEFAULT_DOWNSTREAM = 512
_TOKENIZER = Tokenizer()


@dataclass(frozen=True, slots=True)
class WindowRule:
    """The windows that are read.

    Attributes:
        size: bases of a window.
        grid: window starts are multiples of it; 1 centres every window.
        downstream: positions scored from the site on; None for all to the window's end.
    """

    size: int
    grid: int
    downstream: int | None = None

    @classmethod
    def of(cls, size: int, grid: int | None = None, downstream: int | None = None) -> "WindowRule":
        """Return the rule with what is None filled in.

        Args:
            size: bases of a window.
            grid: None for the largest that leaves every site its downstream positions, size / 2 - downstream,
                and at least size / 8.
            downstream: None for 512, at most size / 4; from the size on, all positions to the window's end.

        Raises:
            UsageError: sites could lie beyond the window of this grid.
        """
        downstream = downstream or max(1, min(_DEFAULT_DOWNSTREAM, size // 4))
        grid = grid or max(1, size // 8, size // 2 - downstream)
        if grid > size // 2:
            what = f"a grid of {grid:,} leaves sites outside windows of {size:,}"
            raise UsageError(what, at="--grid", remedy="make it at most half the window")
        return cls(size, grid, downstream if downstream < size else None)

    def start(self, site: int) -> int:
        """Return the start of a site's window, which may be negative.

        The site lies size/2 .. size/2 + grid - 1 into the window.
        """
        return (site - self.size // 2) // self.grid * self.grid

    def scored(self, offset: int) -> int:
        """Return how many positions are scored of a site `offset` bases into its window."""
        rest = self.size - offset
        return rest if self.downstream is None else min(rest, self.downstream)

    @property
    def read(self) -> int:
        """Bases of a window that any score needs: the model is causal."""
        if self.downstream is None:
            return self.size
        return min(self.size, self.size // 2 + self.grid - 1 + self.downstream)


class Replacement(Variant):
    """A variant that is read as it is spelled: its first base is the site, wherever the haplotypes differ."""

    __slots__ = ()


class Strand:
    """One strand of one contig, with N on both sides of it, or with its other end if it is a circle.

    Args:
        genome: the reference.
        contig: name of the contig.
        reverse: read the reverse strand.
        read_ahead: bases read on both sides of those needed: alleles mostly come in order.
    """

    def __init__(self, genome: Sequences, contig: str, *, reverse: bool, read_ahead: int = 1 << 15):
        self._genome, self.contig, self.reverse = genome, contig, reverse
        self.length, self.circular = genome.lengths[contig], contig in genome.circular
        self._read_ahead = read_ahead
        self._cached, self._cached_from = b"", 0

    def bases(self, start: int, end: int) -> bytes:
        """Return the bases [start, end) of this strand; beyond the contig N."""
        if self.circular:
            return self.fetch(self.contig, start, end)
        first, last = min(max(start, 0), self.length), max(min(end, self.length), 0)
        inside = self.fetch(self.contig, first, max(first, last))
        return b"N" * min(end - start, first - start) + inside + b"N" * (end - max(start, first, last))

    def fetch(self, contig: str, start: int, end: int) -> bytes:
        """Return the bases [start, end) of this strand, inside the contig unless it is a circle."""
        if not self.reverse:
            return self._forward(contig, start, end)
        return reverse_complement(self._forward(contig, self.length - end, self.length - start))

    def _forward(self, contig: str, start: int, end: int) -> bytes:
        """Return the bases [start, end) of the forward strand, from what was read last if it has them."""
        first = self._cached_from
        if start < first or end > first + len(self._cached):
            first, last = start - self._read_ahead, end + self._read_ahead
            if not self.circular:
                first, last = max(0, first), min(self.length, last)
            self._cached, self._cached_from = self._genome.fetch(contig, first, last), first
        return self._cached[start - first : end - first]

    def variant(self, variant: Variant) -> Variant:
        """Return a forward variant on this strand, at the first base where its haplotypes differ.

        A `Replacement` begins on this strand where it ends on the other.
        """
        on_strand = variant.mirrored(self.length) if self.reverse else variant
        once_around = on_strand.position + len(on_strand.ref) + self.length
        if isinstance(variant, Replacement):
            aligned = on_strand
        else:
            aligned = on_strand.right_aligned(self.fetch, once_around if self.circular else self.length)
        # on a linear contig, what is inserted at the end stands at its length
        return replace(aligned, position=aligned.position % self.length) if self.circular else aligned


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


def build_haplotypes(strand: Strand, variant: Variant, rule: WindowRule) -> Haplotypes:
    """Build both haplotypes from the first base that differs on.

    Both fill the window exactly: what an insertion pushes out of it is lost, what a deletion pulls in is read
    from the genome.

    Args:
        strand: the strand to read.
        variant: as `Strand.variant` gives it.
        rule: the window.
    """
    start = rule.start(variant.position)
    offset = variant.position - start
    n = rule.scored(offset)
    after = variant.position + len(variant.ref)
    return Haplotypes(
        start,
        offset,
        strand.bases(variant.position, variant.position + n),
        (variant.alt + strand.bases(after, after + max(0, n - len(variant.alt))))[:n],
    )


def status_of(
    genome: Sequences, contig: str | None, position: int, ref: bytes, alt: bytes, *, max_allele: int
) -> str:
    """Return why an allele cannot be scored, or OK; its windows are not looked at.

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
    end, length = position + len(ref), genome.lengths[contig]
    inside = position >= 0 and end <= length
    if contig in genome.circular:  # REF may reach across the end
        inside = 0 <= position < length and len(ref) <= length
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
    """Return whether REF is what the genome has; N on either side matches anything."""
    return all(a == b or b"N"[0] in (a, b) for a, b in zip(ref, bases, strict=True))


def window_status(strand: Strand, rule: WindowRule, start: int) -> str:
    """Return N_WINDOW where the contig's bases are mostly N, EDGE where some lie past the contig, else OK."""
    first, last = start, start + rule.size
    if not strand.circular:
        first, last = max(0, first), min(strand.length, last)
    inside = strand.fetch(strand.contig, first, max(first, last))
    if inside.count(b"N") > MAX_N * len(inside):
        return N_WINDOW
    return OK if len(inside) == rule.size else EDGE


def tokens(bases: bytes) -> Tokens:
    """Return the token ids of normalised bases."""
    return np.asarray(_TOKENIZER.encode_array(bases))


class AlleleReader:
    """Reads the alleles of records on a genome.

    Args:
        genome: the reference.
        resolve: gives a contig in the genome's spelling, None where the genome has no such contig.
        max_allele: most bases of an allele without what REF and ALT share.
    """

    def __init__(self, genome: Sequences, resolve: Callable[[str], str | None], max_allele: int):
        self._genome, self._max_allele = genome, max_allele
        self.resolve = cache(resolve)

    def read(self, record: VariantRecord) -> list[Variant | str]:
        """Return for each ALT the variant, its REF as the genome has it, or the status that says why not."""
        contig = self.resolve(record.contig)
        if first_invalid(record.ref) >= 0:
            return [status_of(self._genome, contig, -1, b"", alt, max_allele=1) for alt in record.alts]
        ref, alleles = normalise(record.ref), list[Variant | str]()
        for alt in record.alts:
            status = status_of(self._genome, contig, record.position, ref, alt, max_allele=self._max_allele)
            if contig is None or status != OK:
                alleles.append(status)
            else:
                bases = self._genome.fetch(contig, record.position, record.end)
                alleles.append(Variant(contig, record.position, bases, normalise(alt)))
        return alleles
