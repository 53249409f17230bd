"""Which alleles the samples of a VCF have on each haplotype."""

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

_FORMAT, _FIRST_SAMPLE = 8, 9
_SEPARATOR = re.compile(rb"[|/]")


class Call(NamedTuple):
    """The genotype of one sample, with an ALT allele at least.

    Attributes:
        sample: number of the sample, from 0.
        alleles: of each haplotype, numbered as in GT: 0 for REF, -1 where it is missing.
        phased: the order of the alleles has a meaning.
        phase_set: PS; empty where the record has none.
    """

    sample: int
    alleles: tuple[int, ...]
    phased: bool
    phase_set: str = ""

    @property
    def homozygous(self) -> bool:
        """Whether every haplotype has the same allele."""
        return len(set(self.alleles)) == 1


def sample_names(header: bytes) -> list[str]:
    """Return the names of the samples of a #CHROM line."""
    return [name.decode(errors="replace") for name in header.rstrip(b"\r\n").split(b"\t")[_FIRST_SAMPLE:]]


def read_calls(text: bytes) -> Iterator[Call]:
    r"""Yield the genotypes of a VCF line that have an ALT allele.

    >>> [tuple(call) for call in read_calls(b"1\t5\t.\tA\tC\t.\t.\t.\tGT:PS\t0|1:7\t0/0:.\t1")]
    [(0, (0, 1), True, '7'), (2, (1,), True, '')]
    """
    cells = text.split(b"\t")
    keys = cells[_FORMAT].split(b":") if len(cells) > _FIRST_SAMPLE else []
    if b"GT" not in keys:
        return
    genotype, phase_set = keys.index(b"GT"), keys.index(b"PS") if b"PS" in keys else None
    for sample, cell in enumerate(cells[_FIRST_SAMPLE:]):
        values = cell.split(b":")
        alleles, phased = _parse(values[genotype] if genotype < len(values) else b".")
        if max(alleles) > 0:
            named = values[phase_set] if phase_set is not None and phase_set < len(values) else b"."
            yield Call(sample, alleles, phased, "" if named == b"." else named.decode(errors="replace"))


@cache
def _parse(genotype: bytes) -> tuple[tuple[int, ...], bool]:
    """Return the alleles of a GT, and whether they are phased; a haplotype alone is."""
    alleles = _SEPARATOR.split(genotype.lstrip(b"|/"))  # from VCF 4.4 on, a separator may stand in front
    return tuple(int(a) if a.isdigit() else -1 for a in alleles), b"/" not in genotype
