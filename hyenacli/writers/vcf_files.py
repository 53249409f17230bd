"""Files of VCF lines: .vcf, .vcf.gz and .bcf, how one is written and indexed, and how shards are merged."""

import hashlib
import itertools
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pysam
import pysam.bcftools
import pysam.utils

from hyenacli.console import log
from hyenacli.errors import UsageError, UserError
from hyenacli.readers.text import BGZF_END, compression, open_binary
from hyenacli.readers.vcf import quiet_htslib
from hyenacli.state_files import draft_path, remove
from hyenacli.writers.atomic import atomic_path
from hyenacli.writers.columns import FileFormat, Head
from hyenacli.writers.text import (
    AGAIN,
    BgzipWriter,
    Packer,
    WriteBytes,
    damaged_shard,
    open_bgzip,
    open_plain,
    write_hashed,
)
from hyenacli.writers.vcf import OWN_PREFIX, SHARD_PREFIX, parse_provenance, shard_line

_CHUNK_BYTES = 1 << 20
# What is read at once of a file whose header alone is read.
_HEADER_BYTES = 1 << 14
_SHARD_PREFIX = SHARD_PREFIX.encode()
# Keys of checksums in the mark of a shard: of its lines, and of its bgzip blocks below the header.
_CHECKSUM, _BLOCKS = "lines_sha256", "blocks_sha256"


@dataclass(frozen=True)
class _Copied:
    """A shard whose lines were read.

    Attributes:
        shard: what it tells about itself.
        records: that it has.
    """

    path: Path
    shard: Mapping[str, Any]
    records: int


@dataclass(frozen=True, kw_only=True)
class VcfFormat(FileFormat):
    """VCF text, whose shards are merged by copying lines.

    Attributes:
        max_position: largest position, 0-based.
        pack: opens the file, compressed or not.
        indexes: suffixes of the index beside it, if its records are sorted, and whether that is a CSI.
    """

    max_position: int = (1 << 63) - 2
    pack: Packer = open_plain
    indexes: tuple[tuple[str, bool], ...] = ()

    @contextmanager
    def open_lines(self, target: Path, header: Sequence[bytes]) -> Iterator[WriteBytes]:
        """Open a file for writing lines below a header; it appears, complete, when the context ends well.

        Args:
            target: the file; `-` is stdout, as text.
            header: lines with line ends.

        Raises:
            UserError: as `atomic_path`, or the format cannot hold a line.
        """
        if str(target) == "-":
            sys.stdout.buffer.writelines(header)
            yield sys.stdout.buffer.write
            sys.stdout.buffer.flush()
            return
        with self._open_file(target, header) as write:
            yield write

    @contextmanager
    def _open_file(self, target: Path, header: Sequence[bytes]) -> Iterator[WriteBytes]:
        shard = next((line for line in header if line.startswith(_SHARD_PREFIX)), None)
        digest, start = _header_digest(header), sum(map(len, header))
        with self._replaced(target) as path:
            with self.pack(path, target) as file:
                file.write(b"".join(header))
                if shard is not None and isinstance(file, BgzipWriter):
                    start = file.end_block()
                yield file.write if shard is None else partial(write_hashed, file.write, digest)
            if shard is not None and path.is_file():
                # only now, when all lines are written, is their checksum complete
                mark = parse_provenance([shard.decode().rstrip()])["shard"]
                mark[_CHECKSUM] = digest.hexdigest()
                if compression(path) == "bgzip":
                    mark[_BLOCKS] = _blocks_sha256(path, start)
                sealed = shard_line(mark).encode() + b"\n"
                new = [sealed if line == shard else line for line in header]
                _replace_header(path, start, new, self.pack, target)

    @contextmanager
    def _replaced(self, target: Path) -> Iterator[Path]:
        """Yield a path to write, which becomes the target at the end, and index that.

        Records out of order have no index; a warning says so.
        """
        with atomic_path(target) as path:
            yield path
            if target.is_file() or not target.exists():
                remove_indexes(target)
        if not (self.indexes and target.is_file()):
            return
        for suffix, csi in self.indexes:
            try:
                with quiet_htslib(), atomic_path(Path(f"{target}{suffix}")) as index:
                    # The stubs do not know the preset of BCF.
                    preset: Any = self.suffix.removesuffix(".gz")
                    pysam.tabix_index(str(target), preset=preset, index=str(index), force=True, csi=csi)
            except OSError:
                continue
            return
        log.warning("%s: no index, as the records are not sorted; bcftools sort does that", target)

    def matches(self, path: Path, start: bytes) -> bool:
        """Return whether a file has this format."""
        packed = compression(path) != "plain"
        return start.startswith(b"##fileformat") and packed == self.suffix.endswith(".gz")

    def head(self, path: Path) -> Head:
        """Read the header: its lines that are not the tool's own, and what the tool's own tell."""
        with open_binary(path, lookahead=_HEADER_BYTES) as stream:
            lines = [line.decode(errors="replace").rstrip("\r\n") for line in _header(stream)]
        return Head(_foreign(lines), parse_provenance(lines))

    def join(self, paths: Sequence[Path], target: Path, _provenance: Mapping[str, Any]) -> None:
        """Write the lines of shards as one file.

        Raises:
            UserError: a shard is damaged, or there are fewer records than were shared.
        """
        header = self._joined_header(paths)
        with self.open_lines(target, header) as write:
            _check_counts([self._copy_records(path, write) for path in paths])

    def _joined_header(self, paths: Sequence[Path]) -> list[bytes]:
        with open_binary(paths[0], lookahead=_HEADER_BYTES) as stream:
            return [line for line in _header(stream) if not line.startswith(_SHARD_PREFIX)]

    def _copy_records(self, path: Path, write: WriteBytes) -> _Copied:
        """Write the lines of a shard below its header.

        Raises:
            UserError: they are not those that its checksum is of.
        """
        count = 0
        with open_binary(path) as stream:
            header = list(_header(stream))
            digest = _header_digest(header)
            while data := stream.read(_CHUNK_BYTES):
                digest.update(data)
                count += data.count(b"\n")
                write(data)
        shard = parse_provenance([line.decode(errors="replace").rstrip() for line in header])["shard"]
        # written to stdout, a shard has no checksum
        if shard.get(_CHECKSUM, digest.hexdigest()) != digest.hexdigest():
            raise damaged_shard(path)
        return _Copied(path, shard, count)


@dataclass(frozen=True, kw_only=True)
class _BgzipFormat(VcfFormat):
    """VCF in bgzip, whose shards are merged by copying compressed blocks, neither unpacked nor packed."""

    def join(self, paths: Sequence[Path], target: Path, provenance: Mapping[str, Any]) -> None:
        starts = [_sound_blocks(path) for path in paths]
        if str(target) == "-" or None in starts:
            super().join(paths, target, provenance)
            return
        with self._replaced(target) as path:
            with self.pack(path, target) as file:
                file.write(b"".join(self._joined_header(paths)))
            for shard, start in zip(paths, starts, strict=True):
                _append(path, shard, start or 0)


@dataclass(frozen=True, kw_only=True)
class _BcfFormat(VcfFormat):
    """BCF, which takes the lines of a VCF; shards are merged by copying records."""

    max_position: int = (1 << 31) - 2

    @contextmanager
    def _open_file(self, target: Path, header: Sequence[bytes]) -> Iterator[WriteBytes]:
        with self._replaced(target) as path, open_bcf(path, target, header) as text:
            yield text.write

    def matches(self, _path: Path, start: bytes) -> bool:
        return start.startswith(b"BCF\x02")

    def head(self, path: Path) -> Head:
        with quiet_htslib(), pysam.VariantFile(str(path)) as file:
            lines = str(file.header).splitlines()
        # without the lines that declare what only this shard uses
        return Head(_foreign(lines)[-1:], parse_provenance(lines))

    def join(self, paths: Sequence[Path], target: Path, _provenance: Mapping[str, Any]) -> None:
        if str(target) == "-":
            raise UsageError("BCF does not go to stdout", at="-o", remedy="name a file")
        with quiet_htslib(), self._replaced(target) as path:
            header = pysam.VariantHeader()
            for number, shard in enumerate(paths):
                with pysam.VariantFile(str(shard)) as file:
                    if number == 0:
                        _declare(header, file.header, SHARD_PREFIX)
                        for sample in file.header.samples:
                            header.add_sample(sample)
                    else:
                        _declare(header, file.header, OWN_PREFIX)
            with pysam.VariantFile(str(path), "wb", header=header) as out:
                for shard in paths:
                    with pysam.VariantFile(str(shard)) as file:
                        for record in file:
                            record.translate(header)
                            out.write(record)


def _check_counts(copied: Sequence[_Copied]) -> None:
    """Raise UserError if shards of which no record was left out have fewer records than the input."""
    records = copied[0].shard["records"]
    if sum(part.records for part in copied) != records and all(part.shard["every_record"] for part in copied):
        each = ", ".join(f"{part.path} has {part.records:,}" for part in copied)
        what = f"one of the shards is cut short: of {records:,} records {each}"
        raise UserError(what, remedy=AGAIN)


def _sound_blocks(path: Path) -> int | None:
    """Return the offset of the block that begins with the first record; None where blocks cannot be copied.

    They are not those that were written where the shard is damaged, or was packed again by another program.
    """
    try:
        with quiet_htslib(), pysam.BGZFile(str(path), "r", index=None) as stream:
            header = list(
                itertools.takewhile(lambda line: line.startswith(b"##"), iter(stream.readline, b""))
            )
            # a virtual offset: of the block in the file, and below it of the byte in the block
            start, inside = divmod(stream.tell(), 1 << 16)
    except OSError:
        return None
    shard = parse_provenance([line.decode(errors="replace") for line in header])["shard"]
    return start if not inside and shard.get(_BLOCKS) == _blocks_sha256(path, start) else None


def _blocks_sha256(path: Path, start: int) -> str:
    """Return the sha256 of a file from an offset on."""
    with path.open("rb") as blocks:
        blocks.seek(start)
        return hashlib.file_digest(blocks, "sha256").hexdigest()


def _header_digest(header: Iterable[bytes]) -> "hashlib._Hash":
    """Return the sha256 of a header without the mark of a shard, which holds the sha256 of all lines."""
    return hashlib.sha256(b"".join(line for line in header if not line.startswith(_SHARD_PREFIX)))


def _replace_header(path: Path, start: int, header: Sequence[bytes], pack: Packer, target: Path) -> None:
    """Put another header into a file whose records begin at the offset `start`."""
    new_path = path.with_suffix(".old")
    try:
        with pack(new_path, target) as new:
            new.write(b"".join(header))
        _append(new_path, path, start)
        new_path.replace(path)
    finally:
        new_path.unlink(missing_ok=True)


def _append(path: Path, source: Path, start: int) -> None:
    """Append what a source has from an offset on; bgzip's mark of the end moves to the new end."""
    with path.open("r+b") as joined, source.open("rb") as blocks:
        joined.seek(max(0, joined.seek(0, os.SEEK_END) - len(BGZF_END)))
        if joined.read() == BGZF_END:
            joined.seek(-len(BGZF_END), os.SEEK_END)
        blocks.seek(start)
        shutil.copyfileobj(blocks, joined, _CHUNK_BYTES)


def _declare(header: pysam.VariantHeader, other: pysam.VariantHeader, left_out: str) -> None:
    """Add the lines of another header that are new, but for those with a prefix."""
    declared = set(str(header).splitlines())
    for line in str(other).splitlines():
        if line.startswith("##") and not line.startswith(left_out) and line not in declared:
            header.add_line(line)


def _header(stream: BinaryIO) -> Iterator[bytes]:
    for line in stream:
        yield line
        if not line.startswith(b"##"):
            return


def _foreign(lines: Sequence[str]) -> list[str]:
    return [line for line in lines if not line.startswith(OWN_PREFIX)]


VCFS = {
    "vcf": VcfFormat(suffix="vcf", stdout=True),
    # a .tbi holds no position beyond 2^29
    "vcf.gz": _BgzipFormat(suffix="vcf.gz", pack=open_bgzip, indexes=((".tbi", False), (".csi", True))),
    "bcf": _BcfFormat(suffix="bcf", indexes=((".csi", True),)),
}


_REMEDY = "write .vcf.gz, where every line stays as it is"


def remove_indexes(target: Path) -> None:
    """Remove the indexes of a file that is about to be replaced: they would point to the wrong lines."""
    for suffix in (".tbi", ".csi"):
        Path(f"{target}{suffix}").unlink(missing_ok=True)


@contextmanager
def open_bcf(path: Path, target: Path, header: Sequence[bytes]) -> Iterator[BgzipWriter]:
    """Take the lines of VCF records, and write them as BCF when the context ends well.

    BCF refers to contigs, filters and fields by their number in the header, so what the records use but the
    header does not declare is declared: contigs without length, fields as strings. The text waits in a
    compressed file beside the target, because only the last record shows whether the header is complete.

    Args:
        path: the file.
        target: what messages call it.
        header: lines with line ends, up to and including #CHROM.

    Raises:
        UserError: BCF cannot hold a record: a position is beyond 2^31, or columns are malformed.
    """
    folder = draft_path(target, "old")
    folder.mkdir(exist_ok=True)
    text = folder / "text.vcf.gz"
    try:
        with open_bgzip(text, target, level=1) as writer:
            for line in header:
                writer.write(line)
            records_start = writer.end_block()
            yield writer
        # Most headers are complete; htslib refuses BCF of records that use what is not declared.
        with suppress(UnicodeDecodeError, pysam.utils.SamtoolsError):
            b"".join(header).decode()
            _convert(text, path)
            return
        _replace_header(text, records_start, [_complete_header(text, target)], open_bgzip, target)
        try:
            _convert(text, path)
        except pysam.utils.SamtoolsError as error:
            reason = error.value.rpartition("stderr=")[2].strip()
            raise UserError(f"cannot be written: {reason}", at=target, remedy="is the disk full?") from error
    finally:
        remove(folder)


def _convert(text: Path, path: Path) -> None:
    """Turn VCF into BCF.

    Raises:
        pysam.utils.SamtoolsError: bcftools cannot.
    """
    with quiet_htslib():
        pysam.bcftools.view("--no-version", "-Ob", "-o", str(path), str(text), catch_stdout=False)


def _complete_header(text: Path, target: Path) -> bytes:
    """Return the header with what the records use declared, as htslib declares it while it reads them."""
    reached = "the header"
    try:
        with quiet_htslib(), pysam.VariantFile(str(text)) as file:
            records = iter(file)
            for number in itertools.count(1):
                reached = f"record {number:,}"
                if next(records, None) is None:
                    break
            reached = "a header that is not UTF-8"
            return str(file.header).encode()
    except (OSError, ValueError) as error:
        raise UserError(f"{reached} cannot be written as BCF", at=target, remedy=_REMEDY) from error
