"""`hyena evaluate`: loss and perplexity by the length of the context."""

from pathlib import Path

from hyenacli import console
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.evaluation.line_plots import write_length_chart
from hyenacli.evaluation.metrics import compare_with_guessing, describe_bits
from hyenacli.inference.batching import parse_batch_size
from hyenacli.inference.perplexity import (
    PerplexityAtLength,
    choose_intervals,
    evaluate,
    parse_lengths,
    warn_of_labels,
)
from hyenacli.pretrain.settings import EvaluateSettings
from hyenacli.readers.genome import open_genomes
from hyenacli.writers.atomic import ensure_writable, require_suffix
from hyenacli.writers.columns import Column
from hyenacli.writers.provenance import provenance_of
from hyenacli.writers.tables import SCALAR_TABLES, open_table, table_type
from hyenadna import load_model


def run(config: EvaluateSettings) -> None:
    """Check the arguments, then the genomes, then the model; write a row per length, and the plot.

    Raises:
        UserError: bad input, an output that cannot be written, or a model without next-nucleotide scores.
    """
    batch_size = parse_batch_size(config.batch_size)
    table_type(config.output, config.output_type, SCALAR_TABLES)
    require_suffix(config.plot, ".svg", "the plot is an SVG")
    for target in (config.output, config.plot):
        if target is not None:
            ensure_writable(target, *config.fasta, config.intervals)
    lengths = parse_lengths(config.lengths)
    device = resolve_device(config.device)
    precision = autocast(device, config.dtype)
    set_threads(config.threads)
    genomes = open_genomes(config.fasta)
    contigs = [contig for genome in genomes for contig in genome.contigs]
    intervals = choose_intervals(contigs, names=config.contigs, bed=config.intervals, split=config.split)
    model = load_model(config.model).to(device)
    warn_of_labels(model.config, config.model)
    provenance = provenance_of(config, model, genomes=[genome.fingerprint() for genome in genomes])
    columns = [Column(name, int) for name in ("length", "windows", "bases")]
    columns += [Column(name, float) for name in ("loss", "bits_per_base", "perplexity")]
    evaluations = evaluate(
        model,
        contigs,
        intervals,
        lengths,
        max_windows=config.max_windows,
        batch_size=batch_size,
        precision=precision,
        on_progress=lambda done, total: progress.update(done, total=total),
    )
    results = []
    # The table is opened first: while a bar is shown, rich sends prints on stdout to the bar's stderr.
    with (
        open_table(config.output, config.output_type, columns, provenance) as table,
        console.Progress("evaluating", None, "tokens") as progress,
    ):
        for result in evaluations:
            table.write({column.name: [getattr(result, column.name)] for column in columns})
            results.append(result)
            _log(result)
    worst = max(results, key=lambda result: result.loss)
    if sentence := compare_with_guessing(worst.loss):
        console.log.warning("context of %s bases: %s", f"{worst.length:,}", sentence)
    best = min(results, key=lambda result: result.loss)
    console.log.info("with a context of %s bases: %s", f"{best.length:,}", describe_bits(best.loss))
    if config.plot is not None:
        lines = {Path(config.model).absolute().name: [result.perplexity for result in results]}
        lengths = [result.length for result in results]
        write_length_chart(config.plot, lengths, lines, x_label="context (bases)", y_label="perplexity")


def _log(result: PerplexityAtLength) -> None:
    console.log.info(
        "context of %s bases: %.4f bits per base (2 is guessing), perplexity %.4f, %s bases, %s bases/s",
        f"{result.length:,}",
        result.bits_per_base,
        result.perplexity,
        f"{result.bases:,}",
        f"{result.bases / result.seconds:,.0f}",
    )
    console.event(
        "evaluate",
        length=result.length,
        windows=result.windows,
        bases=result.bases,
        loss=result.loss,
        seconds=round(result.seconds, 3),
    )
