"""Small files built from Python values, so that a test shows what it reads."""

import gzip
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import pysam

Compression = Literal["plain", "gzip", "bgzip"]


def random_dna(length: int, seed: int = 0, alphabet: str = "ACGT") -> str:
    """`length` letters drawn from `alphabet`, the same for the same seed."""
    return "".join(random.Random(seed).choices(alphabet, k=length))


def write_bytes(path: Path, data: bytes, compression: Compression = "plain") -> Path:
    """Write `data` and return `path`."""
    if compression == "plain":
        path.write_bytes(data)
    elif compression == "gzip":
        path.write_bytes(gzip.compress(data))
    else:
        with pysam.BGZFile(str(path), "wb", index=None) as file:
            file.write(data)
    return path


def fasta_bytes(records: Iterable[tuple[str, str]], width: int = 60, newline: str = "\n") -> bytes:
    """FASTA text of (header, sequence) pairs with `width` letters per line."""
    lines = []
    for header, sequence in records:
        lines.append(f">{header}")
        lines.extend(sequence[i : i + width] for i in range(0, len(sequence), width))
    return "".join(line + newline for line in lines).encode()


def write_fasta(
    path: Path,
    records: Iterable[tuple[str, str]],
    *,
    width: int = 60,
    newline: str = "\n",
    compression: Compression = "plain",
) -> Path:
    """Write (header, sequence) pairs as FASTA and return `path`."""
    return write_bytes(path, fasta_bytes(records, width, newline), compression)


def write_bed(path: Path, rows: Iterable[Sequence[object]], *, compression: Compression = "plain") -> Path:
    """Write rows of columns (contig, 0-based start, end, ...) as BED and return `path`."""
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    return write_bytes(path, text.encode(), compression)


def write_circle(path: Path, name: str, bases: str) -> None:
    """Write a GenBank file of one record, whose first line says that it is circular."""
    from Bio import SeqIO
    from Bio.Seq import Seq
    from Bio.SeqRecord import SeqRecord

    facts = {"molecule_type": "DNA", "topology": "circular"}
    SeqIO.write(SeqRecord(Seq(bases), name, name, "", annotations=facts), path, "genbank")
