"""Numbers along a genome: bedGraph and bigWig.

A track has one number for a base. A base whose number is NaN has none: it is in no line of a bedGraph
(https://genome.ucsc.edu/goldenPath/help/bedgraph.html; without a track line, which converters do not take)
and in no interval of a bigWig.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UserError
from hyenacli.readers.text import open_binary
from hyenacli.writers.atomic import atomic_path
from hyenacli.writers.text import TextFormat, WriteBytes, open_bgzip, open_gzip, shard_body, write_lines


class TrackWriter(Protocol):
    """A track that takes numbers of neighbouring bases."""

    def write(self, chrom: str, start: int, values_L: NDArray[np.floating[Any]]) -> None:
        """Append the numbers of the bases from `start` (0-based) on."""


@dataclass(frozen=True, kw_only=True)
class TrackFormat(TextFormat):
    """A format of tracks.

    Attributes:
        needs_order: contigs come in the order of their names, and bases in order.
    """

    needs_order: bool = False

    def open(
        self, target: Path, contigs: Mapping[str, int], provenance: Mapping[str, Any]
    ) -> AbstractContextManager[TrackWriter]:
        """Open a track for writing; see `open_track`."""
        raise NotImplementedError


class BedGraph:
    """Lines of contig, 0-based start, end and number.

    Args:
        write: takes lines.
        lines_at_once: lines of a call.
    """

    def __init__(self, write: WriteBytes, lines_at_once: int = 1 << 12) -> None:
        self._write, self._lines_at_once = write, lines_at_once

    def write(self, chrom: str, start: int, values_L: NDArray[np.floating[Any]]) -> None:
        """Append the numbers of neighbouring bases, the first at `start`; numbers of equal text are equal.

        Records are not joined with each other, so that shards can be.
        """
        write_lines(self._write, _lines(chrom, start, values_L), self._lines_at_once)


def _lines(chrom: str, start: int, values_L: NDArray[np.floating[Any]]) -> Iterator[str]:
    for text, equal in groupby(map("{:.7g}".format, values_L)):
        end = start + sum(1 for _ in equal)
        if text != "nan":
            yield f"{chrom}\t{start}\t{end}\t{text}\n"
        start = end


@dataclass(frozen=True, kw_only=True)
class BedGraphFormat(TrackFormat):
    """Tracks as text."""

    mark: bytes = b"# hyena bedGraph shard "

    @contextmanager
    def open(
        self, target: Path, contigs: Mapping[str, int], provenance: Mapping[str, Any]
    ) -> Iterator[TrackWriter]:
        """Open a bedGraph for writing, `-` for stdout; it names its contigs itself.

        Raises:
            UserError: as `atomic_path`.
        """
        del contigs
        with self.open_records(target, provenance) as write:
            yield BedGraph(write)


class _Blocks:
    """Numbers on their way to a bigWig, checked: a block is a line of JSON, and its float32 numbers.

    Args:
        write: takes bytes.
        contigs: length of every contig in bases.
        target: what messages call the file.
    """

    def __init__(self, write: WriteBytes, contigs: Mapping[str, int], target: Path) -> None:
        self._write, self._contigs, self._target = write, contigs, target
        self._chrom, self._end = "", 0

    def write(self, chrom: str, start: int, values_L: NDArray[np.floating[Any]]) -> None:
        """Append numbers.

        Raises:
            UserError: of a contig without a length, outside of it, or in front of numbers written before.
        """
        end = start + len(values_L)
        if not 0 <= start <= end <= self._contigs.get(chrom, -1):
            length = f"a contig of {self._contigs[chrom]:,} bases" if chrom in self._contigs else "no contig"
            what = f"numbers of {chrom}:{start + 1}-{end}, which is outside {length} of the genome"
            raise UserError(what, at=self._target, remedy="write a bedGraph")
        if (chrom, start) < (self._chrom, self._end):
            what = f"{chrom}:{start + 1}-{end} comes after {self._chrom}:{self._end}, or overlaps it"
            remedy = "a bigWig needs regions in the order of names and positions; write a bedGraph"
            raise UserError(what, at=self._target, remedy=remedy)
        self._chrom, self._end = chrom, end
        self._write(json.dumps([chrom, start, len(values_L)]).encode() + b"\n")
        self._write(np.ascontiguousarray(values_L, "<f4").tobytes())


@dataclass(frozen=True, kw_only=True)
class BigWigFormat(TrackFormat):
    """Tracks as bigWig, written by pybigtools in a process of its own; memory holds one block.

    A shard is not a bigWig yet, but the blocks that become one.
    """

    mark: bytes = b"# hyena bigWig shard "
    needs_order: bool = True
    package: str = "pybigtools"

    @contextmanager
    def open(
        self, target: Path, contigs: Mapping[str, int], provenance: Mapping[str, Any]
    ) -> Iterator[TrackWriter]:
        """Open a bigWig for writing.

        Raises:
            UserError: as `atomic_path`, or no base has a number.
        """
        lengths = dict(sorted(contigs.items()))
        if "shard" in provenance:
            with self.open_records(target, {**provenance, "contigs": lengths}) as write:
                yield _Blocks(write, lengths, target)
        else:
            with _writing(target, lengths) as write:
                yield _Blocks(write, lengths, target)

    def matches(self, path: Path, start: bytes) -> bool:
        """Return whether a file is a shard of a bigWig."""
        del path
        return start.startswith(self.mark)

    def join(self, paths: Sequence[Path], target: Path, provenance: Mapping[str, Any]) -> None:
        """Write the blocks of all shards as one bigWig.

        Raises:
            UserError: a shard is cut short or damaged.
        """
        for path in paths:  # before the library sees what may be damaged
            for _ in _blocks_of(path):
                pass
        with _writing(target, provenance["contigs"]) as write:
            for path in paths:
                for chunk in _blocks_of(path):
                    write(chunk)


def _blocks_of(path: Path) -> Iterator[bytes]:
    """Yield the blocks of a shard of a bigWig in pieces; raise UserError at its end if it is damaged."""
    with open_binary(path) as stream:
        yield from shard_body(stream, path, hashlib.sha256(stream.readline()))


@contextmanager
def _writing(target: Path, contigs: Mapping[str, int]) -> Iterator[WriteBytes]:
    """Start the process that writes a bigWig, and yield a function that sends it blocks.

    The library tells of failures by messages or a panic, which say nothing of use: the exit code counts.
    """
    script = Path(__file__).with_name("bigwig_process.py")
    with atomic_path(target) as path:
        link = path.with_name(f"{path.name}.bw")  # pybigtools goes by the suffix
        link.symlink_to(path.resolve())
        process = subprocess.Popen(
            [sys.executable, "-P", str(script), str(link)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdin is not None  # noqa: S101
        try:
            process.stdin.write(json.dumps(contigs).encode() + b"\n")
            yield process.stdin.write
            process.stdin.close()
            code = process.wait()
        except BrokenPipeError:
            code = process.wait()
        finally:
            process.kill()
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()
            link.unlink()
        if code == NO_NUMBERS:
            remedy = "a bigWig needs one; write a bedGraph"
            raise UserError("no base has a number", at=target, remedy=remedy)
        if code:
            raise UserError("cannot be written", at=target, remedy="is the disk full?")


NO_NUMBERS = 3
"""Exit code of the process that writes a bigWig, where it was sent no numbers."""
# A .gz is bgzip, as tabix needs it.
TRACKS: dict[str, TrackFormat] = {
    "bedgraph": BedGraphFormat(suffix="bedgraph", stdout=True),
    "bedgraph.gz": BedGraphFormat(suffix="bedgraph.gz", pack=open_bgzip),
    "bw": BigWigFormat(suffix="bw", pack=open_gzip),
}


def track_input(kind: str | None) -> dict[str, Any]:
    """Return what an output of this type asks of `SequenceInput`, as its fields; a table asks nothing."""
    if kind not in TRACKS:
        return {}
    return {"track": kind, "in_order": TRACKS[kind].needs_order}


def open_track(
    target: Path, kind: str, contigs: Mapping[str, int], provenance: Mapping[str, Any]
) -> AbstractContextManager[TrackWriter]:
    """Open a track for writing; the file appears, whole, when the context ends well.

    Args:
        target: output file, or `-` for stdout.
        kind: a key of `TRACKS`.
        contigs: length of every contig that may have numbers; a bedGraph needs none.
        provenance: JSON values, which only a shard keeps.

    Raises:
        UserError: as `atomic_path`.
    """
    return TRACKS[kind].open(target, contigs, provenance)
