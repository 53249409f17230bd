"""`hyena predict`: what a fine-tuned model says of sequences and regions."""

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hyenacli import __version__
from hyenacli.console import log
from hyenacli.embed.command import Tally, check_input, open_reference, regions_named
from hyenacli.errors import UsageError, nearest
from hyenacli.finetune.predict_settings import PredictSettings
from hyenacli.settings_file import to_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from hyenacli.inference.embedding_options import EmbeddingOptions
    from hyenacli.inference.prediction import Predicted
    from hyenacli.readers.records import Input, SequenceRecord
    from hyenacli.writers.output_shards import OutputShard
    from hyenadna.config import HeadConfig

_RC = ("auto", "none", "mean")
_TABLES = ("parquet", "tsv", "tsv.gz", "npz")


def run(config: PredictSettings) -> None:
    """Check the arguments, then the input, then the output; load the model and write what it predicts.

    Raises:
        UserError: bad input, an output that cannot be written, or a model that cannot do what is asked.
    """
    from hyenacli.genome.contigs import check_naming
    from hyenacli.inference.batch_size import parse_batch_size
    from hyenacli.writers.merge import merge_shards
    from hyenacli.writers.output_shards import merge_if_last, resolve_shard

    batch_size = parse_batch_size(config.batch_size)
    kind = _output_type(config)
    _check_words(config)
    check_naming(config.contig_style, config.contig_aliases, config.fasta)
    share = resolve_shard(config.shard, config.output)
    share.check(config.input, config.fasta, config.contig_aliases)

    from hyenacli.devices import autocast, resolve_device, set_threads
    from hyenadna.formats.locate import locate

    device = resolve_device(config.device)
    precision = autocast(device, config.dtype)
    locate(config.model)
    share.clear()
    with ExitStack() as stack:
        records = _open_input(config, share, stack, bedgraph=kind not in _TABLES)

        from hyenacli.inference.prediction import head_of, predict_by, prediction_options
        from hyenadna import load_model, model_sha256

        set_threads(config.threads)
        model = load_model(config.model).to(device)
        head = head_of(model, config.model)
        rc = head.rc if config.rc == "auto" else config.rc == "mean"
        recipe = prediction_options(
            head, rc=rc, stranded=config.stranded, window=config.window, stride=config.stride
        )
        stretches = _with_bases(_with_a_warning(records.stretches, recipe))
        answers = predict_by(model, stretches, recipe, batch_size=batch_size, precision=precision)
        provenance = _provenance(config, head, recipe, model_sha256(model)) | records.shard
        tally = Tally("predict", "predicting", "predicted")
        with _open_output(config, share.target, kind, head, provenance) as write:
            for answer in tally.watch(answers, records.total):
                write(answer)
    tally.report(share)
    if merge_if_last(share, merge_shards):
        log.info("joined all shards, to %s", config.output)


def _output_type(config: PredictSettings) -> str:
    from hyenacli.writers.bedgraph import TYPES
    from hyenacli.writers.tables import table_type

    kind = table_type(config.output, config.output_type, (*_TABLES, *TYPES))
    if config.track is not None and kind in _TABLES:
        raise UsageError("only a bedGraph has a track", at="--track", remedy="leave it out: a table has all")
    return kind


def _check_words(config: PredictSettings) -> None:
    from hyenacli.inference.embedding_options import check_stride

    if config.rc not in _RC:
        raise UsageError(f"unknown choice '{config.rc}'", at="--rc", remedy=nearest(config.rc, list(_RC)))
    if config.window is not None:
        check_stride(config.window, config.stride)


def _open_input(
    config: PredictSettings, share: "OutputShard", stack: ExitStack, *, bedgraph: bool
) -> "Input":
    """The records of the input, checked as far as they can be without a model.

    A bedGraph has one number for a base, so that for one the regions must be apart.
    """
    from hyenacli.readers.records import open_regions
    from hyenacli.readers.streams import open_binary, sniff_format

    if config.input is None:
        texts, fasta = regions_named(config, "predict")
        return open_regions(texts, open_reference(config, fasta, stack), shard=share.shard, apart=bedgraph)
    check_input(config.input, config.region, share)
    if config.fasta is None:
        return _open_sequences(config, config.input, share, stack, bedgraph=bedgraph)
    stream = stack.enter_context(open_binary(config.input))
    if (found := sniff_format(stream, otherwise="bed")) != "bed":
        what = f"is a {found.upper()}, and -f gives the genome of a BED"
        remedy = "leave out -f, or give regions as BED" if found == "fasta" else "give regions as BED"
        raise UsageError(what, at=stream.name, remedy=remedy)
    _refuse_columns(config, stream.name)
    reference = open_reference(config, config.fasta, stack)
    return open_regions(stream, reference, shard=share.shard, apart=bedgraph)


def _open_sequences(
    config: PredictSettings, source: "Path", share: "OutputShard", stack: ExitStack, *, bedgraph: bool
) -> "Input":
    from hyenacli.readers.labelled import open_labelled
    from hyenacli.readers.labelled_record import Columns
    from hyenacli.readers.records import open_rows

    columns = Columns(config.sequence_column, labels=(), id=config.id_column, split="")
    rows = stack.enter_context(open_labelled([source], columns, labelled=False))
    if rows.kinds[0] in ("fasta", "folder"):
        _refuse_columns(config, rows.names[0])
    if bedgraph and rows.kinds[0] != "fasta":
        raise UsageError(
            "its sequences have no coordinates, which a bedGraph needs",
            at=rows.names[0],
            remedy="write a table, or give a FASTA or regions as BED",
        )
    return open_rows(rows, source, columns, shard=share.shard, apart=bedgraph)


def _refuse_columns(config: PredictSettings, name: str) -> None:
    if config.sequence_column != PredictSettings.sequence_column or config.id_column is not None:
        raise UsageError(
            "has no such columns", at=name, remedy="--sequence-column and --id-column are for tables"
        )


def _with_a_warning(
    stretches: "Iterable[SequenceRecord]", recipe: "EmbeddingOptions"
) -> "Iterator[SequenceRecord]":
    """Say once that the strand of regions is not heeded where that makes a difference."""
    heeded = recipe.stranded or recipe.rc == "mean"
    for one in stretches:
        if one.strand == "-" and not heeded:
            log.warning("regions on the - strand are read as on the + strand; --stranded reads their own")
            heeded = True
        yield one


@contextmanager
def _open_output(
    config: PredictSettings, target: "Path", kind: str, head: "HeadConfig", provenance: dict[str, Any]
) -> "Iterator[Callable[[Predicted], None]]":
    """Takes predictions."""
    from hyenacli.inference.prediction_table import (
        choose_track,
        prediction_columns,
        prediction_rows,
        values_of,
    )
    from hyenacli.writers.bedgraph import open_bedgraph
    from hyenacli.writers.tables import open_table

    if kind in _TABLES:
        with open_table(target, kind, prediction_columns(head), provenance) as table:
            yield lambda answer: table.write(prediction_rows(answer, head))
        return
    track = choose_track(head, config.track)
    with open_bedgraph(target, kind, provenance) as lines:

        def write(answer: "Predicted") -> None:
            if answer.logits is not None:
                values_L = values_of(answer.logits, head)[:, track]
                lines.write(answer.stretch.chrom, answer.stretch.start, values_L)

        yield write


def _provenance(
    config: PredictSettings, head: "HeadConfig", recipe: "EmbeddingOptions", sha256: str
) -> dict[str, Any]:
    """What an output must say about itself: how it was made, and how to make it again."""
    return {
        "hyena_version": __version__,
        "model_sha256": sha256,
        "task": head.task,
        "level": head.level,
        "strands": "mean of both" if recipe.rc == "mean" else "one",
        "coordinates": "start and end are 0-based, half-open",
        "settings": to_dict(config),
    }


def _with_bases(stretches: "Iterable[SequenceRecord]") -> "Iterator[SequenceRecord]":
    """Leave out what has nothing but N: a model says something of it, which means nothing."""
    for one in stretches:
        known = one.status != "OK" or one.bases.strip(b"N")
        yield one if known else replace(one, status="ALL_N", bases=b"")
