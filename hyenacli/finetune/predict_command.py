"""`hyena predict`: predictions of a fine-tuned model for sequences and regions."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.errors import UsageError
from hyenacli.finetune.settings import PredictSettings
from hyenacli.genome.contigs import check_naming
from hyenacli.inference.batching import RunSummary, parse_batch_size
from hyenacli.inference.embedding_options import check_stride
from hyenacli.inference.experts import join_predictions, open_experts
from hyenacli.inference.prediction import (
    Predicted,
    choose_track,
    head_values,
    predict,
    prediction_columns,
    prediction_head,
    prediction_options,
    prediction_rows,
    readable_records,
)
from hyenacli.readers.inputs import SequenceInput
from hyenacli.readers.records import Input
from hyenacli.writers.output_shards import merge_if_last, resolve_shard
from hyenacli.writers.provenance import COORDINATES, provenance_of
from hyenacli.writers.tables import SCALAR_TABLES, open_table, table_type
from hyenacli.writers.tracks import TRACKS, open_track, track_input
from hyenadna import load_model
from hyenadna.config import HeadConfig
from hyenadna.formats.load import locate


def run(config: PredictSettings) -> None:
    """Check the arguments, then the input, then the output; load the model and write the predictions.

    Raises:
        UserError: bad input, an output that cannot be written, or a model that cannot do what is asked.
    """
    batch_size = parse_batch_size(config.batch_size)
    kind = _check(config)
    output = resolve_shard(config.shard, config.output, multiqc=config.multiqc)
    output.check(config.input, config.fasta, config.contig_aliases)
    device = resolve_device(config.device)
    precision = autocast(device, config.dtype)
    set_threads(config.threads)
    folder = locate(config.model).config.parent
    output.clear()
    with ExitStack() as stack:
        inputs = SequenceInput.of(config, "predict", **track_input(kind)).open(
            stack, output.shard, several_processes=output.whole is not None
        )
        model = load_model(config.model).to(device)
        head = prediction_head(model, config.model)
        options = prediction_options(
            head,
            rc=head.rc if config.rc == "auto" else config.rc == "mean",
            stranded=config.stranded,
            window=config.window,
            stride=config.stride,
        )
        records = readable_records(inputs.records, options)
        predicted = predict(model, records, options, batch_size=batch_size, precision=precision)
        predicted = join_predictions(predicted, open_experts(folder), stranded=config.stranded)
        strands = "mean of both" if options.rc == "mean" else "one"
        facts = {"task": head.task, "level": head.level, "strands": strands, "coordinates": COORDINATES}
        provenance = provenance_of(config, model, **facts) | inputs.shard
        summary = RunSummary("predict", "predicting", "predicted")
        with _open_output(config, output.target, kind, head, inputs, provenance) as write:
            for answer in summary.watch(predicted, inputs.total):
                write(answer)
    summary.report(output.describe())
    output.write_statuses(summary.verb, summary.statuses)
    merge_if_last(output)


def _check(config: PredictSettings) -> str:
    """Check the options that need no file, and return the type of the output."""
    kind = table_type(config.output, config.output_type, (*SCALAR_TABLES, *TRACKS))
    if config.track is not None and kind not in TRACKS:
        remedy = "leave it out: a table has all"
        raise UsageError("only a bedGraph or bigWig has a track", at="--track", remedy=remedy)
    if config.window is not None:
        check_stride(config.window, config.stride)
    check_naming(config.contig_style, config.contig_aliases, config.fasta)
    return kind


@contextmanager
def _open_output(
    config: PredictSettings,
    target: Path,
    kind: str,
    head: HeadConfig,
    inputs: Input,
    provenance: dict[str, Any],
) -> Iterator[Callable[[Predicted], None]]:
    """Open a table or a track, and yield a function that writes one prediction."""
    if kind not in TRACKS:
        with open_table(target, kind, prediction_columns(head, inputs.columns), provenance) as table:
            yield lambda answer: table.write(prediction_rows(answer, head))
        return
    track = choose_track(head, config.track)
    with open_track(target, kind, inputs.contigs, provenance) as lines:

        def write(answer: Predicted) -> None:
            if answer.logits is not None:
                values_L = head_values(answer.logits, head)[:, track]
                for start, end in answer.record.spans:
                    part_L, values_L = np.split(values_L, [end - start])
                    lines.write(answer.record.chrom, start, part_L)

        yield write
