"""What random access to a FASTA file needs: a .fai, for bgzip a .gzi, for some files a copy."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pysam

from hyenacli.errors import UserError
from hyenacli.readers.fasta_blocks import FastaBlock, read_blocks
from hyenacli.readers.streams import BGZIP_HEAD, compression, is_bgzip, open_binary

_COPY, _FAI, _GZI = "genome.fa.gz", "genome.fai", "genome.gzi"


@dataclass(frozen=True, slots=True)
class GenomeFiles:
    """The files to read a genome's bases from.

    Attributes:
        fasta: the user's file, or our bgzip copy of it.
        fai: its index: name, length, offset, bases and bytes per line.
        gzi: its bgzip block index; None for a plain file.
    """

    fasta: Path
    fai: Path
    gzi: Path | None

    @classmethod
    def within(cls, folder: Path, source: Path) -> Self:
        """The files that `build_index` has left in a folder."""
        copy, gzi = folder / _COPY, folder / _GZI
        return cls(copy if copy.exists() else source, folder / _FAI, gzi if gzi.exists() else None)

    def lengths(self) -> dict[str, int]:
        """Length of every contig, in the file's order."""
        with self.fai.open(encoding="utf-8") as rows:
            columns = (row.split("\t") for row in rows)
            return {name: int(length) for name, length, *_ in columns}


def build_index(source: Path, folder: Path) -> None:
    """Read a FASTA file once from start to end, check every letter of it, and write what random access needs.

    A gzip file, or a bgzip file with a part that is plain gzip, has no blocks to begin reading at, and in
    records with ragged lines no arithmetic finds a base: for these the folder gets a bgzip copy with one line
    per record, letters and case as written.

    Raises:
        UserError: the file is not FASTA of DNA, or two contigs have one name.
    """
    blocks = _bgzip_blocks(source)
    rows = _index_in_place(source) if blocks or compression(source) == "plain" else None
    if rows is None:
        rows = _write_copy(source, folder / _COPY)
        blocks = _bgzip_blocks(folder / _COPY)
    if blocks:
        _write_block_index(blocks, folder / _GZI)
    (folder / _FAI).write_text("".join(rows), encoding="utf-8")


def _index_in_place(source: Path) -> list[str] | None:
    """The .fai of a file as it is; None when the lines of some record are ragged."""
    rows = []
    for block, name in _checked_blocks(source):
        length = len(block.letters())
        layout = _line_layout(block.body, length)
        if layout is None:
            return None
        rows.append(_row(name, length, block.offset, *layout))
    return rows


def _write_copy(source: Path, target: Path) -> list[str]:
    """Write a bgzip copy with one line per record and return its .fai."""
    rows = []
    offset = 0
    # Level 1 is ten times as fast as the default for a tenth more disk; the stubs do not know the levels.
    with pysam.BGZFile(str(target), "w1", index=None) as copy:  # type: ignore[arg-type]
        for block, name in _checked_blocks(source):
            letters = block.letters()
            header = f">{name}\n".encode()
            rows.append(_row(name, len(letters), offset + len(header), len(letters), len(letters) + 1))
            copy.write(header + letters + b"\n")
            offset += len(header) + len(letters) + 1
    return rows


def _checked_blocks(source: Path) -> Iterator[tuple[FastaBlock, str]]:
    lines: dict[str, int] = {}
    with open_binary(source) as stream:
        for block in read_blocks(stream):
            name = block.title()[0]
            if name in lines:
                raise UserError(
                    f"contig '{name}' was already on line {lines[name]}",
                    at=source,
                    line=block.line,
                    remedy="give every contig a name of its own",
                )
            lines[name] = block.line
            block.sequence()
            yield block, name


def _line_layout(body: bytes, length: int) -> tuple[int, int] | None:
    """Bases and bytes per line when the same in all lines but the last, None otherwise.

    All bytes of `body` are the `length` bases or white space, so it is enough to find the right number of
    line ends in the right places.
    """
    text = body.rstrip()
    first = text.find(b"\n")
    if first < 0:
        return length, length + 1
    ending = 2 if text[first - 1 : first] == b"\r" else 1
    width = first + 1
    bases = width - ending
    if bases < 1:
        return None
    breaks = (length - 1) // bases
    if len(text) != length + ending * breaks or text[first::width] != b"\n" * breaks:
        return None
    if ending == 2 and text[first - 1 :: width][:breaks] != b"\r" * breaks:
        return None
    return bases, width


def _row(name: str, length: int, offset: int, line_bases: int, line_width: int) -> str:
    return f"{name}\t{length}\t{offset}\t{line_bases}\t{line_width}\n"


def _bgzip_blocks(fasta: Path) -> list[tuple[int, int]]:
    """Where each block begins, in the file and in the data; [] unless all of the file is blocks of bgzip."""
    blocks = []
    start = data_start = 0
    with fasta.open("rb") as file:
        while head := file.read(BGZIP_HEAD):
            size = int.from_bytes(head[16:18], "little") + 1
            if not is_bgzip(head) or size <= BGZIP_HEAD + 8:
                return []
            file.seek(start + size - 4)
            data_size = int.from_bytes(file.read(4), "little")
            if data_size:
                blocks.append((start, data_start))
            start, data_start = start + size, data_start + data_size
    return blocks


def _write_block_index(blocks: list[tuple[int, int]], target: Path) -> None:
    """The .gzi of htslib: the number of blocks after the first, and where each begins in both coordinates."""
    with target.open("wb") as out:
        for numbers in [(len(blocks) - 1,), *blocks[1:]]:
            out.write(b"".join(number.to_bytes(8, "little") for number in numbers))
