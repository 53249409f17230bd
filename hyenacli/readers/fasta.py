"""FASTA as a stream of records, for inputs read once from start to end."""

from collections.abc import Iterator
from dataclasses import dataclass

from hyenacli.readers.fasta_blocks import read_blocks
from hyenacli.readers.streams import Source, open_binary


@dataclass(frozen=True, slots=True)
class FastaRecord:
    """One FASTA record.

    Attributes:
        name: the header up to its first blank.
        description: the rest of the header, '' when there is none.
        sequence: normalised bases (upper-case A C G T N); may be empty.
    """

    name: str
    description: str
    sequence: bytes


def read_fasta(source: Source) -> Iterator[FastaRecord]:
    """The records of a FASTA file, gzip or bgzip file, or of standard input ('-'), in file order.

    Memory holds one record at a time. Lower case, U, IUPAC codes, CRLF line ends, blank lines and blanks at
    line ends are read; records without sequence and repeated names are passed on.

    Raises:
        UserError: `open_binary` refuses the input, text stands before the first '>', there is no record, a
            record has no name, or a letter is no nucleotide code; the message names file and line.
    """
    with open_binary(source) as stream:
        for block in read_blocks(stream):
            name, description = block.title()
            yield FastaRecord(name, description, block.sequence())
