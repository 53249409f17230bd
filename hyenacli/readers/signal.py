"""Numbers of the bases of a genome, from a bedGraph or a bigWig: labels of models that predict every base."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hyenacli.errors import UsageError, UserError, quote
from hyenacli.genome.region import Region
from hyenacli.readers.features import Part
from hyenacli.readers.regions import Reference, read_bed
from hyenacli.readers.tables import Track
from hyenacli.readers.text import Source, file_format, open_binary, source_name

Span = tuple[int, int, float]
"""Start and end, 0-based half-open, and the number of their bases."""


class Signal:
    """The numbers of a bedGraph or a bigWig, by contig of the genome; a base without an entry has none.

    Raises:
        UsageError: a bigWig comes from a pipe.
        UserError: the file cannot be read, a line has no number, two lines cover one base, no contig is one
            of the genome, or a bigWig needs pybigtools.
    """

    def __init__(self, source: Source, reference: Reference) -> None:
        with open_binary(source) as stream:
            self.name = source_name(stream)
            is_bigwig = file_format(stream) == "a bigWig"
            self._numbers: _BedGraph | _BigWig = (
                _BigWig(source, self.name) if is_bigwig else _BedGraph(stream, self.name)
            )
        contigs = reference.match(self._numbers.contigs, self.name)
        targets = {contigs.resolve(contig): contig for contig in self._numbers.contigs}
        self._contigs = {target: contig for target, contig in targets.items() if target is not None}

    def close(self) -> None:
        """Close the file, where it is read at random."""
        if isinstance(self._numbers, _BigWig):
            self._numbers.close()

    def _spans(self, region: Region) -> Iterable[Span]:
        contig = self._contigs.get(region.contig)
        return () if contig is None else self._numbers.spans(contig, region.start, region.end)

    def over(self, region: Region, parts: Sequence[Part] = ()) -> Track:
        """Return the numbers of a region's bases (L,) in reading direction, NaN for a base without one.

        Args:
            region: of the genome.
            parts: that it consists of; empty for all of it.
        """
        if parts:
            forward = [self.over(replace(region, start=start, end=end, strand="+")) for start, end in parts]
            joined = np.concatenate(forward)
            return joined[::-1].copy() if region.strand == "-" else joined
        track = np.full(len(region), np.nan, np.float32)
        for start, end, value in self._spans(region):
            track[max(0, start - region.start) : end - region.start] = value
        return track[::-1].copy() if region.strand == "-" else track


class _BedGraph:
    """A bedGraph in memory.

    Attributes:
        contigs: their names in the file.
    """

    def __init__(self, source: Source, name: str) -> None:
        rows: dict[str, list[tuple[int, int, float, int]]] = {}
        for record in read_bed(source):
            if len(record.region):
                number = _number(record.fields, name, record.line)
                row = (record.region.start, record.region.end, number, record.line)
                rows.setdefault(record.region.contig, []).append(row)
        if not rows:
            raise UserError("no lines", at=name)
        self._name = name
        self._entries = {contig: self._sorted(contig_rows) for contig, contig_rows in rows.items()}
        self.contigs: Sequence[str] = tuple(rows)

    def spans(self, contig: str, start: int, end: int) -> Iterable[Span]:
        """Return the entries that have bases of [start, end)."""
        starts, ends, values = self._entries[contig]
        first = int(np.searchsorted(ends, start, side="right"))
        last = int(np.searchsorted(starts, end, side="left"))
        return zip(starts[first:last], ends[first:last], values[first:last], strict=True)

    def _sorted(
        self, rows: list[tuple[int, int, float, int]]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], Track]:
        rows.sort()
        starts, ends = (np.array([row[i] for row in rows], np.int64) for i in (0, 1))
        overlaps = np.flatnonzero(starts[1:] < ends[:-1])
        if overlaps.size:
            first = int(overlaps[0])
            line = rows[first + 1][3]
            what = f"covers a base that line {rows[first][3]} covers too"
            raise UserError(what, at=self._name, line=line, remedy="give every base one number")
        return starts, ends, np.array([row[2] for row in rows], np.float32)


class _BigWig:
    """A bigWig, read at random.

    Attributes:
        contigs: their names in the file.
    """

    def __init__(self, source: Source, name: str) -> None:
        if not isinstance(source, str | Path) or str(source) == "-":
            raise UsageError("a bigWig is read at random, not from a pipe", remedy="give a file on disk")
        try:
            import pybigtools
        except ImportError:
            remedy = "pip install pybigtools"
            raise UserError("a bigWig needs pybigtools", at=name, remedy=remedy) from None
        self._name = name
        # as a stream: of a path pybigtools believes the suffix
        self._stream = Path(source).open("rb")  # noqa: SIM115  (`close` closes it)
        try:
            self._file: Any = pybigtools.open(self._stream)
            self._lengths: dict[str, int] = self._file.chroms()
        except Exception as error:  # whatever pybigtools makes of damaged data
            self.close()
            raise self._damaged() from error
        self.contigs: Sequence[str] = tuple(self._lengths)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def spans(self, contig: str, start: int, end: int) -> Iterable[Span]:
        """Return the entries of bases of [start, end), cut to it."""
        end = min(end, self._lengths[contig])
        if start >= end:
            return ()
        try:
            return list(self._file.records(contig, start, end))
        except Exception as error:
            raise self._damaged() from error

    def _damaged(self) -> UserError:
        return UserError("the bigWig is damaged or cut short", at=self._name, remedy="copy it again")


def _number(fields: tuple[str, ...], file: str, line: int) -> float:
    try:
        return float(fields[3])
    except (ValueError, IndexError):
        what = f"{quote(fields[3])} is not a number" if len(fields) > 3 else "there is no column 4"
        remedy = "a bedGraph has contig, start, end and a number"
        raise UserError(what, at=file, line=line, remedy=remedy) from None
