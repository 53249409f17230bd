"""What one process of a run writes, and the merge of all shards into the file that a single process writes.

A shard tells which part of which run it is, under "shard" in its provenance: {"number": 1-based, "of": number
of shards, "records": of the whole input, "input_sha256": of these}. Names of files mean nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyenacli.console import log
from hyenacli.distributed import current_ranks
from hyenacli.errors import UsageError, UserError, abbreviate
from hyenacli.readers.shards import Shard, parse_shard
from hyenacli.readers.text import compression, open_binary
from hyenacli.writers.arrays import ARRAYS
from hyenacli.writers.atomic import ensure_writable
from hyenacli.writers.columns import FileFormat, Head
from hyenacli.writers.multiqc import merge_statuses, statuses_path, write_statuses
from hyenacli.writers.tables import OUTPUTS
from hyenacli.writers.text import AGAIN
from hyenacli.writers.vcf_files import VCFS, remove_indexes

# Settings that change no answer, and files whose content is compared instead of their names.
_FREE = {
    *("output", "output_type", "influence", "plot", "plot_type", "shard", "multiqc", "resume"),
    *("hub", "assembly"),
    *("batch_size", "device", "threads", "input", "model"),
}
# What is read of a compressed file to recognise it.
_START_BYTES = 1 << 12
_SHARD = {"number", "of", "records", "input_sha256"}


# The formats whose shards can be merged.
FORMATS: dict[str, FileFormat] = {**ARRAYS, **OUTPUTS, **VCFS}


@dataclass(frozen=True)
class OutputShard:
    """What this process writes of a run.

    Attributes:
        shard: its part of the input; None for all of it.
        target: the file it writes.
        whole: the file that the shards of all processes become; None if this run does not merge them.
        multiqc: a file of the statuses for MultiQC goes with it.
    """

    shard: Shard | None
    target: Path
    whole: Path | None = None
    multiqc: bool = False

    def check(self, *inputs: Path | None) -> None:
        """Check that the files can be written, before the work is done rather than after it.

        Args:
            inputs: files that are read, which the output must not replace.

        Raises:
            UsageError, UserError: as `ensure_writable`, of both files.
        """
        for path in (self.target, self.whole):
            if path is not None:
                ensure_writable(path, *inputs)

    def clear(self) -> None:
        """Remove files that an interrupted run of several processes has left."""
        if self.whole is not None:
            for path in (self.target, statuses_path(self.target)):
                path.unlink(missing_ok=True)
            if current_ranks().first:
                _claim(self.whole).unlink(missing_ok=True)

    def write_statuses(self, verb: str, statuses: Mapping[str, int]) -> None:
        """Write the records by status for MultiQC, if it is to have them; before `merge_if_last`.

        Raises:
            UserError: as `atomic_path`.
        """
        if self.multiqc:
            write_statuses(self.target, verb, statuses)

    def describe(self) -> str:
        """Describe, for a message, where the output of this process is."""
        if self.whole is not None:
            return f"to {self.target}; the process that ends last joins all shards into {self.whole}"
        return "to stdout" if str(self.target) == "-" else f"to {self.target}"


def resolve_shard(shard: str | None, target: Path, *, multiqc: bool = False) -> OutputShard:
    """Return what this process writes: the shard of --shard; under torchrun one per process; else all.

    Args:
        shard: of --shard.
        target: the output.
        multiqc: a file of the statuses goes with it.

    Raises:
        UsageError: both, no such shard, or several processes are to share stdout.
    """
    ranks = current_ranks()
    if shard is not None:
        if ranks.world_size > 1:
            raise UsageError(
                "each process of torchrun takes its own shard", at="--shard", remedy="leave it out"
            )
        return OutputShard(parse_shard(shard), target, multiqc=multiqc)
    if ranks.world_size == 1:
        return OutputShard(None, target, multiqc=multiqc)
    if str(target) == "-":
        raise UsageError("several processes cannot share stdout", at="-o", remedy="name a file")
    shard_of_rank = Shard(ranks.rank + 1, ranks.world_size)
    return OutputShard(shard_of_rank, shard_of_rank.path(target), target, multiqc)


def refuse_shared_stdout(*outputs: Path | None) -> None:
    """Refuse several outputs that are all stdout, where nobody could tell them apart.

    Args:
        outputs: of one command; None where there is to be none.

    Raises:
        UsageError: more than one is `-`.
    """
    if [str(output) for output in outputs].count("-") > 1:
        raise UsageError("two outputs cannot share stdout", at="-", remedy="name a file for one of them")


@dataclass(frozen=True)
class Merged:
    """Counts of a merge.

    Attributes:
        shards: number of shards.
        records: of the whole input.
    """

    shards: int
    records: int


@dataclass(frozen=True)
class _Part:
    """A shard, seen from outside."""

    path: Path
    kind: str
    head: Head

    @property
    def number(self) -> int:
        return int(self.head.provenance["shard"]["number"])


def merge_shards(paths: Sequence[Path], target: Path) -> Merged:
    """Merge the shards of one run, in any order, into a file of their type in the order of the input.

    Args:
        paths: all shards of the run.
        target: output file, `-` for stdout (TSV).

    Raises:
        UsageError: the target is one of the shards, or their type does not go to stdout.
        UserError: a file is not a shard, a shard is missing or given twice, or they are not of one run.
    """
    parts = [_read_part(path) for path in paths]
    if str(target) != "-" and any(target.resolve() == path.resolve() for path in paths):
        raise UsageError("is one of the shards", at=target, remedy="write to another file")
    for part in parts[1:]:
        _check_same_run(parts[0], part)
    ordered = _in_order(parts)
    provenance = ordered[0].head.provenance
    merged = {name: value for name, value in provenance.items() if name != "shard"}
    if "settings" in merged:
        merged["settings"] = merged["settings"] | {"output": str(target), "shard": None}
    FORMATS[ordered[0].kind].join([part.path for part in ordered], target, merged)
    return Merged(len(parts), provenance["shard"]["records"])


def sniff(path: Path) -> str:
    """Return the type of a shard, a key of `FORMATS`, by its content.

    Raises:
        UserError: it cannot be read, it is not a shard, or the package that reads it is missing.
    """
    if compression(path) == "plain":
        with path.open("rb") as file:
            start = file.read(64)
    else:
        with open_binary(path, lookahead=_START_BYTES) as stream:
            start = stream.peek(1)
    for kind, file_format in FORMATS.items():
        if file_format.matches(path, start):
            return kind
    raise _not_a_shard(path)


def _not_a_shard(path: Path) -> UserError:
    return UserError("is not a shard", at=path, remedy="name files that were written with --shard i/n")


def _read_part(path: Path) -> _Part:
    kind = sniff(path)
    try:
        head = FORMATS[kind].head(path)
    except UserError:
        raise
    except Exception as error:  # what the libraries make of damaged data
        raise UserError(f"cannot be read as {kind}", at=path, remedy=AGAIN) from error
    if not set(head.provenance.get("shard", ())) >= _SHARD:
        raise _not_a_shard(path)
    return _Part(path, kind, head)


def _check_same_run(first: _Part, part: _Part) -> None:
    """Raise UserError, which names both and a difference, if two files are not of one run."""
    expected, actual = _identity(first), _identity(part)
    names = [name for name in {**expected, **actual} if expected.get(name) != actual.get(name)]
    if names:
        name = names[0]
        problem = f"{name}: {_short(actual.get(name))} here, {_short(expected.get(name))} in {first.path}"
        raise UserError(problem, at=part.path, remedy="make all shards in the same way, from the same input")


def _identity(part: _Part) -> dict[str, object]:
    """Return what all shards of a run have in common, by the names that a message may call it."""
    shard = part.head.provenance["shard"]
    identity = {"shards": shard["of"], "records": shard["records"], "input": shard["input_sha256"]}
    return {
        "type": part.kind,
        **run_identity(part.head.provenance),
        **identity,
        "columns": part.head.columns,
    }


def run_identity(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return what answers depend on besides the input: provenance and settings, less the free ones."""
    identity = {name: value for name, value in provenance.items() if name not in ("shard", "settings")}
    settings = provenance.get("settings", {})
    return identity | {name: value for name, value in settings.items() if name not in _FREE}


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 or " " in text else f"{text[:8]}..."


def _in_order(parts: Sequence[_Part]) -> list[_Part]:
    """Return the parts by number; raise UserError if a shard is given twice or not at all."""
    by_number: dict[int, _Part] = {}
    for part in parts:
        if part.number in by_number:
            problem = f"is shard {part.number}, and so is {by_number[part.number].path}"
            raise UserError(problem, at=part.path, remedy="name each once")
        by_number[part.number] = part
    of = parts[0].head.provenance["shard"]["of"]
    if missing := [str(number) for number in range(1, of + 1) if number not in by_number]:
        raise UserError(f"shards are missing of {of}: {abbreviate(missing)}", remedy="name all of them")
    return [by_number[number] for number in sorted(by_number)]


def merge_if_last(
    output: OutputShard, merge: Callable[[Sequence[Path], Path], object] = merge_shards
) -> bool:
    """Merge the shards of all processes if this process is the last to have written its own.

    No process waits for another. One that sees all the shards claims the work with a file beside them, and
    looks again: another process may have merged and removed them in between.

    Args:
        output: of a process that has written its shard.
        merge: (shards in order, target).

    Returns:
        Whether this process merged them.
    """
    if output.whole is None or output.shard is None:
        return False
    paths = [Shard(number, output.shard.of).path(output.whole) for number in range(1, output.shard.of + 1)]
    files = [*paths, *map(statuses_path, paths)] if output.multiqc else paths
    claim = _claim(output.whole)
    if not all(path.exists() for path in files):
        return False
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        return False
    try:
        if not all(path.exists() for path in files):
            return False
        merge(paths, output.whole)
        if output.multiqc:
            merge_statuses(paths, output.whole)
        for path in files:
            remove_indexes(path)
            path.unlink()
    finally:
        claim.unlink()
    log.info("joined all shards, to %s", output.whole)
    return True


def _claim(target: Path) -> Path:
    return target.with_name(f".{target.name}.joining")
