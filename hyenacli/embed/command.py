"""`hyena embed`: one vector per region or sequence."""

from contextlib import ExitStack
from typing import Any

from hyenacli import __version__
from hyenacli.console import log
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.embed.settings import EmbedSettings
from hyenacli.errors import UsageError
from hyenacli.genome.contigs import check_naming
from hyenacli.inference.batching import RunSummary, parse_batch_size
from hyenacli.inference.embedding import (
    embed,
    embedding_columns,
    embedding_record,
    embedding_rows,
    per_base_bytes,
)
from hyenacli.inference.embedding_options import parse_embedding_options
from hyenacli.readers.annotation import sniff_regions
from hyenacli.readers.features import FeatureChoice
from hyenacli.readers.records import (
    Input,
    check_input,
    open_fasta,
    open_regions,
    require_regions,
)
from hyenacli.readers.regions import open_reference
from hyenacli.readers.text import InputFormat, open_binary
from hyenacli.settings_file import to_dict
from hyenacli.writers.output_shards import OutputShard, merge_if_last, resolve_shard
from hyenacli.writers.tables import TABLES, open_table, table_type
from hyenadna import load_model, model_sha256
from hyenadna.formats.load import locate

# A file of vectors per base that is larger is announced.
_LARGE = 1 << 30


def run(config: EmbedSettings) -> None:
    """Check the arguments, then the input, then the output; load the model and write the table.

    Raises:
        UserError: bad input, an output that cannot be written, or a model that cannot do what is asked.
    """
    options = parse_embedding_options(
        pool=config.pool,
        layer=config.layer,
        rc=config.rc,
        stranded=config.stranded,
        window=config.window,
        stride=config.stride,
    )
    per_base = options.pooling.per_base
    batch_size = parse_batch_size(config.batch_size)
    kind = _table_type(config, per_base=per_base)
    check_naming(config.contig_style, config.contig_aliases, config.fasta, config.circular)
    output = resolve_shard(config.shard, config.output)
    output.check(config.input, config.fasta, config.contig_aliases)
    device = resolve_device(config.device)
    precision = autocast(device, config.dtype)
    set_threads(config.threads)
    locate(config.model)
    output.clear()
    with ExitStack() as stack:
        records = _open_input(config, output, stack)
        model = load_model(config.model).to(device)
        embedded = embed(model, records.records, options, batch_size=batch_size, precision=precision)
        layers = options.layers(model.config)
        columns = embedding_columns(layers, options.width(model.config), records.columns)
        size = per_base_bytes(records.bases or 0, columns, TABLES[kind]) if per_base else 0
        if size > _LARGE:
            described = f"{size / 2**30:.1f} GiB: a vector for each of {records.bases:,} bases"
            log.warning("%s will take about %s", output.target, described)
        rows = embedding_record if TABLES[kind].whole_records else embedding_rows
        summary = RunSummary("embed", "embedding", "embedded")
        provenance = _provenance(config, model_sha256(model), layers) | records.shard
        with open_table(output.target, kind, columns, provenance) as table:
            for answer in summary.watch(embedded, records.total):
                table.write(rows(answer, columns))
    summary.report(output.describe(), multiqc=output.target if config.multiqc else None)
    merge_if_last(output)


def _table_type(config: EmbedSettings, *, per_base: bool) -> str:
    kind = table_type(config.output, config.output_type)
    if TABLES[kind].whole_records and not per_base:
        remedy = "add --pool none, or write .parquet or .h5ad"
        raise UsageError(f".{kind} holds a vector per base", at=config.output, remedy=remedy)
    return kind


def _open_input(config: EmbedSettings, output: OutputShard, stack: ExitStack) -> Input:
    """Open the records of the input, checked as far as they can be without a model."""
    naming = config.contig_style, config.contig_aliases, config.circular
    if config.input is None:
        regions, fasta = require_regions(config.region, config.fasta, "embed")
        reference = stack.enter_context(open_reference(fasta, *naming))
        return open_regions(regions, reference, flank=config.flank, shard=output.shard)
    check_input(config.input, config.region, several_processes=output.whole is not None)
    stream = stack.enter_context(open_binary(config.input, allow_empty=True))
    choice = FeatureChoice.of(config)
    otherwise: InputFormat | None = "bed" if config.fasta else None if stream.peek(1) else "fasta"
    kind = sniff_regions(stream, choice, otherwise)
    if kind == "vcf":
        raise UsageError("is a VCF", at=stream.name, remedy="embed takes BED or FASTA")
    if kind == "bed":
        if config.fasta is None:
            raise UsageError("is a BED", at=stream.name, remedy="give its genome with -f/--fasta")
        reference = stack.enter_context(open_reference(config.fasta, *naming))
        return open_regions(
            stream,
            reference,
            flank=config.flank,
            shard=output.shard,
            choice=choice,
            keep_columns=True,
        )
    if config.fasta is not None or config.flank:
        raise UsageError(
            "is a FASTA, whose sequences are embedded whole",
            at=stream.name,
            remedy="leave out -f and --flank, or give regions as BED",
        )
    return open_fasta(stream, config.input, output.shard)


def _provenance(config: EmbedSettings, sha256: str, layers: tuple[int, ...]) -> dict[str, Any]:
    """Return what the table says about how it was made, and how to make it again."""
    return {
        "hyena_version": __version__,
        "model_sha256": sha256,
        "layers": layers,
        "coordinates": "start and end are 0-based, half-open",
        "settings": to_dict(config),
    }
