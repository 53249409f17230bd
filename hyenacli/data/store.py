"""Genomes held in memory as token ids, one byte a base."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hyenacli.errors import UserError
from hyenacli.readers.fasta import read_fasta
from hyenadna import Tokenizer

Tokens = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Contig:
    """One FASTA record as token ids (length,), uint8."""

    name: str
    source: Path
    tokens: Tokens

    def __len__(self) -> int:
        """Length in bases."""
        return len(self.tokens)


def read_contigs(paths: Sequence[Path]) -> list[Contig]:
    """Read every record of the FASTA files, in order; empty records are left out.

    Two files may hold contigs of the same name (chr1 of two genomes), one file may not.

    Raises:
        UserError: a file that is not a FASTA, a name twice in a file, or no bases at all.
    """
    tokenizer = Tokenizer()
    contigs: list[Contig] = []
    for path in paths:
        names: set[str] = set()
        for record in read_fasta(path):
            if record.name in names:
                raise UserError(f"contig '{record.name}' occurs twice", at=path, remedy="rename one of them")
            names.add(record.name)
            if record.sequence:
                contigs.append(Contig(record.name, path, tokenizer.encode_array(record.sequence)))
    if not contigs:
        raise UserError("no bases in any record", at=", ".join(map(str, paths)), remedy="give a genome FASTA")
    return contigs


def fingerprint(path: Path) -> dict[str, str | int]:
    """A file's path, size in bytes and sha256, for run.json."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": digest.hexdigest()}
