"""The way of any input from bytes to text: a stream of plain bytes, its lines, and the cells of a line.

An input is a file or standard input, in gzip, bgzip or neither. The stream begins after a byte-order mark,
and has line feeds where old Macs wrote carriage returns, so that no reader meets either.
"""

import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, AnyStr, BinaryIO, Literal

from hyenacli.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Buffer

Source = Path | str | io.BufferedReader
"""A path, '-' for standard input, or a stream which `open_binary` has opened before."""

InputFormat = Literal["fasta", "bed", "vcf"]
Compression = Literal["plain", "gzip", "bgzip"]

MISSING = frozenset({"", "NA", "NaN", "nan", "None", "none", "null", "NULL", "N/A", "n/a", "#N/A", "<NA>"})
"""Cells that stand for a missing value, as R, pandas, SQL and spreadsheets write them."""
BGZIP_HEAD = 18
"""Bytes of the header of a bgzip block."""

_BLANKS: dict[type, Any] = {str: " \t\n\r\v\f", bytes: b" \t\n\r\v\f"}
_BLANK_RUN = re.compile(f"[{_BLANKS[str]}]+")
_QUOTE = ('"', ord('"'))
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_OLD_MAC = bytes.maketrans(b"\r", b"\n")
_BUFFER = 1 << 18
_GZIP = b"\x1f\x8b"
BGZF_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_TO_FASTA = "convert it to FASTA"
# What a file is by its beginning, and what to do with it.
_FORMATS = [
    (name, re.compile(start), remedy)
    for name, start, remedy in (
        (
            "a FASTQ",  # bases may be on several lines, or more than are seen
            rb"@[^\n]*\n([A-Za-z.*-]*\r?\n)*(?:(?<=\n)\+|[A-Za-z.*-]+\Z)",
            "convert it to FASTA (seqtk seq -A)",
        ),
        ("a SAM", rb"@(HD|SQ|RG|PG|CO)\t", "convert it to FASTA (samtools fasta) or BED (bedtools bamtobed)"),
        ("a BAM", rb"BAM\x01", "convert it to FASTA (samtools fasta) or BED (bedtools bamtobed)"),
        ("a CRAM", rb"CRAM", "convert it to FASTA (samtools fasta)"),
        ("a GenBank file", rb"LOCUS {2,}\S", _TO_FASTA),
        ("an EMBL file", rb"ID {3}\S", _TO_FASTA),
        ("a 2bit file", rb"\x43\x27\x41\x1a|\x1a\x41\x27\x43", "convert it to FASTA (twoBitToFa)"),
        (
            "a GFF or GTF",
            (  # also with blanks between its columns, which its reader refuses
                rb"##gff|#!g|((#|track |browser )[^\n]*\n)*("
                rb"[^\t\n]+\t[^\t\n]*\t[^\t\n]+\t\d+\t\d+\t[^\t\n]+\t[-+.?]\t"
                rb"|\S+ +[^\s\d]\S* +\S+ +\d+ +\d+ +\S+ +[-+.?] )"
            ),
            "give FASTA where bases are read, and BED, whose starts count from 0, where regions are",
        ),
        (
            "a VCF",
            rb"##fileformat=VCF|#CHROM\tPOS\tID\tREF",
            "it is the input of hyena score-variants, with the genome at -f",
        ),
        ("a BCF", rb"BCF\x02", "it is the input of hyena score-variants, with the genome at -f"),
        ("a MAF alignment", rb"##maf", _TO_FASTA),
        ("a Parquet table", rb"PAR1", "convert it to text (VCF, BED, FASTA, CSV or TSV)"),
        ("a bigWig", rb"\x26\xfc\x8f\x88|\x88\x8f\xfc\x26", "convert it to bedGraph (bigWigToBedGraph)"),
        ("a bigBed", rb"\xeb\xf2\x89\x87|\x87\x89\xf2\xeb", "convert it to BED (bigBedToBed)"),
        ("an HDF5 file", rb"\x89HDF", "give text or Parquet"),
        ("a NumPy file", rb"\x93NUMPY", "give text or Parquet"),
        ("an index of htslib", rb"(TBI|CSI|BAI)\x01", "give the file that it belongs to"),
        ("an old Excel sheet", rb"\xd0\xcf\x11\xe0", "save it as CSV"),
        (
            "HTML",
            rb"\s*<(!DOCTYPE|html|HTML|head)",
            "a page was saved in place of the file: download it again",
        ),
        ("XML", rb"\s*<\?xml", "give text or Parquet"),
        (
            "JSON",
            rb"\s*(\{\s*[\"}]|\[\s*[\[{\"\d\]])",
            "write a table (csv, tsv, Parquet, or JSON with one object a line)",
        ),
        ("a pointer of Git LFS", rb"version https://git-lfs", "fetch the file with git lfs pull"),
        (
            "a wiggle track",
            rb"(track[^\n]*\n|#[^\n]*\n)*(fixed|variable)Step",
            "convert it to bedGraph or BED",
        ),
    )
]
FASTQ = "a FASTQ"
_SEQUENCES = (FASTQ, "a GenBank file", "an EMBL file", "a 2bit file")
_FOREIGN = {b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"}


class _Bytes(io.RawIOBase):
    """A stream under its display name, whose damage is the user's to repair.

    Every read fills the buffer it is given unless the input ends, so that a peek sees a whole buffer also
    where a pipe delivers its bytes one by one. With `old_mac`, carriage returns are read as line feeds.
    """

    def __init__(
        self, stream: BinaryIO | gzip.GzipFile, name: str, below: io.IOBase | None, *, old_mac: bool = False
    ):
        self._stream = stream
        self._below = below
        self._old_mac = old_mac
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
                view[filled : filled + len(chunk)] = chunk.translate(_OLD_MAC) if self._old_mac else chunk
                filled += len(chunk)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise _damaged(self.name) from error
        return filled

    def close(self) -> None:
        if self._below is not None:
            self._below.close()
        super().close()


def open_binary(source: Source, *, allow_empty: bool = False, lookahead: int = _BUFFER) -> io.BufferedReader:
    """Open an input for reading from its start, decompressed; close it, or use it in a `with` statement.

    gzip and bgzip (any number of members) are recognised by their first bytes, never by the file's name. The
    stream's `name` is what messages call the input, and its `peek` shows the first 256 KiB. A stream is
    returned as it is.

    Args:
        source: the input.
        allow_empty: an input without a byte, such as an empty part of a BED, is a stream without lines.
        lookahead: bytes of a compressed file that are read at once; few where only its start is read.

    Raises:
        UserError: the input is missing, a folder, unreadable, empty, in another compression or UTF-16, or a
            gzip file that is damaged or cut short (this may show only later, while reading).
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
        stream = _plain_text(_decompressed(file, name, lookahead), name)
        if not (allow_empty or stream.peek(1)):
            raise UserError("the input is empty", at=name)
    except BaseException:
        file.close()
        raise
    return stream


def read_lines(
    stream: io.BufferedReader, errors: Literal["strict", "replace"] = "strict"
) -> Iterator[tuple[int, str]]:
    """Yield the 1-based number and the text of every line, without its line end (LF or CRLF).

    Args:
        stream: from `open_binary`.
        errors: what to do with bytes that are not UTF-8, as of `bytes.decode`.

    Raises:
        UserError: a line has a carriage return inside, or is not UTF-8; the message names its number.
    """
    for number, raw in enumerate(stream, 1):
        line = raw.rstrip(b"\r\n")
        if b"\r" in line:
            raise carriage_return(stream.name, number)
        try:
            yield number, line.decode(errors=errors)
        except UnicodeDecodeError:
            remedy = "save the file as UTF-8"
            raise UserError("the line is not UTF-8", at=stream.name, line=number, remedy=remedy) from None


def carriage_return(name: str, line: int) -> UserError:
    """Return the error that a carriage return, the line end of old Macs, hides a part of a line."""
    remedy = "convert the line ends to those of Unix"
    return UserError("a carriage return inside the line", at=name, line=line, remedy=remedy)


def bare(cell: AnyStr) -> AnyStr:
    """Return a cell without ASCII blanks around it, and without a pair of double quotes around the rest.

    >>> bare(' "chr1" '), bare(b"A C "), bare('5"')
    ('chr1', b'A C', '5"')
    """
    blanks = _BLANKS[type(cell)]
    cell = cell.strip(blanks)
    return cell[1:-1].strip(blanks) if len(cell) > 1 and cell[0] == cell[-1] and cell[0] in _QUOTE else cell


def split_at_blanks(line: str) -> list[str]:
    """Split a line at runs of ASCII blanks: a no-break space may be part of a name."""
    return [word for word in _BLANK_RUN.split(line) if word]


def is_missing(cell: str | bytes) -> bool:
    """Return whether a cell stands for a missing value.

    >>> [is_missing(cell) for cell in (" NA", b"<NA>", "", "N", "None of these")]
    [True, True, True, False, False]
    """
    start = cell[:80]  # a cell may be a chromosome
    return bare(start if isinstance(start, str) else start.decode("latin-1")) in MISSING


def source_name(source: Source) -> str:
    """What messages call an input.

    >>> source_name("-"), source_name(Path("a.bed"))
    ('standard input', 'a.bed')
    """
    if isinstance(source, io.BufferedReader):
        return str(source.name)
    return "standard input" if str(source) == "-" else str(source)


def split_suffix(path: Path) -> tuple[str, str]:
    """Return the name of a file without its suffix, and the suffix with that of the compression.

    >>> split_suffix(Path("out/peaks.sorted.tsv.gz"))
    ('peaks.sorted', '.tsv.gz')
    """
    suffix = "".join(path.suffixes[-2:]) if path.suffix in (".gz", ".bgz") else path.suffix
    return path.name.removesuffix(suffix), suffix


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

    FASTQ, GenBank, EMBL and 2bit are sequences, read as FASTA is.

    Args:
        stream: from `open_binary`.
        otherwise: what it must be if it looks like none of them; its reader can say better what is wrong.

    Raises:
        UserError: it is none of them, as far as the first 256 KiB tell, and nothing else is given.
    """
    if file_format(stream) in _SEQUENCES:
        return "fasta"
    lines = stream.peek(1).splitlines()
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
    refuse_foreign(stream)
    if otherwise:
        return otherwise
    raise UserError(
        "neither FASTA, BED nor VCF",
        at=stream.name,
        remedy="FASTA begins with '>', a BED line with contig, start and end, a VCF with ##fileformat",
    )


def file_format(stream: io.BufferedReader) -> str:
    """Return the format that a stream begins as, such as "a FASTQ"; "" for one that is not recognised."""
    head = stream.peek(1).lstrip(b"\n")
    return next((name for name, start, _ in _FORMATS if start.match(head)), "")


def refuse_foreign(stream: io.BufferedReader, head: bytes | None = None) -> None:
    """Refuse a stream that begins as another format does, by its name; call it when reading has failed.

    Args:
        stream: from `open_binary`.
        head: its first bytes, where some have been read since.

    Raises:
        UserError: it is.
    """
    start_bytes = (stream.peek(1) if head is None else head).lstrip(b"\n")
    for name, start, remedy in _FORMATS:
        if start.match(start_bytes):
            raise UserError(f"is {name}, which is not read here", at=stream.name, remedy=remedy)


def _open_file(path: Path) -> io.BufferedReader:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise UserError("no such file", at=path) from None
    except IsADirectoryError:
        raise UserError("is a folder, not a file", at=path) from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot be read: {getattr(error, 'strerror', None) or error}", at=path) from None


def _decompressed(file: io.BufferedReader, name: str, lookahead: int) -> io.BufferedReader:
    head = file.peek(BGZIP_HEAD)
    for magic, kind in _FOREIGN.items():
        if head.startswith(magic):
            raise UserError(f"compressed with {kind}, which is not read", at=name, remedy="use gzip or bgzip")
    if not head.startswith(_GZIP):
        return file
    return _buffered(gzip.GzipFile(fileobj=file, mode="rb"), name, below=file, size=lookahead)


def _plain_text(file: io.BufferedReader, name: str) -> io.BufferedReader:
    """Return the stream after its byte-order mark, with line feeds for the line ends of old Macs."""
    head = file.peek(1)
    if head.startswith(_UTF16):
        raise UserError("text in UTF-16, which is not read", at=name, remedy="save it as UTF-8")
    if head.startswith(_BOM):
        file.read(len(_BOM))
    # A carriage return at the end of what is visible may belong to a CRLF.
    if b"\r" in head[:-1] and b"\n" not in head and b"\0" not in head:
        return _buffered(file, name, below=file, old_mac=True)
    return file


def _buffered(
    stream: BinaryIO | gzip.GzipFile,
    name: str,
    below: io.IOBase | None,
    *,
    old_mac: bool = False,
    size: int = _BUFFER,
) -> io.BufferedReader:
    return io.BufferedReader(_Bytes(stream, name, below, old_mac=old_mac), size)


def _check_end(file: io.BufferedReader, name: str) -> None:
    """A bgzip file cut between two blocks is valid gzip; only the missing last, empty block tells."""
    if not file.seekable() or not is_bgzip(file.peek(BGZIP_HEAD)):
        return
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - len(BGZF_END)))
    if file.read() != BGZF_END:
        file.close()
        raise _damaged(name)
    file.seek(0)


def _damaged(name: str) -> UserError:
    return UserError("the gzip data are damaged or cut short", at=name, remedy="copy or download it again")
