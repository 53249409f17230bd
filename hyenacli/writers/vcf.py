"""VCF text: INFO fields added to headers and lines of which every other byte stays."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from types import NoneType
from typing import Any, Literal

import numpy as np

from hyenacli.errors import UserError
from hyenacli.readers.variants import TableLayout, VariantHeader
from hyenacli.readers.vcf import VariantRecord, parse_declaration

Value = float | str | None
Values = Mapping[str, Sequence[Value]]
"""Of each field, by its ID, one value per ALT allele; None and NaN are missing."""

_COLUMNS = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
_FILE_FORMAT = b"##fileformat=VCFv4.2"
# Bytes of memory that a line takes besides its own.
_LINE_OVERHEAD = 256
# Header lines of this tool, and the one with which a shard says which part of which run it is.
OWN_PREFIX, SHARD_PREFIX = "##hyena_", "##hyena_shard="
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
        """Return the header line.

        >>> InfoField("X", "A", "Float", "A score").declaration()
        '##INFO=<ID=X,Number=A,Type=Float,Description="A score">'
        """
        text = self.description.replace("\\", "\\\\").replace('"', '\\"')
        return f'##INFO=<ID={self.id},Number={self.number},Type={self.type},Description="{text}">'


class VcfWriter:
    """Writes records as lines of a VCF, many at once: formatting many values together takes less time.

    Args:
        sink: takes the bytes of some lines.
        header: of the input.
        fields: to add.
        max_position: largest position (0-based) that the file can hold.
        target: what messages call the file.
        buffer_bytes: lines wait until they take this much memory.
    """

    def __init__(
        self,
        sink: Callable[[bytes], object],
        header: VariantHeader,
        fields: Sequence[InfoField],
        *,
        max_position: int,
        target: object,
        buffer_bytes: int = 1 << 18,
    ):
        self._sink, self._table = sink, header.table
        self._max_position, self._target = max_position, target
        self._ids = [field.id.encode() for field in fields]
        self._columns: list[tuple[str, list[Value]]] = [(field.id, []) for field in fields]
        self._lines: list[bytes] = []
        self._newlines: list[bytes] = []
        self._counts: list[int] = []
        self._buffer_bytes = self._free_bytes = buffer_bytes

    def write(self, record: VariantRecord, values: Values) -> None:
        """Take the record's line, which gets the values at the end of INFO if it has an ALT allele.

        Raises:
            UserError: the format cannot hold a position as large.
            ValueError: there are more or fewer values than ALT alleles.
        """
        _, line, newline, _, position, _, alts = record
        count = len(alts)
        if position > self._max_position:
            what = f"cannot hold line {record.line:,} at position {position + 1:,}"
            raise UserError(what, at=self._target, remedy="write .vcf.gz")
        if count:
            for name, column in self._columns:
                column.extend(field_values(name, values, record))
        if self._table is not None:
            line = _as_vcf(record, self._table)
        self._lines.append(line)
        self._newlines.append(newline)
        self._counts.append(count)
        self._free_bytes -= len(line) + _LINE_OVERHEAD
        if self._free_bytes < 0:
            self.flush()

    def flush(self) -> None:
        """Hand the lines that wait to the sink."""
        lines, counts, columns = self._lines, self._counts, self._columns
        # Of each line what goes before the new items, a label and values of every field, and the rest.
        step = 2 + 2 * len(columns)
        pieces = [b""] * (step * len(lines))
        pieces[::step], pieces[step - 1 :: step] = lines, self._newlines
        for index, (name, column) in enumerate(columns):
            pieces[1 + 2 * index :: step] = [b";%b=" % name.encode()] * len(lines)
            pieces[2 + 2 * index :: step] = _join_alleles(value_texts(column), counts)
            column.clear()
        for index in self._irregular_lines():
            start = index * step
            if counts[index] and columns:
                pieces[start], rest = _split_after_info(lines[index], self._ids)
                pieces[start + 1] = pieces[start + 1][1:]
                pieces[start + step - 1] = rest + self._newlines[index]
            else:
                pieces[start + 1 : start + step - 1] = [b""] * (step - 2)
        self._sink(b"".join(pieces))
        for buffer in (lines, self._newlines, counts):
            buffer.clear()
        self._free_bytes = self._buffer_bytes

    def _irregular_lines(self) -> Iterable[int]:
        """Return the indices of lines that do not simply go on with `;` and the new items."""
        lines, counts = self._lines, self._counts
        text = b"\n".join((*lines, b""))
        if any(name in text for name in self._ids):  # annotated before
            return range(len(lines))
        open_ends = any(end in text for end in (b"\t\n", b".\n", b";\n"))
        if 0 not in counts and not open_ends and text.count(b"\t") == 7 * len(lines):
            return ()
        return [
            index
            for index, (line, count) in enumerate(zip(lines, counts, strict=True))
            if not count or line[-1] in b"\t.;" or line.count(b"\t") != 7
        ]


def field_values(name: str, values: Values, record: VariantRecord) -> Sequence[Value]:
    """Return the values of a field, one per ALT allele of the record.

    Raises:
        ValueError: there are more or fewer.
    """
    of_field = values[name]
    if len(of_field) != len(record.alts):
        raise ValueError(f"{len(of_field)} values of {name} for {len(record.alts)} alleles of {record}")
    return of_field


def value_text(value: Value, missing: str = ".") -> str:
    """Return a value as text; of a float the fewest digits that give its float32 back.

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
    """Return `value_text` of many values, encoded, in a fraction of the time.

    >>> value_texts([-0.1, None, 2.0, 1e-7]), value_texts(["OK", None, "OK"]), value_texts([1, "OK"])
    ([b'-0.1', b'.', b'2', b'1e-07'], [b'OK', b'.', b'OK'], [b'1', b'OK'])
    """
    kinds = set(map(type, values))
    if kinds <= {float, np.float32, np.float64, NoneType}:
        return _float_texts(values)
    if kinds <= {str, NoneType}:
        encoded = {value: value_text(value).encode() for value in set(values)}
        return [encoded[value] for value in values]
    return [value_text(value).encode() for value in values]


def _float_texts(values: Sequence[Value]) -> list[bytes]:
    """Format of floats: of 6 to 9 digits the fewest that give the float32 back, no zeros at the end.

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
    """Return the header's lines, and before #CHROM those of the fields and the provenance.

    Earlier declarations of the same fields are left out, and so are lines that would be repeated.

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
    kind, name = parse_declaration(line)
    return (kind == b"INFO" and name in ids) or line.rstrip(b"\r\n") in added


def _join_alleles(texts: list[bytes], counts: Sequence[int]) -> list[bytes]:
    """Join the texts of each record with commas."""
    if counts.count(1) == len(counts):
        return texts
    starts = accumulate(counts, initial=0)
    return [
        texts[start] if count == 1 else b",".join(texts[start : start + count])
        for start, count in zip(starts, counts, strict=False)
    ]


def _split_after_info(line: bytes, ids: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return the line up to the end of its INFO, without the items of some IDs, and what follows INFO."""
    *before, info, after = (line + b"\t").split(b"\t", 8)
    if any(name in info for name in ids):
        info = b";".join(item for item in info.split(b";") if item.partition(b"=")[0] not in ids)
    if info == b".":
        info = b""
    elif info and not info.endswith(b";"):
        info += b";"
    return b"\t".join((*before, info)), after and b"\t" + after[:-1]


def _as_vcf(record: VariantRecord, table: TableLayout) -> bytes:
    """Return a row of a table as a line of a VCF, which keeps only `id` of the other columns."""
    index = table.indices.get("id")
    name = b"_".join(table.cells(record.text)[index].split()) if index is not None else b""
    columns = (record.contig.encode(), b"%d" % (record.position + 1), name or b".", record.ref)
    return b"\t".join((*columns, b",".join(record.alts) or b".", b".", b".", b"."))


def shard_line(shard: Mapping[str, Any]) -> str:
    """Return the header line of a shard, which joining removes."""
    return f"{SHARD_PREFIX}{json.dumps(shard, sort_keys=True)}"


def parse_provenance(lines: Sequence[str]) -> dict[str, Any]:
    """Return what the tool's own header lines say, the shard under "shard" where the file is one.

    >>> parse_provenance(["##a=b", "##hyena_version=1", '##hyena_shard={"number": 2}'])
    {'hyena_version': '1', 'shard': {'number': 2}}
    """
    own: dict[str, Any] = dict(
        line[2:].split("=", 1) for line in lines if line.startswith(OWN_PREFIX) and "=" in line
    )
    shard = own.pop("hyena_shard", None)
    return {**own, "shard": json.loads(shard)} if shard else own
