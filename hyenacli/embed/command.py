"""`hyena embed`: one vector per region or sequence."""

from contextlib import ExitStack

from hyenacli.console import log
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.embed.map import MapSample, check_map, write_map
from hyenacli.embed.settings import EmbedSettings
from hyenacli.errors import UsageError
from hyenacli.genome.contigs import check_naming
from hyenacli.inference.batching import RunSummary, parse_batch_size
from hyenacli.inference.embedding import (
    RECORD_COLUMNS,
    embed,
    embedding_columns,
    embedding_record,
    embedding_rows,
    per_base_bytes,
)
from hyenacli.inference.embedding_options import parse_embedding_options
from hyenacli.readers.inputs import SequenceInput
from hyenacli.readers.records import Input
from hyenacli.writers.output_shards import OutputShard, merge_if_last, resolve_shard
from hyenacli.writers.provenance import COORDINATES, provenance_of
from hyenacli.writers.tables import TABLES, open_table, table_type
from hyenadna import load_model
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
    check_map(config)
    batch_size = parse_batch_size(config.batch_size)
    kind = _table_type(config, per_base=per_base)
    check_naming(config.contig_style, config.contig_aliases, config.fasta, config.circular)
    output = resolve_shard(config.shard, config.output, multiqc=config.multiqc)
    output.check(config.input, config.fasta, config.contig_aliases)
    if config.map is not None and output.shard is not None:
        raise UsageError(
            "a map is of all records", at="--map", remedy="leave it out, or embed in one process"
        )
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
        sample = None if config.map is None else MapSample(config.color_by, columns, records.columns)
        provenance = provenance_of(config, model, layers=layers, coordinates=COORDINATES) | records.shard
        with open_table(output.target, kind, columns, provenance) as table:
            for answer in summary.watch(embedded, records.total):
                table.write(rows(answer, columns))
                if sample is not None:
                    sample.add(answer)
    summary.report(output.describe())
    output.write_statuses(summary.verb, summary.statuses)
    merge_if_last(output)
    if sample is not None:
        write_map(config, sample)


def _table_type(config: EmbedSettings, *, per_base: bool) -> str:
    kind = table_type(config.output, config.output_type)
    if TABLES[kind].whole_records and not per_base:
        remedy = "add --pool none, or write .parquet or .h5ad"
        raise UsageError(f".{kind} holds a vector per base", at=config.output, remedy=remedy)
    return kind


def _open_input(config: EmbedSettings, output: OutputShard, stack: ExitStack) -> Input:
    """Open the records of the input, with the column that colours the map."""
    every = {column.name for column in RECORD_COLUMNS}
    column = None if config.color_by in every else config.color_by
    inputs = SequenceInput.of(config, "embed", keep_columns=True, column=column)
    return inputs.open(stack, output.shard, several_processes=output.whole is not None)
