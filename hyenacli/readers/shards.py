"""One of n parts of an input: which records it has, and the fingerprint that all parts of one input share.

The parts are contiguous, so the records must be counted first: a stream, which can be read only once, has no
parts.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hyenacli.errors import UsageError
from hyenacli.readers.labelled import open_labelled
from hyenacli.readers.sequences import read_entries
from hyenacli.readers.tables import Columns
from hyenacli.readers.text import open_binary, source_name, split_suffix


@dataclass(frozen=True)
class Shard:
    """One of `of` parts of an input.

    Attributes:
        number: which, 1-based.
        of: number of parts.
    """

    number: int
    of: int

    def part(self, total: int, block: int = 1) -> range:
        """Return its records of `total`, 0-based and contiguous; sizes of parts differ by at most a block.

        Args:
            total: records of the whole input.
            block: records, counted from the first, that must stay together.

        >>> [Shard(i, 3).part(7) for i in (1, 2, 3)]
        [range(0, 2), range(2, 4), range(4, 7)]
        >>> [Shard(i, 2).part(7, block=2) for i in (1, 2)]
        [range(0, 4), range(4, 7)]
        """
        blocks = -(-total // block)
        first, end = (blocks * number // self.of for number in (self.number - 1, self.number))
        return range(first * block, min(total, end * block))

    def describe(self, records: int, sha256: str) -> dict[str, dict[str, int | str]]:
        """Return what merging needs: this part, the records of the whole input, and their sha256."""
        return {"shard": {"number": self.number, "of": self.of, "records": records, "input_sha256": sha256}}

    def path(self, target: Path) -> Path:
        """Return where one of several processes writes its part of `target`.

        >>> Shard(2, 4).path(Path("out/peaks.tsv.gz")).name
        'peaks.shard-2-of-4.tsv.gz'
        """
        stem, suffix = split_suffix(target)
        return target.with_name(f"{stem}.shard-{self.number}-of-{self.of}{suffix}")


def parse_shard(text: str) -> Shard:
    """Parse a shard i/n.

    Raises:
        UsageError: it is not two whole numbers with 1 <= i <= n.
    """
    number, slash, of = text.partition("/")
    if slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
        return Shard(int(number), int(of))
    raise UsageError(f"unknown shard '{text}'", at="--shard", remedy="use i/n with i from 1 to n, as 2/4")


def fingerprint(records: Iterable[str], lengths: Mapping[str, int]) -> str:
    """Compute the sha256 of an input's records and of its genome's contigs: shards of one input share it."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.encode() + b"\n")
    for contig, length in lengths.items():
        digest.update(f"{contig}\t{length}\n".encode())
    return digest.hexdigest()


def survey_fasta(source: Path) -> tuple[int, str]:
    """Count the records of a FASTA file, and compute their sha256.

    Raises:
        UsageError: it is a stream, which cannot be read a second time.
        UserError: it is not FASTA.
    """
    _refuse_stream(source)
    digest, records = hashlib.sha256(), 0
    with open_binary(source, allow_empty=True) as stream:
        for entry in read_entries(stream):
            digest.update(b">" + entry.header + b"\n")
            for piece in entry.body:
                digest.update(piece)
            records += 1
    return records, digest.hexdigest()


def survey_rows(source: Path, columns: Columns) -> tuple[int, str]:
    """Count the sequences of a table, a FASTA or a folder, and compute the sha256 of their names and bases.

    Raises:
        UsageError: it is a stream, which cannot be read a second time.
        UserError: a record cannot be read.
    """
    _refuse_stream(source)
    digest, records = hashlib.sha256(), 0
    with open_labelled([source], columns, labelled=False) as rows:
        for record in rows:
            digest.update(record.id.encode() + b"\t" + record.sequence + b"\n")
            records += 1
    return records, digest.hexdigest()


def _refuse_stream(source: Path) -> None:
    if not source.is_file() and not source.is_dir():
        raise UsageError(
            "a stream cannot be read twice, to count its records and then to read them",
            at=source_name(source),
            remedy="write it to a file, or read it in one process, without --shard",
        )
