"""VCF text: INFO fields added to headers and lines of which every other byte stays."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hyenacli.errors import UserError
from hyenacli.readers.variant_record import TableLayout, VariantHeader, VariantRecord, declared

Value = float | str | None
Values = Mapping[str, Sequence[Value]]
"""Of each field, by its ID, one value per ALT allele; None and NaN are missing."""

_COLUMNS = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
_FILE_FORMAT = b"##fileformat=VCFv4.2"


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
    """Writes records as lines of a VCF.

    Args:
        sink: takes the bytes of each line.
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
        self._sink, self._table, self._fields = sink, header.table, fields
        self._ids = frozenset(field.id.encode() for field in fields)
        self._last, self._target = last, target

    def write(self, record: VariantRecord, values: Values) -> None:
        """Write the record's line, with the values at the end of INFO if it has an ALT allele.

        Raises:
            UserError: the format cannot hold a position as large.
        """
        if record.position > self._last:
            what = f"cannot hold line {record.line:,} at position {record.position + 1:,}"
            raise UserError(what, at=self._target, remedy="write .vcf.gz")
        line = record.text if self._table is None else _as_vcf(record, self._table)
        if record.alts and self._fields:
            items = []
            for field in self._fields:
                texts = [value_text(value) for value in values_of(field, values, record)]
                items.append(f"{field.id}={','.join(texts)}")
            line = _with_info(line, ";".join(items).encode(), self._ids)
        self._sink(line + record.newline)


def values_of(field: InfoField, values: Values, record: VariantRecord) -> Sequence[Value]:
    """The values of a field, one per ALT allele of the record.

    Raises:
        ValueError: there are more or fewer.
    """
    found = values[field.id]
    if len(found) != len(record.alts):
        raise ValueError(f"{len(found)} values of {field.id} for {len(record.alts)} alleles of {record}")
    return found


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


def _with_info(line: bytes, added: bytes, ids: frozenset[bytes]) -> bytes:
    """The line with items at the end of its INFO, where items of the same IDs go."""
    columns = line.split(b"\t", 8)
    info = columns[7]
    if [name for name in ids if name in info]:
        info = b";".join(item for item in info.split(b";") if item.partition(b"=")[0] not in ids)
    if info in (b"", b"."):
        columns[7] = added
    else:
        columns[7] = info + (added if info.endswith(b";") else b";" + added)
    return b"\t".join(columns)


def _as_vcf(record: VariantRecord, table: TableLayout) -> bytes:
    """A row of a table as a line of a VCF; of its other columns only `id` has a place there."""
    place = table.places.get("id")
    name = b"_".join(table.cells(record.text)[place].split()) if place is not None else b""
    columns = (record.contig.encode(), b"%d" % (record.position + 1), name or b".", record.ref)
    return b"\t".join((*columns, b",".join(record.alts) or b".", b".", b".", b"."))
