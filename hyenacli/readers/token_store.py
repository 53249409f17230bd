"""Genomes as token ids, one byte a base, read once and then mapped from the user's cache.

A code is a token id; its highest bit is set where the FASTA is in lower case (soft-masked repeats).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hyenacli.errors import UsageError, UserError
from hyenacli.readers.fasta_blocks import read_blocks
from hyenacli.readers.genome_cache import cached_folder
from hyenacli.readers.streams import open_binary
from hyenadna import Tokenizer
from hyenadna.tokenizer import A, T

Tokens = npt.NDArray[np.uint8]
"""Token ids."""
Codes = npt.NDArray[np.uint8]
"""Token ids with the soft-mask bit."""

SOFT_MASKED = np.uint8(0x80)
_FORMAT = 2
_LOWER_CASE = np.uint8(0x20)


@dataclass(frozen=True)
class Contig:
    """One FASTA record.

    Attributes:
        name: of the record.
        source: its file.
        codes: one per base (length,), on disk until they are read.
        n_bases: how many are A, C, G or T.
        n_soft_masked: how many are in lower case.
    """

    name: str
    source: Path
    codes: Codes
    n_bases: int
    n_soft_masked: int = 0

    def __len__(self) -> int:
        """Length in bases, N included."""
        return len(self.codes)

    def tokens(self, start: int, end: int) -> Tokens:
        """Token ids of bases start..end (0-based half-open), or to the contig's end if that comes first."""
        return plain_tokens(self.codes[start:end])


@dataclass(frozen=True)
class Genome:
    """One FASTA file.

    Attributes:
        path: of the file.
        n_bytes: its size.
        sha256: of its contents as they are on disk.
        contigs: its records in order, empty ones left out.
    """

    path: Path
    n_bytes: int
    sha256: str
    contigs: tuple[Contig, ...]

    def fingerprint(self) -> dict[str, str | int]:
        """As the module's `fingerprint`, without reading the file."""
        return {"path": str(self.path), "bytes": self.n_bytes, "sha256": self.sha256}


def plain_tokens(codes: Codes) -> Tokens:
    """Codes without the soft-mask bit, in memory."""
    return np.bitwise_and(codes, ~SOFT_MASKED, subok=False)


def count_bases(tokens: Tokens) -> int:
    """How many tokens are A, C, G or T.

    >>> count_bases(Tokenizer().encode_array("ACNNT"))
    3
    """
    return int(np.count_nonzero((tokens >= A) & (tokens <= T)))


def open_genomes(paths: Sequence[Path]) -> list[Genome]:
    """The genomes of FASTA files, each read when it is seen for the first time and mapped from then on.

    Two files may hold contigs of the same name (chr1 of two genomes), one file may not.

    Raises:
        UserError: a file that is not a FASTA of DNA, a name twice in a file, no A, C, G or T in a file, or
            one file given twice, be it under two names.
        UsageError: standard input.
    """
    genomes: list[Genome] = []
    for path in paths:
        if str(path) == "-":
            raise UsageError("a genome is read at random, not from a pipe", remedy="give a file on disk")
        genome = _open(path)
        for other in genomes:
            if other.sha256 == genome.sha256:
                raise UserError(f"has the same contents as {other.path}", at=path, remedy="give it once")
        if not any(contig.n_bases for contig in genome.contigs):
            raise UserError("no A, C, G or T in any record", at=path, remedy="give a genome FASTA")
        genomes.append(genome)
    return genomes


def _open(path: Path) -> Genome:
    folder, _ = cached_folder(path.resolve(), f"tokens-{_FORMAT}", _build)
    facts = json.loads((folder / "genome.json").read_text())
    size = sum(length for _, length, *_ in facts["contigs"])
    codes = np.memmap(folder / "codes", np.uint8, "r") if size else np.empty(0, np.uint8)
    contigs, start = [], 0
    for name, length, n_bases, n_soft_masked in facts["contigs"]:
        contigs.append(Contig(name, path, codes[start : start + length], n_bases, n_soft_masked))
        start += length
    return Genome(path, facts["bytes"], facts["sha256"], tuple(c for c in contigs if len(c)))


def _build(path: Path, folder: Path) -> None:
    """Write `codes`, all contigs one after another, and `genome.json`, which says where each ends."""
    tokenizer = Tokenizer()
    contigs: dict[str, tuple[str, int, int, int]] = {}
    with open_binary(path) as stream, (folder / "codes").open("wb") as out:
        for block in read_blocks(stream):
            name, _ = block.title()
            if name in contigs:
                raise UserError(f"contig '{name}' occurs twice", at=path, remedy="rename one of them")
            tokens = tokenizer.encode_array(block.sequence())
            letters = np.frombuffer(block.letters(), np.uint8)
            codes = tokens | np.where(letters & _LOWER_CASE, SOFT_MASKED, np.uint8(0))
            out.write(codes.tobytes())
            soft_masked = int(np.count_nonzero(codes & SOFT_MASKED))
            contigs[name] = (name, len(codes), count_bases(tokens), soft_masked)
    entry = fingerprint(path)
    facts = {"bytes": entry["bytes"], "sha256": entry["sha256"], "contigs": list(contigs.values())}
    (folder / "genome.json").write_text(json.dumps(facts))


def fingerprint(path: Path) -> dict[str, str | int]:
    """A file's path, size in bytes and sha256, for run.json."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return {"path": str(path), "bytes": path.stat().st_size, "sha256": digest.hexdigest()}
