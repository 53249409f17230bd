"""Variants with what was computed of them: the lines of the input with INFO fields added, or a table.

To add a format: a `FileFormat` in `FORMATS` and its opener in `_OPENERS`, and a word in the help of
`score-variants`. A new kind of VCF needs only a row of `vcf_files.VCFS`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

from hyenacli.errors import UsageError, nearest
from hyenacli.readers.variants import VariantFormat, VariantHeader
from hyenacli.readers.vcf import VariantRecord
from hyenacli.writers.columns import Column, FileFormat, TableWriter, suffix_kind
from hyenacli.writers.tables import TABLES
from hyenacli.writers.text import CSV, TSV, TsvFormat
from hyenacli.writers.vcf import (
    InfoField,
    Values,
    VcfWriter,
    annotated_header,
    field_values,
    parse_provenance,
    value_text,
)
from hyenacli.writers.vcf_files import VCFS

_TYPES = {"Float": float, "Integer": int, "String": str}


class AnnotatedWriter(Protocol):
    """What every output format offers."""

    def write(self, record: VariantRecord, values: Values) -> None:
        """Write a record, in the order of the calls.

        Args:
            record: as read.
            values: of every field, by its ID, one value per ALT allele; None and NaN are missing.

        Raises:
            UserError: the format cannot hold the record, or the file cannot be written.
            ValueError: there are more or fewer values than ALT alleles.
        """


def resolve_format(target: Path, output_type: str | None, kind: VariantFormat) -> str:
    """Return the format of the output: the one given, else the suffix's; `-` is VCF, for a table TSV.

    Args:
        target: output file, or `-` for stdout.
        output_type: a key of `FORMATS`, None for the suffix's.
        kind: the format of the input.

    Raises:
        UsageError: neither is a format, or the format cannot be streamed to stdout.

    >>> resolve_format(Path("a/b.vcf.gz"), None, "bcf"), resolve_format(Path("-"), None, "bcf")
    ('vcf.gz', 'vcf')
    """
    stdout = str(target) == "-"
    if output_type is None:
        by_suffix = suffix_kind(target, FORMATS)
        if by_suffix is None and not stdout:
            remedy = f"use one of {', '.join(f'.{name}' for name in FORMATS)}, or give -O/--output-type"
            raise UsageError("the suffix names no type of variants", at=target, remedy=remedy)
        return by_suffix or ("tsv" if kind == "table" else "vcf")
    name = output_type.removeprefix(".")
    if name not in FORMATS:
        raise UsageError(f"unknown output type '{output_type}'", at="-O", remedy=nearest(name, list(FORMATS)))
    if stdout and not FORMATS[name].stdout:
        streamed = " or ".join(name for name in FORMATS if FORMATS[name].stdout)
        remedy = f"name a file with -o, or use {streamed}"
        raise UsageError(f"{name} does not go to stdout", at="-O", remedy=remedy)
    return name


def open_annotated(
    target: Path,
    output_type: str | None,
    header: VariantHeader,
    fields: Sequence[InfoField],
    provenance: Sequence[str],
) -> AbstractContextManager[AnnotatedWriter]:
    """Open an output for variants; the file appears, complete, when the context ends well.

    VCF: each line as it was read, with `ID=value,...` at the end of INFO in place of earlier values of the
    same ID, and nothing added to a record without ALT; the header as it was, with new lines before #CHROM. A
    .vcf.gz is bgzip, and has an index beside it if the records are sorted. A table becomes a minimal VCF.
    BCF: the same as binary, with what the header does not declare declared. TSV and Parquet: one row per ALT
    allele, pos 1-based; the TSV of a table keeps its columns.

    Args:
        target: output file, or `-` for stdout.
        output_type: vcf, vcf.gz, bcf, tsv, csv or parquet; None takes the suffix.
        header: of the input, as `open_variants` gives it.
        fields: in the order in which to add them.
        provenance: header lines such as `##hyena_version=1`, without line ends. Parquet keeps them as
            metadata of its schema; a TSV does not keep them, unless it is a shard.

    Raises:
        UsageError: as `resolve_format`.
        UserError: as `atomic_path`, or the format cannot hold a record.
    """
    name = resolve_format(target, output_type, header.kind)
    return _OPENERS[name](target, header, fields, provenance)


@contextmanager
def _open_vcf(
    name: str, target: Path, header: VariantHeader, fields: Sequence[InfoField], provenance: Sequence[str]
) -> Iterator[AnnotatedWriter]:
    vcf = VCFS[name]
    with vcf.open_lines(target, annotated_header(header, fields, provenance)) as sink:
        writer = VcfWriter(sink, header, fields, max_position=vcf.max_position, target=target)
        yield writer
        writer.flush()


@contextmanager
def _open_tsv(
    table: TsvFormat,
    target: Path,
    header: VariantHeader,
    fields: Sequence[InfoField],
    provenance: Sequence[str],
) -> Iterator[AnnotatedWriter]:
    with table.open_records(target, parse_provenance(provenance)) as write:
        yield _TsvWriter(write, header, fields, table)


class _TsvWriter:
    """Writes records as rows: of a VCF chrom, pos (1-based), id, ref, alt, of a table all of its columns.

    The fields' columns follow; a missing value is empty. A record without ALT has one row without values.
    """

    def __init__(
        self,
        sink: Callable[[bytes], object],
        header: VariantHeader,
        fields: Sequence[InfoField],
        table: TsvFormat,
    ):
        self._sink, self._table, self._fields = sink, header.table, fields
        self._row = table.row
        names = header.table.names if header.table else tuple(b"chrom pos id ref alt".split())
        self._alt = header.table.indices["alt"] if header.table else 4
        sink(self._row(names, [field.id for field in fields]))

    def write(self, record: VariantRecord, values: Values) -> None:
        cells = self._table.cells(record.text) if self._table else record.text.split(b"\t", 5)[:5]
        added = [
            [value_text(value, missing="") for value in field_values(field.id, values, record)]
            for field in self._fields
        ]
        if len(record.alts) < 2:
            self._sink(self._row(cells, [texts[0] if texts else "" for texts in added]))
            return
        for number, alt in enumerate(record.alts):
            cells[self._alt] = alt
            self._sink(self._row(cells, [texts[number] for texts in added]))


@contextmanager
def _open_parquet(
    target: Path, header: VariantHeader, fields: Sequence[InfoField], provenance: Sequence[str]
) -> Iterator[AnnotatedWriter]:
    columns = [Column(name, int if name == "pos" else str) for name in ("chrom", "pos", "id", "ref", "alt")]
    columns += [Column(field.id, _TYPES[field.type]) for field in fields]
    with TABLES["parquet"].open(target, columns, parse_provenance(provenance)) as table:
        yield _TableRows(table, header, columns)


class _TableRows:
    """Writes records as rows, one per ALT allele: chrom, pos (1-based), id, ref, alt, the fields."""

    def __init__(self, table: TableWriter, header: VariantHeader, columns: Sequence[Column]):
        self._table, self._layout = table, header.table
        self._names = [column.name for column in columns]

    def write(self, record: VariantRecord, values: Values) -> None:
        alts = [alt.decode(errors="replace") for alt in record.alts or (b".",)]
        ref = record.ref.decode(errors="replace")
        repeated = record.contig, record.position + 1, self._id(record), ref
        cells = [[cell] * len(alts) for cell in repeated]
        added = [list(field_values(name, values, record)) or [None] for name in self._names[5:]]
        self._table.write(dict(zip(self._names, [*cells, alts, *added], strict=True)))

    def _id(self, record: VariantRecord) -> str:
        if self._layout is None:
            return record.text.split(b"\t", 3)[2].decode(errors="replace")
        index = self._layout.indices.get("id")
        return "" if index is None else self._layout.cells(record.text)[index].decode(errors="replace")


_Open = Callable[
    [Path, VariantHeader, Sequence[InfoField], Sequence[str]], AbstractContextManager[AnnotatedWriter]
]
_OPENERS: dict[str, _Open] = {
    **{name: partial(_open_vcf, name) for name in VCFS},
    "tsv": partial(_open_tsv, TSV),
    "csv": partial(_open_tsv, CSV),
    "parquet": _open_parquet,
}
FORMATS: dict[str, FileFormat] = {**VCFS, "tsv": TSV, "csv": CSV, "parquet": TABLES["parquet"]}
