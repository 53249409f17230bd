"""Variants as tables, one row per ALT allele."""

from collections.abc import Callable, Sequence
from typing import Any

from hyenacli.readers.variant_record import VariantHeader, VariantRecord
from hyenacli.writers.columns import Column, TableWriter
from hyenacli.writers.vcf_lines import InfoField, Values, value_text, values_of

_ROWS = 4096
_TYPES = {"Float": float, "Integer": int, "String": str}


class TsvWriter:
    """Writes records as rows: of a VCF chrom, pos (1-based), id, ref, alt, of a table all of its columns.

    The fields' columns follow; a missing value is empty. A record without ALT has one row without values.

    Args:
        sink: takes the bytes of each row.
        header: of the input.
        fields: to add.
    """

    def __init__(self, sink: Callable[[bytes], object], header: VariantHeader, fields: Sequence[InfoField]):
        self._sink, self._table, self._fields = sink, header.table, fields
        names = header.table.names if header.table else tuple(b"chrom pos id ref alt".split())
        self._alt = header.table.places["alt"] if header.table else 4
        sink(_row(names, [field.id for field in fields]))

    def write(self, record: VariantRecord, values: Values) -> None:
        """Write one row per ALT allele."""
        own = self._table.cells(record.text) if self._table else record.text.split(b"\t", 5)[:5]
        added = [
            [value_text(value, missing="") for value in values_of(field, values, record)]
            for field in self._fields
        ]
        if len(record.alts) < 2:
            self._sink(_row(own, [texts[0] if texts else "" for texts in added]))
            return
        for number, alt in enumerate(record.alts):
            own[self._alt] = alt
            self._sink(_row(own, [texts[number] for texts in added]))


def _row(own: Sequence[bytes], added: Sequence[str]) -> bytes:
    # A quoted cell of a CSV may hold tabs.
    return b"\t".join((*(cell.replace(b"\t", b" ") for cell in own), "\t".join(added).encode())) + b"\n"


class ParquetWriter:
    """Writes records as rows: chrom, pos (1-based), id, ref, alt, the fields; missing numbers are NaN."""

    def __init__(self, table: TableWriter, header: VariantHeader, fields: Sequence[InfoField]):
        self._table, self._layout, self._fields = table, header.table, fields
        self._columns = parquet_columns(fields)
        self._rows: list[tuple[Any, ...]] = []

    def write(self, record: VariantRecord, values: Values) -> None:
        """Append one row per ALT allele; one without values where there is none."""
        own = record.contig, record.position + 1, self._id(record), record.ref.decode(errors="replace")
        added = [values_of(field, values, record) or [None] for field in self._fields]
        for alt, *row in zip(record.alts or (b".",), *added, strict=True):
            self._rows.append((*own, alt.decode(errors="replace"), *row))
        if len(self._rows) >= _ROWS:
            self.flush()

    def flush(self) -> None:
        """Hand the rows on."""
        if self._rows:
            columns = zip(*self._rows, strict=True)
            self._table.write({c.name: list(v) for c, v in zip(self._columns, columns, strict=True)})
            self._rows = []

    def _id(self, record: VariantRecord) -> str:
        if self._layout is None:
            return record.text.split(b"\t", 3)[2].decode(errors="replace")
        place = self._layout.places.get("id")
        return "" if place is None else self._layout.cells(record.text)[place].decode(errors="replace")


def parquet_columns(fields: Sequence[InfoField]) -> list[Column]:
    """The columns of a Parquet file."""
    own = [
        Column("chrom", str),
        Column("pos", int),
        Column("id", str),
        Column("ref", str),
        Column("alt", str),
    ]
    return [*own, *(Column(field.id, _TYPES[field.type]) for field in fields)]
