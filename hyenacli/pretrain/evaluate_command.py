"""`hyena evaluate`: loss and perplexity by the length of the context."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyenacli import __version__, console
from hyenacli.errors import UsageError
from hyenacli.pretrain.settings import EvaluateSettings
from hyenacli.settings_file import to_dict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hyenacli.inference.perplexity import PerplexityAtLength
    from hyenacli.readers.genome import Genome


def run(config: EvaluateSettings) -> None:
    """Check the arguments, then the genomes, then the model; write a row per length, and the plot.

    Raises:
        UserError: bad input, an output that cannot be written, or a model that cannot do what is asked.
    """
    from hyenacli.inference.batching import parse_batch_size
    from hyenacli.writers.atomic import ensure_writable
    from hyenacli.writers.columns import Column
    from hyenacli.writers.tables import open_table, table_type

    batch_size = parse_batch_size(config.batch_size)
    table_type(config.output, config.output_type)
    if config.plot is not None and config.plot.suffix != ".svg":
        raise UsageError("the plot is an SVG", at=config.plot, remedy="give it the suffix .svg")
    for target in (config.output, config.plot):
        if target is not None:
            ensure_writable(target, *config.fasta, config.intervals)

    from hyenacli.devices import autocast, resolve_device, set_threads
    from hyenacli.inference.perplexity import choose_intervals, evaluate, parse_lengths, warn_of_labels
    from hyenacli.readers.genome import open_genomes
    from hyenadna import load_model, model_sha256

    lengths = parse_lengths(config.lengths)
    device = resolve_device(config.device)
    precision = autocast(device, config.dtype)
    set_threads(config.threads)
    genomes = open_genomes(config.fasta)
    contigs = [contig for genome in genomes for contig in genome.contigs]
    intervals = choose_intervals(contigs, names=config.contigs, bed=config.intervals, split=config.split)
    model = load_model(config.model).to(device)
    warn_of_labels(model.config, config.model)
    provenance = _provenance(config, genomes, model_sha256(model))
    columns = [Column(name, int) for name in ("length", "windows", "bases")]
    columns += [Column(name, float) for name in ("loss", "bits_per_base", "perplexity")]
    losses = evaluate(
        model,
        contigs,
        intervals,
        lengths,
        max_windows=config.max_windows,
        batch_size=batch_size,
        precision=precision,
        on_progress=lambda done, total: bar.update(task, completed=done, total=total),
    )
    found = []
    # The table first: while a bar is shown, rich sends what is printed on stdout to the bar's stderr.
    with (
        open_table(config.output, config.output_type, columns, provenance) as table,
        console.progress() as bar,
    ):
        task = bar.add_task("evaluating", total=None)
        for loss in losses:
            table.write({column.name: [getattr(loss, column.name)] for column in columns})
            found.append(loss)
            _report(loss)
    if config.plot is not None:
        from hyenacli.evaluation.plots import write_length_chart

        lines = {Path(config.model).absolute().name: [loss.perplexity for loss in found]}
        lengths = [loss.length for loss in found]
        write_length_chart(config.plot, lengths, lines, x_label="context (bases)", y_label="perplexity")


def _provenance(config: EvaluateSettings, genomes: "Iterable[Genome]", sha256: str) -> dict[str, Any]:
    """What a table must say about itself: how it was made, and how to make it again."""
    return {
        "hyena_version": __version__,
        "model_sha256": sha256,
        "genomes": [genome.fingerprint() for genome in genomes],
        "settings": to_dict(config),
    }


def _report(loss: "PerplexityAtLength") -> None:
    console.log.info(
        "length %s: perplexity %.4f, %s bases, %s bases/s",
        f"{loss.length:,}",
        loss.perplexity,
        f"{loss.bases:,}",
        f"{loss.bases / loss.seconds:,.0f}",
    )
    console.event(
        "evaluate",
        length=loss.length,
        windows=loss.windows,
        bases=loss.bases,
        loss=loss.loss,
        seconds=round(loss.seconds, 3),
    )
