"""One of n parts of an input, by itself or as one process of many: which records, which file, who joins them.

The parts are contiguous, so the records must be counted first: an input that can be read only once has none.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyenacli.distributed import current_ranks
from hyenacli.errors import UsageError, UserError
from hyenacli.readers.fasta_blocks import read_blocks
from hyenacli.readers.labelled import open_labelled
from hyenacli.readers.labelled_record import Columns
from hyenacli.readers.streams import open_binary, source_name
from hyenacli.writers.atomic import ensure_writable
from hyenacli.writers.bgzip import remove_indexes


@dataclass(frozen=True)
class Shard:
    """One of `of` parts of an input.

    Attributes:
        number: which, 1-based.
        of: how many there are.
    """

    number: int
    of: int

    def part(self, total: int, block: int = 1) -> range:
        """Its records of `total`, 0-based: contiguous, and as many as in any other part, or a block more.

        Args:
            total: records of the whole input.
            block: records, from the first on, that must stay together.

        >>> [Shard(i, 3).part(7) for i in (1, 2, 3)]
        [range(0, 2), range(2, 4), range(4, 7)]
        >>> [Shard(i, 2).part(7, block=2) for i in (1, 2)]
        [range(0, 4), range(4, 7)]
        """
        blocks = -(-total // block)
        first, end = (blocks * number // self.of for number in (self.number - 1, self.number))
        return range(first * block, min(total, end * block))

    def describe(self, records: int, sha256: str) -> dict[str, dict[str, int | str]]:
        """What joining needs to know: this part, the records of the whole input, and their sha256."""
        return {"shard": {"number": self.number, "of": self.of, "records": records, "input_sha256": sha256}}

    def path(self, target: Path) -> Path:
        """Where a process of many writes its part of `target`.

        >>> Shard(2, 4).path(Path("out/peaks.tsv.gz")).name
        'peaks.shard-2-of-4.tsv.gz'
        """
        suffix = "".join(target.suffixes[-2:]) if target.suffix == ".gz" else target.suffix
        stem = target.name.removesuffix(suffix)
        return target.with_name(f"{stem}.shard-{self.number}-of-{self.of}{suffix}")


def parse_shard(text: str, flag: str = "--shard") -> Shard:
    """The shard i/n.

    Raises:
        UsageError: it is not two whole numbers with 1 <= i <= n.
    """
    number, slash, of = text.partition("/")
    if slash and number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of):
        return Shard(int(number), int(of))
    raise UsageError(f"unknown shard '{text}'", at=flag, remedy="use i/n with i from 1 to n, as 2/4")


@dataclass(frozen=True)
class OutputShard:
    """What this process does of a run.

    Attributes:
        shard: its part of the input; None for all of it.
        target: what it writes.
        whole: the file that the shards of all processes become; None where they are nobody's business here.
    """

    shard: Shard | None
    target: Path
    whole: Path | None = None

    def check(self, *inputs: Path | None) -> None:
        """Fail before the work is done rather than after it.

        Args:
            inputs: files that are read, which the output must not replace.

        Raises:
            UsageError, UserError: as `ensure_writable`, of both files.
        """
        for path in (self.target, self.whole):
            if path is not None:
                ensure_writable(path, *inputs)

    def clear(self) -> None:
        """Remove what a run of several processes that was cut short has left: it is not this run's."""
        if self.whole is not None:
            self.target.unlink(missing_ok=True)
            if current_ranks().first:
                _claim(self.whole).unlink(missing_ok=True)

    def describe(self) -> str:
        """Where what this process does will be, for a message."""
        if self.whole is not None:
            return f"to {self.target}; the process that ends last joins all shards into {self.whole}"
        return "to stdout" if str(self.target) == "-" else f"to {self.target}"


def resolve_shard(shard: str | None, target: Path) -> OutputShard:
    """What to do: the part that --shard names; under torchrun each process its own; else everything.

    Raises:
        UsageError: both, no such shard, or several processes are to share stdout.
    """
    ranks = current_ranks()
    if shard is not None:
        if ranks.world_size > 1:
            raise UsageError(
                "each process of torchrun takes its own shard", at="--shard", remedy="leave it out"
            )
        return OutputShard(parse_shard(shard), target)
    if ranks.world_size == 1:
        return OutputShard(None, target)
    if str(target) == "-":
        raise UsageError("several processes cannot share stdout", at="-o", remedy="name a file")
    own = Shard(ranks.rank + 1, ranks.world_size)
    return OutputShard(own, own.path(target), target)


def merge_if_last(share: OutputShard, join: Callable[[Sequence[Path], Path], object]) -> bool:
    """Join the shards of all processes where this one is the last to have written its own.

    Nobody waits for anybody. Who sees all the shards claims the work with a file beside them, and looks
    again: another process may have joined and removed them in between.

    Args:
        share: of a process that has written its shard.
        join: (shards in order, target).

    Returns:
        Whether this process did it.
    """
    if share.whole is None or share.shard is None:
        return False
    paths = [Shard(number, share.shard.of).path(share.whole) for number in range(1, share.shard.of + 1)]
    claim = _claim(share.whole)
    if not all(path.exists() for path in paths):
        return False
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        return False
    try:
        if not all(path.exists() for path in paths):
            return False
        join(paths, share.whole)
        for path in paths:
            remove_indexes(path)
            path.unlink()
    finally:
        claim.unlink()
    return True


def _claim(target: Path) -> Path:
    return target.with_name(f".{target.name}.joining")


def fingerprint(records: Iterable[str], lengths: Mapping[str, int]) -> str:
    """sha256 of an input's records and of its genome's contigs: shards of one input have the same."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(record.encode() + b"\n")
    for contig, length in lengths.items():
        digest.update(f"{contig}\t{length}\n".encode())
    return digest.hexdigest()


def survey_fasta(source: Path) -> tuple[int, str]:
    """The number of records of a FASTA file, and their sha256.

    Raises:
        UsageError: it is a stream, which cannot be read a second time.
        UserError: it is not FASTA.
    """
    _refuse_stream(source)
    digest, records = hashlib.sha256(), 0
    with open_binary(source) as stream:
        for block in read_blocks(stream):
            digest.update(b">" + block.header + b"\n" + block.body)
            records += 1
    return records, digest.hexdigest()


def survey_rows(source: Path, columns: Columns) -> tuple[int, str]:
    """The number of sequences of a table, a FASTA or a folder, and the sha256 of their names and bases.

    Raises:
        UsageError: it is a stream, which cannot be read a second time.
        UserError: a record cannot be read, or there is none.
    """
    _refuse_stream(source)
    digest, records = hashlib.sha256(), 0
    with open_labelled([source], columns, labelled=False) as rows:
        for record in rows:
            digest.update(record.id.encode() + b"\t" + record.sequence + b"\n")
            records += 1
    if not records:
        raise UserError("no records", at=source)
    return records, digest.hexdigest()


def _refuse_stream(source: Path) -> None:
    if not source.is_file() and not source.is_dir():
        raise UsageError(
            "a stream cannot be read twice, to count its records and then to read them",
            at=source_name(source),
            remedy="write it to a file, or read it in one process, without --shard",
        )
