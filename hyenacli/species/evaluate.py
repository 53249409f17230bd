"""`hyena classify-species evaluate`: accuracy by window length, as the paper's Table 4.5, for any label set.

N window, K species.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hyenacli import console, settings_file
from hyenacli.adaptation.evaluation import Logits
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.distributed import current_ranks
from hyenacli.errors import UsageError, UserError
from hyenacli.evaluation.joining import fit_weights
from hyenacli.evaluation.kmers import KmerFeatures, fit_kmers
from hyenacli.evaluation.markov import MarkovClassifier
from hyenacli.inference.experts import Experts, join_predictions, load_experts
from hyenacli.inference.perplexity import parse_lengths
from hyenacli.species.genomes import open_run_genomes
from hyenacli.species.predict import species_head
from hyenacli.species.settings import SpeciesEvaluateSettings, SpeciesTrainSettings
from hyenacli.species.splits import SpeciesSplits, check_splits, split_run
from hyenacli.species.windows import MAX_BASELINE_WINDOWS, HeldOut, SpeciesSource, bases_of
from hyenacli.training.run_directory import changed_inputs, warn_unfinished
from hyenacli.writers.atomic import ensure_writable, require_suffix
from hyenacli.writers.columns import Column
from hyenacli.writers.provenance import provenance_of
from hyenacli.writers.tables import SCALAR_TABLES, open_table, table_type
from hyenadna import HyenaDNA, load_model
from hyenadna.formats.load import locate

_SHORTEST, _FACTOR = 256, 4
# What accuracies are reported of beside that of the model, and how a plot calls it.
_BESIDE = {"network": "network alone", "markov": "Markov models", "kmers": "k-mers"}
# What is reported of each: its accuracy, and how far that of the model is above it.
_NUMBERS = ("accuracy", "difference", "difference_low", "difference_high")
_ABSENT = (math.nan,) * 4


def run(config: SpeciesEvaluateSettings, baseline_windows: int = MAX_BASELINE_WINDOWS) -> None:
    """Check the arguments, then the run; write a row per length, and the plot.

    Args:
        config: of the command.
        baseline_windows: most windows that the k-mer model of a length is fitted to.

    Raises:
        UserError: the run is not one of species, its files have changed since, an output cannot be written,
            or no length has windows.
    """
    _check(config)
    lengths = parse_lengths(config.lengths)
    device = resolve_device(config.device)
    set_threads(config.threads)
    settings = read_run(config.run)
    model = load_model(config.run).to(device)
    experts = load_experts(locate(config.run).config.parent)
    window = species_head(model, config.run).window or model.longest_input
    warn_unfinished(config.run)
    splits = _splits(config, settings, window)
    provenance = provenance_of(config, model)
    results = evaluate_species(
        (model, experts),
        splits,
        settings,
        lengths or [*default_lengths(window), *(experts.on_pieces if experts is not None else ())],
        split=config.split,
        per_species=config.windows,
        baseline_windows=0 if config.no_baseline else baseline_windows,
        precision=partial(autocast, device, config.dtype),
    )
    first = next(results, None)
    if first is None:
        remedy = "give shorter ones to --lengths"
        raise UserError("no length has windows of every species", at=config.run, remedy=remedy)
    written = []
    with open_table(config.output, config.output_type, _columns(splits.names), provenance) as table:
        for result in chain([first], results):
            written.append(result)
            others = [f", {name} {value:.3f}" for name, (value, *_) in result.beside.items()]
            text = "length %s: accuracy %.3f%s"
            console.log.info(text, f"{result.length:,}", result.accuracy, "".join(others))
            table.write(_row(result, splits.names, config.threshold))
    if config.plot is not None:
        _plot(config.plot, config, written)


def _check(config: SpeciesEvaluateSettings) -> None:
    if current_ranks().world_size > 1:
        raise UsageError("one process does it all", remedy="start it without torchrun")
    table_type(config.output, config.output_type, SCALAR_TABLES)
    require_suffix(config.plot, ".svg", "the plot is an SVG")
    _check_outputs(config)


def _check_outputs(config: SpeciesEvaluateSettings, *inputs: Path | None) -> None:
    for target in (config.output, config.plot):
        if target is not None:
            ensure_writable(target, *inputs)


def _splits(config: SpeciesEvaluateSettings, settings: SpeciesTrainSettings, window: int) -> SpeciesSplits:
    """Return the splits of the run; raise UserError if its files have changed."""
    try:
        genomes = open_run_genomes(settings)
    except UserError as error:
        remedy = "put them back where its config.yaml has them, or train again"
        raise UserError(f"its genomes cannot be read ({error})", at=config.run, remedy=remedy) from error
    files = (path for species in genomes.species for path in species.fasta)
    _check_outputs(config, settings.species_file, *files)
    if changed := changed_inputs(config.run, genomes.fingerprints()):
        remedy = "put the files back as they were, or train again"
        raise UserError(f"what is held out is not known: {'; '.join(changed)}", at=config.run, remedy=remedy)
    splits = split_run(settings, genomes, window)
    check_splits(config.run, splits)
    if not any(splits.intervals(config.split)):
        what = f"the run has no {config.split} windows"
        raise UserError(what, at=config.run, remedy="choose another --split")
    return splits


def read_run(run: Path) -> SpeciesTrainSettings:
    """Return the settings of a run of `classify-species train`.

    Raises:
        UserError: the directory is not such a run.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError("is no run directory", at=run, remedy="name one of `hyena classify-species train`")
    try:
        values = settings_file.read_yaml(path, list(SpeciesTrainSettings.__dataclass_fields__))
    except UserError:
        remedy = "name a run of `hyena classify-species train`"
        raise UserError("is a run of another verb", at=run, remedy=remedy) from None
    values |= {key: Path(values[key]) for key in ("output", "species_file") if key in values}
    return SpeciesTrainSettings(**values)


@dataclass(frozen=True)
class AccuracyAtLength:
    """The predictions for windows of one length.

    Attributes:
        length: bases of a window.
        truth_N: labels of the windows' species.
        p_NK: probabilities of the species.
        low: of the 95 % bootstrap interval of the accuracy.
        beside: by name, the accuracy of the `network` alone where experts join it, of the `markov` models
            alone, and of the `kmers` fitted to windows of this length, each with how far the model is above
            it and the ends of the paired 95 % interval of that; only of what there is.
    """

    length: int
    truth_N: NDArray[np.int64]
    p_NK: NDArray[np.float64]
    low: float
    high: float
    beside: Mapping[str, tuple[float, float, float, float]] = field(default_factory=dict)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Counts (K, K) of windows, by true species (rows) and predicted species (columns)."""
        species = self.p_NK.shape[1]
        counts_KK = np.zeros((species, species), np.int64)
        np.add.at(counts_KK, (self.truth_N, self.p_NK.argmax(axis=1)), 1)
        return counts_KK

    @property
    def windows(self) -> int:
        """The number of windows."""
        return len(self.truth_N)

    @property
    def accuracy(self) -> float:
        """The share of correct predictions."""
        return float(self.confusion.trace() / self.windows)

    @property
    def recall(self) -> NDArray[np.float64]:
        """The share (K,) of each species' windows that are predicted as it."""
        share_K: NDArray[np.float64] = self.confusion.diagonal() / np.maximum(1, self.confusion.sum(1))
        return share_K

    @property
    def precision(self) -> NDArray[np.float64]:
        """The share (K,) of the windows predicted as each species that come from it."""
        share_K: NDArray[np.float64] = self.confusion.diagonal() / np.maximum(1, self.confusion.sum(0))
        return share_K

    def answered(self, threshold: float) -> tuple[float, float]:
        """Return the share of windows whose best probability reaches a threshold, and the accuracy on them.

        The accuracy is NaN if there are none.
        """
        confident_N = self.p_NK.max(axis=1) >= threshold
        correct_N = self.p_NK.argmax(axis=1) == self.truth_N
        accuracy = float(correct_N[confident_N].mean()) if confident_N.any() else math.nan
        return float(confident_N.mean()), accuracy


def default_lengths(longest: int) -> list[int]:
    """Return 256, 1,024, 4,096 and so on, and the longest.

    >>> default_lengths(1024), default_lengths(5000)
    ([256, 1024], [256, 1024, 4096, 5000])
    """
    lengths = [longest]
    length = _SHORTEST
    while length < longest:
        lengths.append(length)
        length *= _FACTOR
    return sorted(lengths)


def evaluate_species(
    model: tuple[HyenaDNA, Experts | None],
    splits: SpeciesSplits,
    settings: SpeciesTrainSettings,
    lengths: Sequence[int],
    *,
    split: str,
    per_species: int,
    baseline_windows: int,
    precision: Callable[[], AbstractContextManager[Any]],
) -> Iterator[AccuracyAtLength]:
    """Evaluate a model on windows of each length, read as `hyena classify-species predict` reads contigs.

    Args:
        model: of the run, in eval mode, on its device, and what joins it.
        splits: of the run's genomes.
        settings: of the run: its seed and its strands.
        lengths: bases of a window.
        split: of the windows.
        per_species: number of windows of each species.
        baseline_windows: most training windows of each length that a k-mer model is fitted to, and evaluated
            as well; 0 for no such model.
        precision: context of every pass.
    """
    network, experts = model
    for length in lengths:
        held_out = HeldOut(splits, split, length, per_species)
        for sentence in held_out.missing:
            console.log.warning("%s", sentence)
        if len(np.unique(held_out.labels_N)) < len(splits.names):
            console.log.warning("%s bases are left out: a species has no such window", f"{length:,}")
            continue
        with torch.inference_mode(), precision():
            answers = list(held_out.answers(network, range(len(held_out)), rc=settings.rc == "mean"))
        alone, logits = (
            [answer.logits for answer in part if answer.logits is not None]
            for part in (answers, join_predictions(answers, experts))
        )
        evaluator, seed = held_out.evaluator, settings.seed
        low, high = evaluator.intervals(logits, seed)["accuracy"]
        others = {} if experts is None else {"network": alone}
        others |= _baseline_logits(splits, settings, held_out, length, baseline_windows, experts)
        beside = {
            name: (
                evaluator.metrics(values)["accuracy"],
                *evaluator.difference(logits, values, "accuracy", seed),
            )
            for name, values in others.items()
        }
        yield AccuracyAtLength(length, held_out.labels_N, evaluator.outputs(logits), low, high, beside)


def _baseline_logits(
    splits: SpeciesSplits,
    settings: SpeciesTrainSettings,
    held_out: HeldOut,
    length: int,
    count: int,
    experts: Experts | None,
) -> dict[str, list[Logits]]:
    """Return the logits of the Markov models alone and of the k-mer model of a length, of what there is.

    What is free in both is chosen by the validation windows. Without such windows of every species: warn.
    """
    if not count and experts is None:
        return {}
    valid = HeldOut(splits, "valid", length, settings.eval_windows)
    if len(np.unique(valid.labels_N)) < len(splits.names):
        sentence = "no baseline of %s bases: a species has no such validation window to choose it by"
        console.log.warning(sentence, f"{length:,}")
        return {}
    task, targets = held_out.evaluator.scheme.task, valid.evaluator.targets
    logits: dict[str, list[Logits]] = {}
    for model in experts.models if experts is not None else ():
        if isinstance(model, MarkovClassifier):
            weights = fit_weights(task, list(model.outputs(valid.sequences)), targets, offsets=True)
            logits["markov"] = list(weights.apply(list(model.outputs(held_out.sequences))))
    if count:
        train = SpeciesSource(settings, splits, length).baseline_windows(length, count)
        fitted = fit_kmers(
            bases_of(train.inputs),
            train.targets,
            task,
            valid=(valid.sequences, targets),
            features=KmerFeatures(),
        )
        logits["kmers"] = list(fitted.logits(held_out.sequences))
    return logits


def _columns(names: Sequence[str]) -> list[Column]:
    numbers = ["accuracy", "accuracy_low", "accuracy_high", "answered", "accuracy_answered"]
    numbers += [f"{name}_{number}" for name in _BESIDE for number in _NUMBERS]
    numbers += [f"{metric}_{name}" for name in names for metric in ("precision", "recall")]
    columns = [Column("length", int), Column("windows", int)]
    columns += [Column(name, float, digits=4) for name in numbers]
    return columns + [Column(f"{name}_as_{other}", int) for name in names for other in names]


def _row(result: AccuracyAtLength, names: Sequence[str], threshold: float) -> dict[str, Any]:
    answered, accuracy_answered = result.answered(threshold)
    row: dict[str, Any] = {
        "length": [result.length],
        "windows": [result.windows],
        "accuracy": [result.accuracy],
        "accuracy_low": [result.low],
        "accuracy_high": [result.high],
        "answered": [answered],
        "accuracy_answered": [accuracy_answered],
    }
    for name in _BESIDE:
        values = result.beside.get(name, _ABSENT)
        row |= {f"{name}_{number}": [value] for number, value in zip(_NUMBERS, values, strict=True)}
    for label, name in enumerate(names):
        row[f"precision_{name}"] = [result.precision[label]]
        row[f"recall_{name}"] = [result.recall[label]]
        for other, count in zip(names, result.confusion[label], strict=True):
            row[f"{name}_as_{other}"] = [int(count)]
    return row


def _plot(path: Path, config: SpeciesEvaluateSettings, results: Sequence[AccuracyAtLength]) -> None:
    """Draw accuracy against length."""
    from hyenacli.evaluation.line_plots import write_length_chart  # loads matplotlib

    lines = {config.run.absolute().name: [result.accuracy for result in results]}
    for name, title in _BESIDE.items():
        if any(name in result.beside for result in results):
            lines[title] = [result.beside.get(name, _ABSENT)[0] for result in results]
    lines["by chance"] = [1 / results[0].p_NK.shape[1]] * len(results)
    lengths = [result.length for result in results]
    write_length_chart(path, lengths, lines, x_label="bases of a window", y_label="accuracy")
