"""`hyena classify-species evaluate`: accuracy by the length of what is read."""

import math
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from hyenacli import __version__, console
from hyenacli.distributed import current_ranks
from hyenacli.errors import UsageError, UserError
from hyenacli.settings_file import to_dict
from hyenacli.species.settings import SpeciesEvaluateSettings, SpeciesTrainSettings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from hyenacli.species.evaluate import AccuracyAtLength
    from hyenacli.species.splits import SpeciesSplits


def run(config: SpeciesEvaluateSettings) -> None:
    """Check the arguments, then the run; write a row per length, and the plot.

    Raises:
        UserError: the run is none of species, its files have changed since, an output cannot be written, or
            no length has windows.
    """
    from hyenacli.writers.columns import Column
    from hyenacli.writers.tables import open_table

    _check(config)

    from hyenacli.devices import autocast, resolve_device, set_threads
    from hyenacli.inference.perplexity import parse_lengths
    from hyenacli.species.evaluate import default_lengths, evaluate_species, read_run
    from hyenacli.species.predict import species_head
    from hyenacli.training.run_metadata import warn_unfinished
    from hyenadna import load_model, model_sha256

    lengths = parse_lengths(config.lengths)
    device = resolve_device(config.device)
    set_threads(config.threads)
    settings = read_run(config.run)
    model = load_model(config.run).to(device)
    window = species_head(model, config.run).window or model.longest_input
    warn_unfinished(config.run)
    splits = _splits(config, settings, window)
    names = splits.names
    columns = [Column("length", int), Column("windows", int)]
    numbers = ["accuracy", "accuracy_low", "accuracy_high", "answered", "accuracy_answered", "kmers_accuracy"]
    numbers += [f"{what}_{name}" for name in names for what in ("precision", "recall")]
    columns += [Column(name, float, digits=4) for name in numbers]
    columns += [Column(f"{one}_as_{other}", int) for one in names for other in names]
    provenance = {
        "hyena_version": __version__,
        "model_sha256": model_sha256(model),
        "settings": to_dict(config),
    }
    judged = evaluate_species(
        model,
        splits,
        settings,
        lengths or default_lengths(window),
        split=config.split,
        per_species=config.windows,
        kmers=not config.no_baseline,
        precision=partial(autocast, device, config.dtype),
    )
    first = next(judged, None)
    if first is None:
        remedy = "give shorter ones to --lengths"
        raise UserError("no length has windows of every species", at=config.run, remedy=remedy)
    found = []
    with open_table(config.output, config.output_type, columns, provenance) as table:
        for one in chain([first], judged):
            found.append(one)
            beside = "" if math.isnan(one.kmers) else f", k-mers {one.kmers:.3f}"
            console.log.info("length %s: accuracy %.3f%s", f"{one.length:,}", one.accuracy, beside)
            table.write(_row(one, names, config.threshold))
    if config.plot is not None:
        from hyenacli.evaluation.plots import write_length_chart

        lines = {config.run.absolute().name: [one.accuracy for one in found]}
        if not config.no_baseline:
            lines["6-mers"] = [one.kmers for one in found]
        lines["by chance"] = [1 / len(names)] * len(found)
        lengths = [one.length for one in found]
        write_length_chart(config.plot, lengths, lines, x_label="bases of a window", y_label="accuracy")


def _check(config: SpeciesEvaluateSettings) -> None:
    from hyenacli.writers.tables import table_type

    if current_ranks().world_size > 1:
        raise UsageError("one process does it all", remedy="start it without torchrun")
    table_type(config.output, config.output_type)
    if config.split not in ("valid", "test"):
        raise UsageError(f"unknown split '{config.split}'", at="--split", remedy="use valid or test")
    if config.plot is not None and config.plot.suffix != ".svg":
        raise UsageError("the plot is an SVG", at=config.plot, remedy="give it the suffix .svg")
    _check_outputs(config)


def _check_outputs(config: SpeciesEvaluateSettings, *inputs: "Path | None") -> None:
    from hyenacli.writers.atomic import ensure_writable

    for target in (config.output, config.plot):
        if target is not None:
            ensure_writable(target, *inputs)


def _splits(config: SpeciesEvaluateSettings, settings: SpeciesTrainSettings, window: int) -> "SpeciesSplits":
    """The splits of the run, whose files are as they were."""
    from hyenacli.species.training_data import check_splits, fingerprints, open_run_genomes, split_run
    from hyenacli.training.run_metadata import changed_inputs

    try:
        genomes = open_run_genomes(settings)
    except UserError as error:
        remedy = "put them back where its config.yaml has them, or train again"
        raise UserError(f"its genomes cannot be read ({error})", at=config.run, remedy=remedy) from error
    _check_outputs(config, settings.species_file, *(path for one in genomes.species for path in one.fasta))
    if changed := changed_inputs(config.run, fingerprints(genomes)):
        remedy = "put the files back as they were, or train again"
        raise UserError(f"what is held out is not known: {'; '.join(changed)}", at=config.run, remedy=remedy)
    splits = split_run(settings, genomes, window)
    check_splits(config.run, splits)
    if not any(splits.intervals(config.split)):
        what = f"the run has no {config.split} windows"
        raise UserError(what, at=config.run, remedy="choose another --split")
    return splits


def _row(one: "AccuracyAtLength", names: "Sequence[str]", threshold: float) -> dict[str, Any]:
    answered, accuracy_answered = one.answered(threshold)
    row: dict[str, Any] = {
        "length": [one.length],
        "windows": [one.windows],
        "accuracy": [one.accuracy],
        "accuracy_low": [one.low],
        "accuracy_high": [one.high],
        "answered": [answered],
        "accuracy_answered": [accuracy_answered],
        "kmers_accuracy": [one.kmers],
    }
    for place, name in enumerate(names):
        row[f"precision_{name}"] = [one.precision[place]]
        row[f"recall_{name}"] = [one.recall[place]]
        for other, count in zip(names, one.confusion[place], strict=True):
            row[f"{name}_as_{other}"] = [int(count)]
    return row
