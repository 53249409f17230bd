"""One alternative allele of one variant, and its unique spelling on a genome."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hyenacli.genome.dna import reverse_complement

VariantKind = Literal["snv", "mnv", "insertion", "deletion", "complex", "identical"]
Fetch = Callable[[str, int, int], bytes]

_BLOCK = 256


@dataclass(frozen=True, slots=True)
class Variant:
    """`ref` at `position` is replaced by `alt`.

    Attributes:
        contig: the contig's name.
        position: first base of `ref`, 0-based (VCF's POS minus 1).
        ref: normalised bases, empty for an insertion before `position`.
        alt: normalised bases, empty for a deletion.
    """

    contig: str
    position: int
    ref: bytes
    alt: bytes

    @property
    def kind(self) -> VariantKind:
        """What is left after trimming: a substitution by its length, or what is added or removed."""
        core = self.trimmed()
        if not core.ref:
            return "insertion" if core.alt else "identical"
        if not core.alt:
            return "deletion"
        if len(core.ref) != len(core.alt):
            return "complex"
        return "snv" if len(core.ref) == 1 else "mnv"

    def trimmed(self) -> "Variant":
        """Without the bases both alleles share, at the end first, then at the start; either may become empty.

        >>> Variant("chr1", 10, b"CAG", b"CG").trimmed()
        Variant(contig='chr1', position=11, ref=b'A', alt=b'')
        """
        suffix = _shared(self.ref[::-1], self.alt[::-1])
        ref, alt = self.ref[: len(self.ref) - suffix], self.alt[: len(self.alt) - suffix]
        prefix = _shared(ref, alt)
        return Variant(self.contig, self.position + prefix, ref[prefix:], alt[prefix:])

    def left_aligned(self, fetch: Fetch) -> "Variant":
        """The trimmed variant at its leftmost position: every equivalent spelling gives the same result.

        Equals `bcftools norm` without the padding base that VCF needs. Only pure insertions and deletions can
        move: the alleles of anything else end in different bases.

        Args:
            fetch: the bases [start, end) of a contig, as `Genome.fetch`; asked only for bases left of the
                variant.

        >>> genome = b"GGCACACAT"
        >>> Variant("chr1", 6, b"CA", b"").left_aligned(lambda contig, start, end: genome[start:end])
        Variant(contig='chr1', position=2, ref=b'CA', alt=b'')
        """
        core = self.trimmed()
        if bool(core.ref) == bool(core.alt):
            return core
        allele = core.ref or core.alt
        shift = _left_shift(allele, self.contig, core.position, fetch)
        turn = len(allele) - shift % len(allele)
        allele = allele[turn:] + allele[:turn]
        return Variant(
            core.contig, core.position - shift, allele if core.ref else b"", allele if core.alt else b""
        )

    def right_aligned(self, fetch: Fetch, length: int) -> "Variant":
        """The trimmed variant at its rightmost position, which is the first base where the haplotypes differ.

        Args:
            fetch: the bases [start, end) of a contig; asked only for bases right of the variant.
            length: of the contig, in bases.

        >>> genome = b"GGCACACAT"
        >>> Variant("chr1", 2, b"CA", b"").right_aligned(lambda contig, start, end: genome[start:end], 9)
        Variant(contig='chr1', position=6, ref=b'CA', alt=b'')
        """
        core = self.trimmed()
        if bool(core.ref) == bool(core.alt):
            return core
        allele = core.ref or core.alt
        shift = _right_shift(allele, core, fetch, length)
        turn = shift % len(allele)
        allele = allele[turn:] + allele[:turn]
        return Variant(
            core.contig, core.position + shift, allele if core.ref else b"", allele if core.alt else b""
        )

    def mirrored(self, length: int) -> "Variant":
        """The same variant as read from the other strand of a contig of `length` bases.

        >>> Variant("chr1", 2, b"CA", b"T").mirrored(9)
        Variant(contig='chr1', position=5, ref=b'TG', alt=b'A')
        """
        start = length - self.position - len(self.ref)
        return Variant(self.contig, start, reverse_complement(self.ref), reverse_complement(self.alt))


def is_symbolic(alt: bytes) -> bool:
    """Whether a VCF ALT is not a plain sequence: `*`, `.`, `<DEL>`, `<*>`, a breakend, or empty.

    >>> [is_symbolic(alt) for alt in (b"ACN", b"*", b"<DEL>", b"G]17:198982]", b".A")]
    [False, True, True, True, True]
    """
    return not alt.isalpha()


def _shared(first: bytes, second: bytes) -> int:
    """Length of the common prefix."""
    shortest = min(len(first), len(second))
    return next((i for i in range(shortest) if first[i] != second[i]), shortest)


def _left_shift(allele: bytes, contig: str, position: int, fetch: Fetch) -> int:
    """How many bases an inserted or deleted `allele` at `position` can move left.

    A move by one needs the base before the variant to equal the allele's last base, and turns the allele by
    one, so move k compares with the allele read backwards and cyclically; nothing has to be rebuilt on the
    way.
    """
    size = len(allele)
    shift = 0
    while shift < position:
        end = position - shift
        block = fetch(contig, max(0, end - _BLOCK), end)
        for base in reversed(block):
            if base != allele[-1 - shift % size]:
                return shift
            shift += 1
    return shift


def _right_shift(allele: bytes, core: Variant, fetch: Fetch, length: int) -> int:
    """How many bases an inserted or deleted `allele` can move right; the mirror of `_left_shift`."""
    size, start, shift = len(allele), core.position + len(core.ref), 0
    while start + shift < length:
        block = fetch(core.contig, start + shift, min(length, start + shift + _BLOCK))
        for base in block:
            if base != allele[shift % size]:
                return shift
            shift += 1
    return shift
