"""Variants as a table: columns chrom, pos (1-based), ref and alt, with or without a line that names them."""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from hyenacli.errors import UserError
from hyenacli.readers.text import bare, carriage_return
from hyenacli.readers.vcf import Lines, VariantRecord

_REQUIRED = ("chrom", "pos", "ref", "alt")
_SYNONYMS = {"chr": "chrom"}
_REMEDY = "name the columns chrom, pos, ref and alt in the first line, or put them first in this order"
# csv reads text only; bytes that are not UTF-8 come back as they were.
_ANY_BYTES = ("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class TableLayout:
    """How the lines of a table fall into columns.

    Attributes:
        names: of the columns, as written; invented where the table has no header line.
        delimiter: what separates them; None for any run of blanks.
        indices: of the columns chrom, pos, ref and alt, and of id if the table has it.
    """

    names: tuple[bytes, ...]
    delimiter: bytes | None
    indices: Mapping[str, int]

    def cells(self, text: bytes) -> list[bytes]:
        """Split a line into its columns.

        Raises:
            csv.Error: the line cannot be read as CSV.
        """
        return split_cells(text, self.delimiter)


def split_cells(text: bytes, delimiter: bytes | None) -> list[bytes]:
    """Split a line into its columns, as CSV with quotes where the delimiter is a comma.

    >>> split_cells(b'chr1,5,"A,C"', b","), split_cells(b"chr1  5 A", None)
    ([b'chr1', b'5', b'A,C'], [b'chr1', b'5', b'A'])
    """
    if delimiter != b",":
        return text.split(delimiter)
    return [cell.encode(*_ANY_BYTES) for cell in next(csv.reader([text.decode(*_ANY_BYTES)]), [])]


def parse_column_names(text: bytes) -> TableLayout | None:
    """Return the layout that a header line gives, None if the line is not a header of a table of variants.

    Upper case, `#` before the first name, other columns and any order are fine.
    """
    text = text.rstrip(b"\r\n")
    delimiter = _delimiter(text)
    try:
        names = tuple(split_cells(text, delimiter))
    except csv.Error:
        return None
    indices: dict[str, int] = {}
    for index, name in enumerate(names):
        plain = bare(name).lstrip(b"#").lower().decode(errors="replace")
        indices.setdefault(_SYNONYMS.get(plain, plain), index)
    if not all(name in indices for name in _REQUIRED):
        return None
    return TableLayout(
        names, delimiter, {name: indices[name] for name in (*_REQUIRED, "id") if name in indices}
    )


def read_table(lines: Lines, name: str) -> tuple[TableLayout, Iterator[VariantRecord]]:
    """Read the layout of a table, and its records; blank lines and `#` comments are skipped.

    Args:
        lines: (number, text, line end).
        name: what messages call the file.

    Raises:
        UserError: the first line that is neither blank nor a comment is neither header nor variant; while
            reading, a line is not a variant. The message names file and line.
    """
    rest = iter(lines)
    for number, text, newline in rest:
        if b"\r" in text:  # the line ends of old Macs, which hide every line but the first
            raise carriage_return(name, number)
        if not text.strip() or text.startswith(b"##"):
            continue
        layout = parse_column_names(text)
        if layout:
            return layout, _records(rest, layout, name)
        if text.startswith(b"#"):
            continue
        layout = _unnamed_layout(text, number, name)
        first = _record((number, text, newline), layout, name)
        return layout, chain([first], _records(rest, layout, name))
    raise UserError("no variants", at=name)


def _delimiter(text: bytes) -> bytes | None:
    """Return what separates the columns of the first line; an ALT of several alleles has commas as well."""
    if b"\t" in text:
        return b"\t"
    return b"," if text.count(b",") >= len(_REQUIRED) - 1 else None


def _unnamed_layout(text: bytes, number: int, name: str) -> TableLayout:
    """Return the layout of a table without header, from its first line."""
    delimiter = _delimiter(text)
    try:
        cells = split_cells(text, delimiter)
    except csv.Error:
        cells = []
    if len(cells) < len(_REQUIRED) or not bare(cells[1]).isdigit():
        raise UserError("neither VCF nor BCF nor a table of variants", at=name, line=number, remedy=_REMEDY)
    more = (f"column{i}".encode() for i in range(len(_REQUIRED) + 1, len(cells) + 1))
    names = (*(required.encode() for required in _REQUIRED), *more)
    return TableLayout(names, delimiter, {required: index for index, required in enumerate(_REQUIRED)})


def _records(lines: Lines, layout: TableLayout, name: str) -> Iterator[VariantRecord]:
    for line in lines:
        if line[1].strip() and not line[1].startswith(b"#"):
            yield _record(line, layout, name)


def _record(line: tuple[int, bytes, bytes], layout: TableLayout, name: str) -> VariantRecord:
    number, text, newline = line
    try:
        cells = layout.cells(text)
    except csv.Error as error:
        raise UserError(f"cannot be read as CSV: {error}", at=name, line=number) from None
    if len(cells) != len(layout.names):
        what = f"{len(cells)} columns where the table has {len(layout.names)}"
        raise UserError(what, at=name, line=number, remedy="separate all lines' columns alike")
    chrom, pos, ref, alt = (bare(cells[layout.indices[required]]) for required in _REQUIRED)
    alts = () if alt == b"." else tuple(alt.split(b","))
    if fault := _fault(chrom, pos, ref, alts):
        raise UserError(fault, at=name, line=number, remedy=_REMEDY)
    return VariantRecord(number, text, newline, chrom.decode(), int(pos) - 1, ref, alts)


def _fault(chrom: bytes, pos: bytes, ref: bytes, alts: tuple[bytes, ...]) -> str | None:
    """Return which column is wrong and why: only name or order tells the columns, so each is checked."""
    if not _is_contig(chrom):
        return f"{_shorten(chrom)} (chrom) is not the name of a contig"
    if not pos.isdigit() or len(pos) > 18:
        return f"{_shorten(pos)} (pos) is not a position"
    if not ref.isalpha():
        return f"{_shorten(ref)} (ref) is not a sequence"
    if not all(alt and not set(alt) & set(b" \t;=\r") for alt in alts):
        return f"{_shorten(b','.join(alts))} (alt) is not an allele"
    return None


def _is_contig(chrom: bytes) -> bool:
    """Return whether this is a name that a VCF can hold: UTF-8 without blanks."""
    try:
        return chrom.decode().split() == [chrom.decode()]
    except UnicodeDecodeError:
        return False


def _shorten(cell: bytes) -> str:
    return repr(cell[:40].decode(errors="replace"))
