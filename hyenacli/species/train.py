"""`hyena classify-species train` as a function: windows of genomes, and which species they are of."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from hyenacli import __version__, console
from hyenacli.adaptation.baseline import fit_kmer_baseline, markov_baseline
from hyenacli.adaptation.evaluation import (
    Baseline,
    EvaluationConfig,
    EvaluationResult,
    Logits,
    PieceJoint,
    SplitEvaluator,
)
from hyenacli.adaptation.examples import Criterion
from hyenacli.adaptation.methods import (
    build_model,
    check_model,
    describe_model,
    head_config,
    with_method_defaults,
)
from hyenacli.adaptation.run import AdaptationRun, RunResult, evaluate_run
from hyenacli.devices import resolve_device, set_threads
from hyenacli.distributed import current_ranks, process_group
from hyenacli.errors import UsageError, UserError, abbreviate
from hyenacli.evaluation.kmers import KmerFeatures
from hyenacli.inference.batching import parse_batch_size
from hyenacli.inference.intervals import SPLITS
from hyenacli.species.experts import fit_piece_joint, fit_species_markov, held_out_pieces, pieces_table
from hyenacli.species.genomes import SpeciesGenomes, open_run_genomes
from hyenacli.species.leakage import find_leakage
from hyenacli.species.settings import SpeciesTrainSettings
from hyenacli.species.splits import SPLITS_FILE, SpeciesSplits, check_splits, split_run, write_splits
from hyenacli.species.windows import MAX_BASELINE_WINDOWS, HeldOut, SpeciesSource, bases_of, scheme_of
from hyenacli.training.curriculum import parse_curriculum
from hyenacli.training.metric_loggers import check_tensorboard
from hyenacli.training.run_directory import reserve_run
from hyenacli.training.training_run import BatchShape
from hyenadna import HyenaDNA


def run(settings: SpeciesTrainSettings) -> int:
    """Train, and return the exit code: 128 + signal if one ended the run after a checkpoint."""
    return train_species(settings).exit_code


def train_species(settings: SpeciesTrainSettings, baseline_windows: int = MAX_BASELINE_WINDOWS) -> RunResult:
    """Train a model to tell species apart, and leave a run directory.

    Args:
        settings: of the command.
        baseline_windows: most windows that the k-mer model is fitted to.

    Raises:
        UserError: anything wrong with the flags, the genomes, the model or the training itself.
    """
    set_threads(settings.threads)
    device = resolve_device(settings.device)
    filled = with_method_defaults(settings, ("lr", "weight_decay"))
    parse_batch_size(str(settings.micro_batch_size), "--micro-batch-size")
    if settings.tensorboard:
        check_tensorboard()
    if settings.experts == "kmers" and settings.no_baseline:
        what = "joins the k-mer model, which --no-baseline leaves out"
        raise UsageError(what, at="--experts", remedy="leave it out, or take --experts markov")
    with reserve_run(settings):
        check_model(settings.model)
        genomes = open_run_genomes(settings)
        with process_group(device):
            return SpeciesRun(filled, genomes, device, baseline_windows).run()


def _check_all_held_out(splits: SpeciesSplits, split: str) -> None:
    """Raise UserError where a split lacks species: nothing could be chosen by it."""
    pairs = zip(splits.names, splits.intervals(split), strict=True)
    if lacking := [name for name, intervals in pairs if not intervals]:
        raise UserError(
            f"nothing of {abbreviate(lacking)} is held out for the {split} split, which others have",
            remedy=f"name {split} contigs of every species, or give --{split}-fraction",
        )


class SpeciesRun(AdaptationRun):
    """One training of a species classifier.

    Args:
        settings: with the method's defaults; its output is the run's directory.
        baseline_windows: most windows that the k-mer model is fitted to.

    Raises:
        UserError: the model or the splits do not fit the settings.
    """

    kind = "species"
    unit = "windows"
    settings: SpeciesTrainSettings

    def __init__(
        self,
        settings: SpeciesTrainSettings,
        genomes: SpeciesGenomes,
        device: torch.device,
        baseline_windows: int,
    ) -> None:
        scheme = scheme_of(tuple(species.name for species in genomes.species))
        super().__init__(settings, scheme, Criterion(scheme), device)
        self.experts = settings.experts
        head = head_config(settings, scheme)
        model = build_model(settings, head)
        self._window = settings.max_length or min(model.config.context, model.longest_input)
        model.config = replace(model.config, head=replace(head, window=self._window, average_windows=True))
        self._model, self._genomes = model.to(device), genomes
        self._curriculum = parse_curriculum(
            settings.length_warmup,
            length=self._window,
            windows=settings.global_batch_size,
            steps=settings.max_steps,
        )
        self._splits = split_run(settings, genomes, self._window)
        self._source = SpeciesSource(settings, self._splits, self._window)
        self._baseline_windows = baseline_windows
        self._held_out = {
            split: HeldOut(self._splits, split, self._window, settings.eval_windows)
            for split in ("valid", "test")
            if any(self._splits.intervals(split))
        }
        if "valid" not in self._held_out:
            raise UserError("there is nothing to choose the model by", remedy="raise --valid-fraction")
        self._pieces = (
            {}
            if self.experts == "none"
            else held_out_pieces(self._splits, self._window, settings.eval_windows)
        )
        for split in self._held_out:
            _check_all_held_out(self._splits, split)
        self._leakage = find_leakage(self._splits)
        missing = [text for windows in self._held_out.values() for text in windows.missing]
        self.warnings = [*self._leakage.sentences(), *missing]

    def run(self) -> RunResult:
        """Train and evaluate, and leave a run directory.

        Raises:
            UserError: the directory is another run's; or as `AdaptationRun.train`.
        """
        settings, splits = self.settings, self._splits
        for sentence in splits.notes:
            console.log.info("%s", sentence)
        for sentence in self.warnings:
            console.log.warning("%s", sentence)
        training = self.open(self._model, self._genomes.fingerprints(), splits=list(splits.notes))
        if settings.resume and (settings.output / SPLITS_FILE).exists():
            check_splits(settings.output, splits)
        elif current_ranks().first:
            write_splits(settings.output, splits)
        plan = {
            "species": ", ".join(self.scheme.names),
            "model": describe_model(settings, self._model),
            "training": f"{self._curriculum.steps:,} steps of {settings.global_batch_size} windows of "
            f"{self._window:,} bases, equally many of each species",
        }
        batch, every = BatchShape(self._window, settings.global_batch_size), settings.max_steps // 10
        result = self.train(training, self._source, self._curriculum, batch, every, plan)
        if result.exit_code:
            return RunResult({}, result.exit_code)
        notes = {f"split of {note.split(':')[0]}": note.split(": ", 1)[1] for note in splits.notes}
        return RunResult(evaluate_run(self, replace(result, plan=result.plan | notes), SPLITS))

    def origin(self) -> dict[str, Any]:
        """Return what checkpoints say of where they come from."""
        return {
            "made_by": f"hyena classify-species train {__version__}",
            "model": self.settings.model,
            "species": {
                species.name: [path.name for path in species.fasta] for species in self._genomes.species
            },
        }

    def facts(self) -> dict[str, Any]:
        """Return what metrics.json says before the metrics."""
        return {
            "task": "species",
            "labels": list(self.scheme.names),
            "window": self._window,
            "leakage": self._leakage.to_json(),
        }

    def report_sections(self, evaluation: EvaluationResult) -> list[str]:
        """Return what is joined on long contigs, and what held-out splits share with training splits."""
        return [*pieces_table(self._window, evaluation), self._leakage.to_html()]

    def evaluation_config(self) -> EvaluationConfig:
        """Return the choices of the evaluation at the end."""
        return EvaluationConfig(self.criterion, self.settings.seed, calibrate=True, offsets=True)

    @property
    def evaluators(self) -> Mapping[str, SplitEvaluator]:
        """The species of the windows of every held-out split."""
        return {split: windows.evaluator for split, windows in self._held_out.items()}

    def predict_split(self, model: HyenaDNA, split: str) -> list[Logits]:
        """Compute a model's logits of the windows of a split; the same on every rank."""
        return self._held_out[split].logits(
            model, rc=self.settings.rc == "mean", precision=self.precision, device=self.device
        )

    def predict_pieces(self, model: HyenaDNA) -> dict[int, list[Logits]]:
        """Compute a model's logits of the validation pieces of each length; the same on every rank."""
        rc = self.settings.rc == "mean"
        if self._pieces:
            console.log.info("reading pieces of %s bases", ", ".join(f"{n:,}" for n in self._pieces))
        return {
            length: pieces.logits(model, rc=rc, precision=self.precision, device=self.device)
            for length, pieces in self._pieces.items()
        }

    def fit_pieces(
        self, experts: Sequence[Baseline], logits: Mapping[int, list[Logits]]
    ) -> dict[int, PieceJoint]:
        """Fit what joins the network on pieces of each length."""
        return {
            length: fit_piece_joint(
                experts,
                self._pieces[length],
                logits[length],
                self._source.baseline_windows(length, self._baseline_windows),
                always=self.experts != "auto",
            )
            for length in logits
        }

    def fit_baselines(self, both_strands: bool) -> list[Baseline]:  # noqa: ARG002
        """Fit the k-mer model to training windows, and Markov models to all training bases.

        Both count the strands alike: windows of a genome begin anywhere.
        """
        config, baselines = self.evaluation_config(), []
        sequences = {split: windows.sequences for split, windows in self._held_out.items()}
        if self.settings.experts in ("auto", "markov"):
            model = fit_species_markov(self._splits, self._window)
            baselines.append(markov_baseline(model, self.evaluators, sequences, config))
        if not self.settings.no_baseline:
            train = self._source.baseline_windows(self._window, self._baseline_windows)
            evaluators = {"train": SplitEvaluator(self.scheme, list(train.targets)), **self.evaluators}
            sequences = {"train": bases_of(train.inputs)} | sequences
            baselines.append(fit_kmer_baseline(evaluators, sequences, config, KmerFeatures()))
        return baselines
