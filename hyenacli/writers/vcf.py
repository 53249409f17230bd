"""Variants with what was computed of them: the lines of the input with INFO fields added, or a table."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from hyenacli.errors import UsageError, nearest
from hyenacli.readers.variant_record import VariantHeader, VariantRecord, VariantsKind
from hyenacli.writers.tables import open_table
from hyenacli.writers.tsv import shard_end, shard_mark
from hyenacli.writers.variant_sink import open_sink
from hyenacli.writers.variant_table import ParquetWriter, TsvWriter, parquet_columns
from hyenacli.writers.vcf_lines import InfoField, Values, VcfWriter, annotated_header
from hyenacli.writers.vcf_shards import provenance_of

TYPES = ("vcf", "vcf.gz", "bcf", "tsv", "parquet")
# Largest positions, 0-based: they have 32 bits in BCF, 64 in text.
_LAST_IN_BCF, _LAST_IN_TEXT = (1 << 31) - 2, (1 << 63) - 2


class AnnotatedWriter(Protocol):
    """What every output type offers."""

    def write(self, record: VariantRecord, values: Values) -> None:
        """Write a record, in the order of the calls.

        Args:
            record: as read.
            values: of every field, by its ID, one value per ALT allele; None and NaN are missing.

        Raises:
            UserError: the output type cannot hold the record, or the file cannot be written.
            ValueError: there are more or fewer values than ALT alleles.
        """


def annotated_type(target: Path, output_type: str | None, kind: VariantsKind) -> str:
    """The type of the output: what was asked for, else what the suffix says; `-` is VCF, of a table TSV.

    Raises:
        UsageError: neither is a known type, or the type cannot be streamed to stdout.

    >>> annotated_type(Path("a/b.vcf.gz"), None, "bcf"), annotated_type(Path("-"), None, "bcf")
    ('vcf.gz', 'vcf')
    """
    stdout = str(target) == "-"
    if output_type is None:
        kinds = [known for known in TYPES if target.name.endswith(f".{known}")]
        if not kinds and not stdout:
            remedy = f"use one of {', '.join(f'.{known}' for known in TYPES)}, or give -O/--output-type"
            raise UsageError("the suffix names no type of variants", at=target, remedy=remedy)
        return kinds[0] if kinds else "tsv" if kind == "table" else "vcf"
    found = output_type.removeprefix(".")
    if found not in TYPES:
        raise UsageError(f"unknown output type '{output_type}'", at="-O", remedy=nearest(found, list(TYPES)))
    if stdout and found not in ("vcf", "tsv"):
        remedy = "name a file with -o, or use vcf or tsv"
        raise UsageError(f"{found} does not go to stdout", at="-O", remedy=remedy)
    return found


@contextmanager
def open_annotated(
    target: Path,
    output_type: str | None,
    header: VariantHeader,
    fields: Sequence[InfoField],
    provenance: Sequence[str],
) -> Iterator[AnnotatedWriter]:
    """Open an output for variants; the file appears, whole, when the context ends well.

    VCF: each line as it was read, with `ID=value,...` at the end of INFO in place of earlier values of the
    same ID, and nothing added to a record without ALT; the header as it was, with new lines before #CHROM. A
    .vcf.gz is bgzip, and has an index beside it if the records are sorted. A table becomes a minimal VCF.
    BCF: the same as binary, with what the header does not declare declared. TSV and Parquet: one row per ALT
    allele, pos 1-based; the TSV of a table keeps its columns.

    Args:
        target: output file, or `-` for stdout.
        output_type: vcf, vcf.gz, bcf, tsv or parquet; None takes the suffix.
        header: of the input, as `open_variants` gives it.
        fields: in the order in which to add them.
        provenance: header lines such as `##hyena_version=1`, without line ends. Parquet keeps them as
            metadata of its schema; a TSV has no place for them, unless it is a shard.

    Raises:
        UsageError: as `annotated_type`.
        UserError: as `atomic_path`, or the output type cannot hold a record.
    """
    kind = annotated_type(target, output_type, header.kind)
    if kind == "parquet":
        with open_table(target, kind, parquet_columns(fields), provenance_of(provenance)) as table:
            rows = ParquetWriter(table, header, fields)
            yield rows
            rows.flush()
        return
    if kind == "tsv":
        about = provenance_of(provenance)
        with open_sink(target, kind, shard_mark(about)) as sink:
            yield TsvWriter(sink, header, fields)
            sink(shard_end(about))
        return
    with open_sink(target, kind, annotated_header(header, fields, provenance)) as sink:
        last = _LAST_IN_BCF if kind == "bcf" else _LAST_IN_TEXT
        writer = VcfWriter(sink, header, fields, last, target)
        yield writer
        writer.flush()
