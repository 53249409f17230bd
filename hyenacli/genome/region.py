"""Regions of a genome: 0-based half-open inside, 1-based inclusive as text."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

from hyenacli.errors import UserError, abbreviate, nearest

Strand = Literal["+", "-", "."]

_COORDINATES = re.compile(r"(?P<start>\d[\d,]{0,30})?(?:-(?P<end>\d[\d,]{0,30})?)?", re.ASCII)
_SPELLINGS = "write chr1:1,000-2,000 (1-based, both ends included)"


@dataclass(frozen=True, slots=True)
class Region:
    """An interval of one contig.

    Attributes:
        contig: the contig's name.
        start: first base, 0-based.
        end: one past the last base, 0-based; `end - start` bases.
        strand: '+', '-' or '.' for not stranded.
        name: the region's name in the input, '' when it has none.

    Raises:
        ValueError: `start` is negative or `end` lies before it.

    >>> region = Region("chr1", 999, 2000)
    >>> len(region), str(region)
    (1001, 'chr1:1000-2000')
    """

    contig: str
    start: int
    end: int
    strand: Strand = "."
    name: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"not a region: {self.contig} [{self.start}, {self.end})")

    def __len__(self) -> int:
        return self.end - self.start

    def __str__(self) -> str:
        return f"{self.contig}:{self.start + 1}-{self.end}"

    @classmethod
    def parse(cls, text: str, contigs: Mapping[str, int]) -> Self:
        """Read a 1-based inclusive region in any spelling of samtools.

        `chr1` is the whole contig, `chr1:100` and `chr1:100-` run from base 100 to the contig's end,
        `chr1:-200` from its start. A region ends with its contig, as for samtools and bcftools. Contig names
        may themselves hold ':' and '-'; braces end the name: `{chr1:1-5}:2-3`.

        Args:
            text: the region.
            contigs: length of every contig.

        Raises:
            UserError: no such contig, not a number, reversed, past the contig's end, or readable in two ways.

        >>> Region.parse("chr1:1,000-2,000", {"chr1": 5000})
        Region(contig='chr1', start=999, end=2000, strand='.', name='')
        >>> Region.parse("HLA:01", {"HLA:01": 7})
        Region(contig='HLA:01', start=0, end=7, strand='.', name='')
        """
        contig, coordinates = _split(text, contigs)
        length = contigs[contig]
        if length == 0:
            raise UserError(f"contig {contig} has no bases", at=text)
        start, end = _limits(text, coordinates, length)
        if start < 1:
            raise UserError("position 0 does not exist", at=text, remedy=_SPELLINGS)
        if start > length:
            raise UserError(f"outside the contig: {contig} has {length:,} bases", at=text)
        if end < start:
            raise UserError(f"end {end} is before start {start}", at=text, remedy="swap the two")
        return cls(contig, start - 1, min(end, length))


def _split(text: str, contigs: Mapping[str, int]) -> tuple[str, str]:
    """Split a text into contig and coordinates ('' for all of it), as samtools decides it."""
    if text.startswith("{"):
        contig, brace, rest = text[1:].partition("}")
        if not brace or (rest and not rest.startswith(":")):
            raise UserError("the brace is not closed", at=text, remedy="write {contig}:1-200")
        if contig not in contigs:
            raise _unknown(text, contig, contigs)
        return contig, rest[1:]
    prefix, colon, coordinates = text.rpartition(":")
    readable = bool(colon) and _COORDINATES.fullmatch(coordinates) is not None
    if text in contigs:
        if readable and prefix in contigs:
            raise UserError(
                f"both '{text}' and '{prefix}' are contigs",
                at=text,
                remedy=f"write {{{text}}} for the whole contig or {{{prefix}}}:{coordinates} for the region",
            )
        return text, ""
    if colon and prefix in contigs:
        return prefix, coordinates
    raise _unknown(text, prefix if readable else text, contigs)


def _unknown(text: str, contig: str, contigs: Mapping[str, int]) -> UserError:
    hint = nearest(contig, list(contigs))
    remedy = hint if hint.startswith("did you mean") else f"the contigs are {abbreviate(contigs)}"
    return UserError(f"no contig '{contig}'", at=text, remedy=remedy)


def _limits(text: str, coordinates: str, length: int) -> tuple[int, int]:
    """Return first and last base, 1-based inclusive."""
    if not coordinates:
        return 1, length
    match = _COORDINATES.fullmatch(coordinates)
    if match is None or not (match["start"] or match["end"]):
        raise UserError(f"'{coordinates}' is not a pair of positions", at=text, remedy=_SPELLINGS)
    start = int(match["start"].replace(",", "")) if match["start"] else 1
    end = int(match["end"].replace(",", "")) if match["end"] else length
    return start, end
