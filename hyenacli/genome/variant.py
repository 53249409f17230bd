"""One alternative allele of one variant, and its unique spelling on a genome."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from hyenacli.genome.dna import reverse_complement

VariantKind = Literal["snv", "mnv", "insertion", "deletion", "complex", "identical"]
Fetch = Callable[[str, int, int], bytes]

# Bases read together while a variant moves through a repeat.
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
        """The kind of the trimmed variant: a substitution by its length, or what is added or removed."""
        core = self.trimmed()
        if not core.ref:
            return "insertion" if core.alt else "identical"
        if not core.alt:
            return "deletion"
        if len(core.ref) != len(core.alt):
            return "complex"
        return "snv" if len(core.ref) == 1 else "mnv"

    def trimmed(self) -> "Variant":
        """Remove the bases both alleles share, at the end first, then at the start; either may become empty.

        >>> Variant("chr1", 10, b"CAG", b"CG").trimmed()
        Variant(contig='chr1', position=11, ref=b'A', alt=b'')
        """
        suffix = _shared(self.ref[::-1], self.alt[::-1])
        ref, alt = self.ref[: len(self.ref) - suffix], self.alt[: len(self.alt) - suffix]
        prefix = _shared(ref, alt)
        return Variant(self.contig, self.position + prefix, ref[prefix:], alt[prefix:])

    def right_aligned(self, fetch: Fetch, length: int) -> "Variant":
        """Move the trimmed variant to its rightmost position, the first base where the haplotypes differ.

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
        rotation = shift % len(allele)
        allele = allele[rotation:] + allele[:rotation]
        return Variant(
            core.contig, core.position + shift, allele if core.ref else b"", allele if core.alt else b""
        )

    def mirrored(self, length: int) -> "Variant":
        """Return the same variant as read from the other strand of a contig of `length` bases.

        >>> Variant("chr1", 2, b"CA", b"T").mirrored(9)
        Variant(contig='chr1', position=5, ref=b'TG', alt=b'A')
        """
        start = length - self.position - len(self.ref)
        return Variant(self.contig, start, reverse_complement(self.ref), reverse_complement(self.alt))


def is_symbolic(alt: bytes) -> bool:
    """Return True for a VCF ALT that is not a plain sequence: `*`, `.`, `<DEL>`, `<*>`, a breakend, or empty.

    >>> [is_symbolic(alt) for alt in (b"ACN", b"*", b"<DEL>", b"G]17:198982]", b".A")]
    [False, True, True, True, True]
    """
    return not alt.isalpha()


def _shared(first: bytes, second: bytes) -> int:
    """Return the length of the common prefix."""
    shortest = min(len(first), len(second))
    return next((i for i in range(shortest) if first[i] != second[i]), shortest)


def _right_shift(allele: bytes, core: Variant, fetch: Fetch, length: int) -> int:
    """Count the bases that an inserted or deleted `allele` can move right.

    A move by one needs the base behind the variant to equal the allele's first base, and rotates the allele
    by one: move k compares with the allele read cyclically, and nothing has to be rebuilt on the way.
    """
    size, start, shift = len(allele), core.position + len(core.ref), 0
    while start + shift < length:
        block = fetch(core.contig, start + shift, min(length, start + shift + _BLOCK))
        for base in block:
            if base != allele[shift % size]:
                return shift
            shift += 1
    return shift
