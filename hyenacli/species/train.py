"""`hyena classify-species train` as a function: windows of genomes, and which species they are of."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hyenacli import __version__, console
from hyenacli.adaptation.baseline import fit_kmer_baseline, markov_baseline
from hyenacli.adaptation.evaluation import (
    Baseline,
    EvaluationConfig,
    Logits,
    SplitEvaluator,
    predict_over_ranks,
)
from hyenacli.adaptation.examples import Criterion, HostBatch, apply_head
from hyenacli.adaptation.labels import LabelScheme
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
from hyenacli.evaluation.markov import MarkovClassifier, fit_markov, informative_orders
from hyenacli.genome.contigs import match_contigs, parse_circular
from hyenacli.inference.batching import parse_batch_size
from hyenacli.inference.intervals import SPLITS
from hyenacli.inference.prediction import Predicted, predict
from hyenacli.readers.genome import Tokens, plain_tokens
from hyenacli.readers.records import SequenceRecord
from hyenacli.species.genomes import SpeciesGenomes, open_run_genomes
from hyenacli.species.leakage import find_leakage
from hyenacli.species.predict import species_head, species_options
from hyenacli.species.settings import SpeciesTrainSettings
from hyenacli.species.splits import (
    SPLITS_FILE,
    SpeciesSampler,
    SpeciesSplits,
    check_splits,
    fixed_species_windows,
    split_run,
    write_splits,
)
from hyenacli.training.curriculum import parse_curriculum
from hyenacli.training.metric_loggers import check_tensorboard
from hyenacli.training.run_directory import reserve_run
from hyenacli.training.training_run import BatchShape
from hyenadna import HyenaDNA

# The k-mer model is fitted to at most this many windows, and this many bases.
MAX_BASELINE_WINDOWS, _MAX_BASELINE_BASES = 4_000, 1 << 25
_LETTERS = np.full(256, ord("N"), np.uint8)
_LETTERS[[7, 8, 9, 10]] = np.frombuffer(b"ACGT", np.uint8)


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

    def report_sections(self) -> list[str]:
        """Return what held-out splits share with training splits."""
        return [self._leakage.to_html()]

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


def fit_species_markov(splits: SpeciesSplits, window: int) -> MarkovClassifier:
    """Fit Markov models to both strands of all training bases of each species."""
    bases = [sum(map(len, intervals)) for intervals in splits.intervals("train")]
    console.log.info("fitting Markov models to %s bases", f"{sum(bases):,}")
    orders = informative_orders(max(bases))
    genomes = (splits.training_bases(label, orders[-1]) for label in range(len(splits.names)))
    return fit_markov(genomes, orders, window)


def scheme_of(names: tuple[str, ...]) -> LabelScheme:
    """Return species as the classes of a label scheme."""
    return LabelScheme("binary" if len(names) == 2 else "multiclass", "sequence", names)


class SpeciesSource:
    """Training windows of all species in equal numbers, of `window` bases at most; an `ExampleSource`.

    Raises:
        UsageError: --circular names a contig that no species has.
    """

    def __init__(self, settings: SpeciesTrainSettings, splits: SpeciesSplits, window: int) -> None:
        names = list(dict.fromkeys(contig.name for contig in splits.contigs))
        contigs = match_contigs(
            (), names, style="exact", aliases={}, input_name="--circular", genome_name="the genomes"
        )
        self._sampler = SpeciesSampler(
            splits.contigs,
            splits.intervals("train"),
            settings.seed,
            rc_augment=settings.rc_augment,
            circles=parse_circular(settings.circular, contigs)
            | {contig.name for contig in splits.contigs if contig.circular},
            window=window,
        )
        self._species = len(splits.names)

    def read(self, numbers: range, length: int) -> HostBatch:
        """Read windows of `length` bases by their numbers, as tokens (N, W), and their species (N,)."""
        codes_NW, labels_N = self._sampler.rows(numbers, length)
        return HostBatch(plain_tokens(codes_NW), labels_N)

    def outputs(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Compute the logits (B, K) of windows."""
        return apply_head(model, inputs)

    def baseline_windows(self, length: int, count: int) -> HostBatch:
        """Read the windows that the k-mer model is fitted to: `count`, or fewer where they are long."""
        return self.read(range(max(10 * self._species, min(count, _MAX_BASELINE_BASES // length))), length)


class HeldOut:
    """Windows of a split, the same count of every species where there are as many.

    Args:
        split: valid or test.
        length: bases of a window.
        per_species: how many.

    Attributes:
        labels_N: indices of their species in the label set.
        missing: a sentence for each species that has fewer.
    """

    def __init__(self, splits: SpeciesSplits, split: str, length: int, per_species: int) -> None:
        windows = fixed_species_windows(splits, split, length, per_species)
        self._tokens_NW, self._length = windows.tokens_NW, length
        self.labels_N, self.missing = windows.labels_N, windows.missing
        self._scheme = scheme_of(splits.names)

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self._tokens_NW)

    @cached_property
    def evaluator(self) -> SplitEvaluator:
        """The species of each; there is at least one window."""
        return SplitEvaluator(self._scheme, list(self.labels_N))

    @property
    def sequences(self) -> list[bytes]:
        """The bases of each."""
        return bases_of(self._tokens_NW)

    def logits(
        self,
        model: HyenaDNA,
        *,
        rc: bool,
        precision: Callable[[], AbstractContextManager[Any]],
        device: torch.device,
    ) -> list[Logits]:
        """Compute a model's logits (K,) of each window as `predict` does; the same on every rank."""

        def compute(model: HyenaDNA, indices: Sequence[int]) -> list[Logits]:
            answers = self.answers(model, indices, rc=rc)
            return [answer.logits for answer in answers if answer.logits is not None]

        model.eval()
        with torch.inference_mode(), precision():
            return predict_over_ranks(compute, model, range(len(self)), [0] * len(self), device)

    def answers(self, model: HyenaDNA, indices: Sequence[int], *, rc: bool) -> Iterator[Predicted]:
        """Predict some windows as `hyena classify-species predict` does, without experts."""
        sequences = bases_of(self._tokens_NW[list(indices)])
        records = (SequenceRecord.of_sequence("", bases) for bases in sequences)
        return predict(model, records, species_options(species_head(model), rc=rc))


def bases_of(tokens_NW: Tokens) -> list[bytes]:
    """Return the bases of token ids.

    >>> bases_of(np.array([[7, 8, 9, 10, 11]], np.uint8))
    [b'ACGTN']
    """
    return [row_W.tobytes() for row_W in _LETTERS[tokens_NW]]
