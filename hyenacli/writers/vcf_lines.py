"""VCF text: INFO fields added to headers and lines of which every other byte stays."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import NoneType
from typing import Literal

import numpy as np

from hyenacli.errors import UserError
from hyenacli.readers.variant_record import TableLayout, VariantHeader, VariantRecord, declared

Value = float | str | None
Values = Mapping[str, Sequence[Value]]
"""Of each field, by its ID, one value per ALT allele; None and NaN are missing."""

_COLUMNS = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
_FILE_FORMAT = b"##fileformat=VCFv4.2"
# Lines wait until they have as many bytes; each takes some besides its own.
_ROOM, _OVERHEAD = 1 << 18, 256
_POWERS = np.array([float(10**power) for power in range(13)])


@dataclass(frozen=True, slots=True)
class InfoField:
    """An INFO field, or a column of a table.

    Attributes:
        id: its name.
        number: as VCF has it: 'A' for one value per ALT.
        type: as VCF has it.
        description: one sentence.
    """

    id: str
    number: str
    type: Literal["Float", "Integer", "String"]
    description: str

    def declaration(self) -> str:
        """The header line.

        >>> InfoField("X", "A", "Float", "A score").declaration()
        '##INFO=<ID=X,Number=A,Type=Float,Description="A score">'
        """
        text = self.description.replace("\\", "\\\\").replace('"', '\\"')
        return f'##INFO=<ID={self.id},Number={self.number},Type={self.type},Description="{text}">'


class VcfWriter:
    """Writes records as lines of a VCF; some wait, as many values together take less time than one by one.

    Args:
        sink: takes the bytes of some lines.
        header: of the input.
        fields: to add.
        last: largest position (0-based) that the file can hold.
        target: what messages call the file.
    """

    def __init__(
        self,
        sink: Callable[[bytes], object],
        header: VariantHeader,
        fields: Sequence[InfoField],
        last: int,
        target: object,
    ):
        self._sink, self._table = sink, header.table
        self._last, self._target = last, target
        self._ids = [field.id.encode() for field in fields]
        self._columns: list[tuple[str, list[Value]]] = [(field.id, []) for field in fields]
        self._lines: list[bytes] = []
        self._newlines: list[bytes] = []
        self._counts: list[int] = []
        self._odd: list[int] = []  # lines that do not simply go on with `;` and the new items
        self._room = _ROOM

    def write(self, record: VariantRecord, values: Values) -> None:
        """Take the record's line, which gets the values at the end of INFO if it has an ALT allele.

        Raises:
            UserError: the format cannot hold a position as large.
            ValueError: there are more or fewer values than ALT alleles.
        """
        _, line, newline, _, position, _, alts = record
        count = len(alts)
        if position > self._last:
            what = f"cannot hold line {record.line:,} at position {position + 1:,}"
            raise UserError(what, at=self._target, remedy="write .vcf.gz")
        if count:
            for name, column in self._columns:
                found = values[name]
                if len(found) != count:
                    raise _unequal(name, found, record)
                column.extend(found)
        if self._table is not None:
            line = _as_vcf(record, self._table)
        if not count or line[-1] in b"\t.;" or line.count(b"\t") != 7:
            self._odd.append(len(self._lines))
        self._lines.append(line)
        self._newlines.append(newline)
        self._counts.append(count)
        self._room -= len(line) + _OVERHEAD
        if self._room < 0:
            self.flush()

    def flush(self) -> None:
        """Hand the lines that wait to the sink."""
        lines, counts, columns = self._lines, self._counts, self._columns
        together = b"\t".join(lines)
        again = any(name in together for name in self._ids)
        # Of each line what goes before the new items, a label and values of every field, and the rest.
        step = 2 + 2 * len(columns)
        pieces = [b""] * (step * len(lines))
        pieces[::step], pieces[step - 1 :: step] = lines, self._newlines
        for place, (name, column) in enumerate(columns):
            pieces[1 + 2 * place :: step] = [b";%b=" % name.encode()] * len(lines)
            pieces[2 + 2 * place :: step] = _joined(value_texts(column), counts)
            column.clear()
        for index in range(len(lines)) if again else self._odd:
            start = index * step
            if counts[index] and columns:
                pieces[start], rest = _cut(lines[index], self._ids)
                pieces[start + 1] = pieces[start + 1][1:]
                pieces[start + step - 1] = rest + self._newlines[index]
            else:
                pieces[start + 1 : start + step - 1] = [b""] * (step - 2)
        self._sink(b"".join(pieces))
        for done in (lines, self._newlines, counts, self._odd):
            done.clear()
        self._room = _ROOM


def values_of(field: InfoField, values: Values, record: VariantRecord) -> Sequence[Value]:
    """The values of a field, one per ALT allele of the record.

    Raises:
        ValueError: there are more or fewer.
    """
    found = values[field.id]
    if len(found) != len(record.alts):
        raise _unequal(field.id, found, record)
    return found


def _unequal(name: str, found: Sequence[Value], record: VariantRecord) -> ValueError:
    return ValueError(f"{len(found)} values of {name} for {len(record.alts)} alleles of {record}")


def value_text(value: Value, missing: str = ".") -> str:
    """A value as text; of a float the fewest digits that give its float32 back.

    >>> [value_text(value) for value in (-0.1, 2.0, 1e-7, 1 / 3, None, float("nan"), "OK", 12)]
    ['-0.1', '2', '1e-07', '0.33333334', '.', '.', 'OK', '12']
    """
    if value is None or value != value:  # noqa: PLR0124, NaN
        return missing
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    return str(np.float32(value)).removesuffix(".0")


def value_texts(values: Sequence[Value]) -> list[bytes]:
    """`value_text` of many values, encoded, in a fraction of the time.

    >>> value_texts([-0.1, None, 2.0, 1e-7]), value_texts(["OK", None, "OK"]), value_texts([1, "OK"])
    ([b'-0.1', b'.', b'2', b'1e-07'], [b'OK', b'.', b'OK'], [b'1', b'OK'])
    """
    kinds = set(map(type, values))
    if kinds <= {float, np.float32, np.float64, NoneType}:
        return _float_texts(values)
    if kinds <= {str, NoneType}:
        known = {value: value_text(value).encode() for value in set(values)}
        return [known[value] for value in values]
    return [value_text(value).encode() for value in values]


def _float_texts(values: Sequence[Value]) -> list[bytes]:
    """The texts of floats: of 6 to 9 digits the fewest that give the float32 back, without zeros at the end.

    Between 1e-4 and 1e6 a float32 times the power of ten needed, at most 1e12, is exact in float64.
    """
    numbers = np.array(values, np.float32)
    size = np.abs(numbers)
    usual = (size > 1e-4) & (size < 1e6)
    exact = np.where(usual, size, 1).astype(np.float64)
    exponents = np.floor(np.log10(exact)).astype(np.intp)
    digits = np.full(len(values), 9)
    for fewer in (8, 7, 6):
        scale = _POWERS[fewer - 1 - exponents]
        digits[(np.rint(exact * scale) / scale).astype(np.float32) == size] = fewer
    texts = [b"%.*g" % pair for pair in zip(digits.tolist(), numbers.tolist(), strict=True)]
    for index in np.flatnonzero(~usual).tolist():
        texts[index] = value_text(values[index]).encode()
    return texts


def annotated_header(
    header: VariantHeader, fields: Sequence[InfoField], provenance: Sequence[str]
) -> list[bytes]:
    """The header's lines, and before #CHROM those of the fields and the provenance.

    Earlier declarations of the same fields, and lines that would stand there twice, go.

    Args:
        header: of the input; of a table, a minimal one is made.
        fields: to declare.
        provenance: further lines, such as `##hyena_version=1`, without line ends.
    """
    lines = header.lines or (_FILE_FORMAT + b"\n", _COLUMNS + b"\n")
    new = [*(field.declaration() for field in fields), *(" ".join(line.splitlines()) for line in provenance)]
    added = [line.encode(errors="replace") for line in new]
    ids = {field.id.encode() for field in fields}
    kept = [line for line in lines[:-1] if not _replaced(line, ids, added)]
    if not lines[0].startswith(b"##fileformat="):
        kept.insert(0, _FILE_FORMAT + header.newline)
    return [*kept, *(line + header.newline for line in added), lines[-1]]


def _replaced(line: bytes, ids: set[bytes], added: Sequence[bytes]) -> bool:
    kind, name = declared(line)
    return (kind == b"INFO" and name in ids) or line.rstrip(b"\r\n") in added


def _joined(texts: list[bytes], counts: Sequence[int]) -> list[bytes]:
    """The texts with commas between those of one record."""
    if counts.count(1) == len(counts):
        return texts
    starts = accumulate(counts, initial=0)
    return [
        texts[start] if count == 1 else b",".join(texts[start : start + count])
        for start, count in zip(starts, counts, strict=False)
    ]


def _cut(line: bytes, ids: Sequence[bytes]) -> tuple[bytes, bytes]:
    """The line up to the end of its INFO, where items of some IDs go, and what follows INFO."""
    *before, info, after = (line + b"\t").split(b"\t", 8)
    if any(name in info for name in ids):
        info = b";".join(item for item in info.split(b";") if item.partition(b"=")[0] not in ids)
    if info == b".":
        info = b""
    elif info and not info.endswith(b";"):
        info += b";"
    return b"\t".join((*before, info)), after and b"\t" + after[:-1]


def _as_vcf(record: VariantRecord, table: TableLayout) -> bytes:
    """A row of a table as a line of a VCF; of its other columns only `id` has a place there."""
    place = table.places.get("id")
    name = b"_".join(table.cells(record.text)[place].split()) if place is not None else b""
    columns = (record.contig.encode(), b"%d" % (record.position + 1), name or b".", record.ref)
    return b"\t".join((*columns, b",".join(record.alts) or b".", b".", b".", b"."))
