"""Checks of a command's input that several verbs share, and the reference genome of its regions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hyenacli.errors import UsageError
from hyenacli.genome.contigs import ContigStyle
from hyenacli.readers.genome import Genome
from hyenacli.readers.region_records import Reference
from hyenacli.readers.regions import read_aliases


def check_input(source: Path, regions: Sequence[str] | None, *, several_processes: bool) -> None:
    """Check that an input has no regions beside it, and is not a stdin that several processes would share.

    Raises:
        UsageError: it has, or is.
    """
    if regions is not None:
        raise UsageError("-r stands instead of an INPUT", remedy="give one of them")
    if several_processes and str(source) == "-":
        raise UsageError("several processes cannot share standard input", remedy="write it to a file")


def require_regions(
    regions: Sequence[str] | None, fasta: Path | None, verb: str
) -> tuple[Sequence[str], Path]:
    """Return the regions that the command line gives instead of an input, and their genome.

    Raises:
        UsageError: one of them is missing.
    """
    if regions is None:
        raise UsageError(f"nothing to {verb}", remedy="name an INPUT, or regions with -r")
    if fasta is None:
        raise UsageError("-r names regions of a genome", remedy="give the genome with -f/--fasta")
    return regions, fasta


@contextmanager
def open_reference(fasta: Path, style: ContigStyle, aliases: Path | None) -> Iterator[Reference]:
    """Open the genome of regions.

    Args:
        fasta: the genome.
        style: how contig names are matched, auto or exact.
        aliases: table of contig names, if there is one.

    Raises:
        UserError: the genome or the table cannot be read.
    """
    names = read_aliases(aliases) if aliases else {}
    with Genome(fasta) as genome:
        yield Reference(genome, style, names)
