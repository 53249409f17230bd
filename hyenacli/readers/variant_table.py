"""Variants as a table: columns chrom, pos (1-based), ref and alt, with or without a line that names them."""

import csv
from collections.abc import Iterable, Iterator
from itertools import chain

from hyenacli.errors import UserError
from hyenacli.readers.variant_record import TableLayout, VariantRecord, split_cells

_NEEDED = ("chrom", "pos", "ref", "alt")
_ALSO = {"chr": "chrom"}
_BOM = b"\xef\xbb\xbf"  # Excel begins a CSV with it
_REMEDY = "name the columns chrom, pos, ref and alt in the first line, or put them first in this order"
Lines = Iterable[tuple[int, bytes, bytes]]


def named_columns(text: bytes) -> TableLayout | None:
    """The layout that a header line tells, None if the line is no header of a table of variants.

    Upper case, `#` before the first name, other columns and any order are fine.
    """
    text = text.removeprefix(_BOM).rstrip(b"\r\n")
    delimiter = _delimiter(text)
    try:
        names = tuple(split_cells(text, delimiter))
    except csv.Error:
        return None
    places: dict[str, int] = {}
    for index, name in enumerate(names):
        plain = name.strip().lstrip(b"#").lower().decode(errors="replace")
        places.setdefault(_ALSO.get(plain, plain), index)
    if not all(name in places for name in _NEEDED):
        return None
    return TableLayout(names, delimiter, {name: places[name] for name in (*_NEEDED, "id") if name in places})


def read_table(lines: Lines, name: str) -> tuple[TableLayout, Iterator[VariantRecord]]:
    """The layout of a table, and its records; blank lines and `#` comments are skipped.

    Args:
        lines: (number, text, line end).
        name: what messages call the file.

    Raises:
        UserError: the first line that is neither blank nor a comment is neither header nor variant; while
            reading, a line is no variant. The message names file and line.
    """
    rest = iter(lines)
    for number, text, newline in rest:
        if b"\r" in text:  # the line ends of old Macs, which hide every line but the first
            remedy = "convert the line ends to those of Unix"
            raise UserError("a carriage return inside the line", at=name, line=number, remedy=remedy)
        if not text.strip() or text.startswith(b"##"):
            continue
        layout = named_columns(text)
        if layout:
            return layout, _records(rest, layout, name)
        if text.startswith(b"#"):
            continue
        bare = text.removeprefix(_BOM)
        layout = _unnamed(bare, number, name)
        first = _record((number, bare, newline), layout, name)
        return layout, chain([first], _records(rest, layout, name))
    raise UserError("no variants", at=name)


def _delimiter(text: bytes) -> bytes | None:
    """What separates the columns of the first line; an ALT of several alleles has commas as well."""
    if b"\t" in text:
        return b"\t"
    return b"," if text.count(b",") >= len(_NEEDED) - 1 else None


def _unnamed(text: bytes, number: int, name: str) -> TableLayout:
    """The layout of a table without header, from its first line."""
    delimiter = _delimiter(text)
    try:
        cells = split_cells(text, delimiter)
    except csv.Error:
        cells = []
    if len(cells) < len(_NEEDED) or not cells[1].strip().isdigit():
        raise UserError("neither VCF nor BCF nor a table of variants", at=name, line=number, remedy=_REMEDY)
    more = (f"column{i}".encode() for i in range(len(_NEEDED) + 1, len(cells) + 1))
    names = (*(needed.encode() for needed in _NEEDED), *more)
    return TableLayout(names, delimiter, {needed: place for place, needed in enumerate(_NEEDED)})


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
    chrom, pos, ref, alt = (cells[layout.places[needed]].strip() for needed in _NEEDED)
    alts = () if alt == b"." else tuple(alt.split(b","))
    wrong = _what_is_wrong(chrom, pos, ref, alts)
    if wrong:
        raise UserError(wrong, at=name, line=number, remedy=_REMEDY)
    return VariantRecord(number, text, newline, chrom.decode(), int(pos) - 1, ref, alts)


def _what_is_wrong(chrom: bytes, pos: bytes, ref: bytes, alts: tuple[bytes, ...]) -> str | None:
    """Columns are told by name or order only, so that each is checked for being what it should be."""
    if not _is_text(chrom):
        return f"{_shown(chrom)} (chrom) is not the name of a contig"
    if not pos.isdigit() or len(pos) > 18:
        return f"{_shown(pos)} (pos) is not a position"
    if not ref.isalpha():
        return f"{_shown(ref)} (ref) is not a sequence"
    if not all(alt and not set(alt) & set(b" \t;=\r") for alt in alts):
        return f"{_shown(b','.join(alts))} (alt) is not an allele"
    return None


def _is_text(chrom: bytes) -> bool:
    """Whether this is a name that a VCF can hold: UTF-8 without blanks."""
    try:
        return chrom.decode().split() == [chrom.decode()]
    except UnicodeDecodeError:
        return False


def _shown(cell: bytes) -> str:
    return repr(cell[:40].decode(errors="replace"))
