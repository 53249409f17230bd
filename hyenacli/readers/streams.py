"""Any input as one stream of plain bytes: a file or standard input, gzip, bgzip or neither."""

import gzip
import io
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

from hyenacli.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Buffer

Source = Path | str | io.BufferedReader
"""A path, '-' for standard input, or a stream which `open_binary` has opened before."""

InputFormat = Literal["fasta", "bed", "vcf"]
Compression = Literal["plain", "gzip", "bgzip"]

BOM = b"\xef\xbb\xbf"
"""Some editors begin a text file with it; to us it is no part of the text."""
BGZIP_HEAD = 18
"""Bytes of the header of a bgzip block."""

_BUFFER = 1 << 18
_GZIP = b"\x1f\x8b"
_BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_FOREIGN = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}


class _Bytes(io.RawIOBase):
    """A stream under its display name, whose damage is the user's to repair.

    Every read fills the buffer it is given unless the input ends, so that a peek sees a whole buffer also
    where a pipe delivers its bytes one by one.
    """

    def __init__(self, stream: BinaryIO | gzip.GzipFile, name: str, below: io.IOBase | None):
        self._stream = stream
        self._below = below
        self.name = name

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "Buffer") -> int:
        view = memoryview(buffer).cast("B")
        filled = 0
        try:
            while filled < len(view):
                chunk = self._stream.read(len(view) - filled)
                if not chunk:
                    break
                view[filled : filled + len(chunk)] = chunk
                filled += len(chunk)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _damaged(self.name) from error
        return filled

    def close(self) -> None:
        if self._below is not None:
            self._below.close()
        super().close()


def open_binary(source: Source) -> io.BufferedReader:
    """Open an input for reading from its start, decompressed; close it, or use it in a `with` statement.

    gzip and bgzip (any number of members) are recognised by their first bytes, never by the file's name. The
    stream's `name` is what messages call the input, and its `peek` shows the first 256 KiB. A stream is
    returned as it is.

    Raises:
        UserError: the input is missing, a folder, unreadable, empty, in another compression, or a gzip file
            that is damaged or cut short (this may show only later, while reading).
    """
    if isinstance(source, io.BufferedReader):
        return source
    name = source_name(source)
    if str(source) == "-":
        file = _buffered(sys.stdin.buffer, name, below=None)
    else:
        opened = _open_file(Path(source))
        _check_end(opened, name)
        file = _buffered(opened, name, below=opened)
    try:
        stream = _decompressed(file, name)
        if not stream.peek(1):
            raise UserError("the input is empty", at=name)
    except BaseException:
        file.close()
        raise
    return stream


def source_name(source: Source) -> str:
    """What messages call an input.

    >>> source_name("-"), source_name(Path("a.bed"))
    ('standard input', 'a.bed')
    """
    if isinstance(source, io.BufferedReader):
        return str(source.name)
    return "standard input" if str(source) == "-" else str(source)


def compression(path: Path) -> Compression:
    """How a file is compressed; only plain and bgzip files can be read at random.

    Raises:
        UserError: the file cannot be read.
    """
    with _open_file(path) as file:
        head = file.peek(BGZIP_HEAD)
    if is_bgzip(head):
        return "bgzip"
    return "gzip" if head.startswith(_GZIP) else "plain"


def is_bgzip(head: bytes) -> bool:
    """Whether a block of bgzip begins like this, in all that htslib asks of it."""
    return head[:4] == b"\x1f\x8b\x08\x04" and head[10:16] == b"\x06\x00BC\x02\x00"


def sniff_format(stream: io.BufferedReader, otherwise: InputFormat | None = None) -> InputFormat:
    """Tell FASTA, BED and VCF apart by content, without taking a byte from the stream.

    Args:
        stream: from `open_binary`.
        otherwise: what it must be if it looks like none of them; its reader can say better what is wrong.

    Raises:
        UserError: it is none of them, as far as the first 256 KiB tell, and nothing else is given.
    """
    lines = stream.peek(1).removeprefix(BOM).splitlines()
    for line in filter(None, map(bytes.strip, lines)):
        if line.startswith(b">"):
            return "fasta"
        if line.startswith((b"##fileformat", b"#CHROM")):
            return "vcf"
        columns = line.split(b"\t") if b"\t" in line else line.split()
        if line.startswith(b"#") or columns[0] in (b"track", b"browser"):
            continue
        if len(columns) >= 3 and columns[1].isdigit() and columns[2].isdigit():
            return "bed"
        break
    if otherwise:
        return otherwise
    raise UserError(
        "neither FASTA, BED nor VCF",
        at=stream.name,
        remedy="FASTA begins with '>', a BED line with contig, start and end, a VCF with ##fileformat",
    )


def _open_file(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise UserError("no such file", at=path) from None
    except IsADirectoryError:
        raise UserError("is a folder, not a file", at=path) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read: {getattr(error, 'strerror', None) or error}", at=path) from None


def _decompressed(file: io.BufferedReader, name: str) -> io.BufferedReader:
    head = file.peek(BGZIP_HEAD)
    for magic, kind in _FOREIGN.items():
        if head.startswith(magic):
            raise UserError(f"compressed with {kind}, which is not read", at=name, remedy="use gzip or bgzip")
    if not head.startswith(_GZIP):
        return file
    return _buffered(gzip.GzipFile(fileobj=file, mode="rb"), name, below=file)


def _buffered(stream: BinaryIO | gzip.GzipFile, name: str, below: io.IOBase | None) -> io.BufferedReader:
    return io.BufferedReader(_Bytes(stream, name, below), _BUFFER)


def _check_end(file: io.BufferedReader, name: str) -> None:
    """A bgzip file cut between two blocks is valid gzip; only the missing last, empty block tells."""
    if not file.seekable() or not is_bgzip(file.peek(BGZIP_HEAD)):
        return
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - len(_BGZF_END)))
    if file.read() != _BGZF_END:
        file.close()
        raise _damaged(name)
    file.seek(0)


def _damaged(name: str) -> UserError:
    return UserError("the gzip data are damaged or cut short", at=name, remedy="copy or download it again")
