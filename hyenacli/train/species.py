"""`hyena classify-species train` as a function: windows of genomes, and which species they are of.

N window, W base of one, L token, B example.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hyenacli import __version__, console
from hyenacli.config import SpeciesTrainConfig
from hyenacli.data.labels import LabelScheme
from hyenacli.data.species import SpeciesGenomes, open_species, read_species
from hyenacli.data.species_leakage import find_shared
from hyenacli.data.species_splits import split_species, use_published_splits
from hyenacli.data.species_windows import SpeciesSampler, SpeciesWindows, fixed_species_windows
from hyenacli.data.store import Tokens, plain_tokens
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.errors import UserError
from hyenacli.ranks import current_ranks
from hyenacli.score.batch_size import parse_batch_size
from hyenacli.score.predict import predict
from hyenacli.score.stretches import Stretch
from hyenacli.train.adapt import RECIPES, build_model, check_model, method_of, own_defaults
from hyenacli.train.calibration import Calibration, calibrate
from hyenacli.train.checkpoints import Checkpoints, Progress
from hyenacli.train.criterion import Criterion
from hyenacli.train.curriculum import Curriculum, parse_curriculum
from hyenacli.train.distributed import barrier, process_group
from hyenacli.train.finetune_report import in_words, write_report
from hyenacli.train.judge import Judge, Logits
from hyenacli.train.labelled_examples import Host, read_tokens
from hyenacli.train.loop import LoopSettings
from hyenacli.train.memory import Load, MemoryPlan
from hyenacli.train.outcome import METRICS, Outcome, fit_yardstick, scale_logits, score
from hyenacli.train.record import add_to_record, write_json
from hyenacli.train.session import Precision, TrainingRun, open_run
from hyenacli.train.signals import stop_on_signals
from hyenacli.train.supervised import Supervised, predict_in_shares
from hyenacli.train.tensorboard import check_tensorboard
from hyenacli.writers.atomic import check_run_directory
from hyenadna import HyenaDNA, load_model, model_sha256
from hyenadna.adapters.methods import trainable_parameters
from hyenadna.config import HeadConfig, Pool, Task

METHODS = ["full", "head", "lora", "soft-prompt"]
K = 6
# The k-mer model is fitted to at most so many windows, and so many bases.
_FITTED, _FITTED_BASES = 4_000, 1 << 25
_LETTERS = np.full(256, ord("N"), np.uint8)


@dataclass(frozen=True)
class SpeciesResult:
    """How a run ended.

    Attributes:
        metrics: what metrics.json says; empty after a signal.
        exit_code: 0, or 143 or 130 after a signal.
    """

    metrics: dict[str, Any]
    exit_code: int


class SpeciesStream:
    """Windows of all species in turn; see `Stream`."""

    def __init__(self, sampler: SpeciesSampler) -> None:
        self._sampler = sampler

    def read(self, numbers: range, length: int) -> Host:
        """Windows of `length` bases, as tokens (N, W), and their species (N,)."""
        codes_NW, labels_N = self._sampler.rows(numbers, length)
        return Host(plain_tokens(codes_NW), labels_N)

    def outputs(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """The logits (B, K) of windows."""
        return read_tokens(model, inputs)


def train_species(settings: SpeciesTrainConfig) -> SpeciesResult:
    """Train a model to tell species apart, and leave a run directory.

    Raises:
        UserError: anything wrong with the flags, the genomes, the model or the training itself.
    """
    set_threads(settings.threads)
    device = resolve_device(settings.device)
    precision = partial(autocast, device, settings.dtype)
    precision()  # refuses an unknown dtype before anything is read
    whole = _with_defaults(settings)
    parse_batch_size(str(settings.micro_batch_size), "--micro-batch-size")
    if settings.tensorboard:
        check_tensorboard()
    check_run_directory(settings.output, resume=settings.resume, force=settings.force)
    check_model(settings.model)
    species = read_species(settings.species_file, settings.species or ())
    genomes = open_species(species)
    if settings.published_splits:
        genomes = use_published_splits(genomes)
    with process_group(device):
        return _Run(whole, genomes, device, precision).run()


def _with_defaults(settings: SpeciesTrainConfig) -> SpeciesTrainConfig:
    own, recipe = own_defaults(settings, METHODS), RECIPES[settings.method]
    return replace(
        settings,
        lr=recipe.lr if settings.lr is None else settings.lr,
        weight_decay=recipe.weight_decay if settings.weight_decay is None else settings.weight_decay,
        **own,
    )


class _Run:
    """One run directory from its opening to its report."""

    def __init__(
        self,
        settings: SpeciesTrainConfig,
        genomes: SpeciesGenomes,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self._settings, self._genomes, self._device, self._precision = settings, genomes, device, precision
        names = tuple(one.name for one in genomes.species)
        task: Task = "binary" if len(names) == 2 else "multiclass"
        self._scheme = LabelScheme(task, "sequence", names)
        self._criterion = Criterion(self._scheme, None, ())
        pool: Pool = "last" if settings.pool == "last" else "max" if settings.pool == "max" else "mean"
        head = HeadConfig(task, len(names), names, pool=pool, rc=settings.rc == "mean")
        model = build_model(settings, head)
        self._window = settings.max_length or min(model.config.context, model.longest_input)
        model.config = replace(model.config, head=replace(head, window=self._window))
        self._model = model.to(device)
        self._splits = split_species(
            genomes,
            valid=settings.valid_fraction,
            test=settings.test_fraction,
            window=self._window,
            seed=settings.seed,
        )
        self._held = {split: self._windows(split) for split in ("valid", "test")}
        self._warnings = find_shared(self._splits).sentences()
        self._warnings += [text for windows in self._held.values() for text in windows.missing]

    def run(self) -> SpeciesResult:
        """Train, judge and report."""
        settings, model = self._settings, self._model
        for sentence in (*self._splits.notes,):
            console.log.info("%s", sentence)
        for sentence in self._warnings:
            console.log.warning("%s", sentence)
        inputs = [genome.fingerprint() for genomes in self._genomes.genomes for genome in genomes]
        open_run(settings, inputs, self._device, splits=list(self._splits.notes))
        curriculum = parse_curriculum(
            settings.length_warmup,
            length=self._window,
            windows=settings.global_batch_size,
            steps=settings.max_steps,
        )
        groups = trainable_parameters(
            model, method_of(settings), lr=settings.lr or 0.0, weight_decay=settings.weight_decay or 0.0
        )
        run = TrainingRun(
            settings,
            model,
            groups,
            origin=self._origin(),
            precision=self._precision,
            device=self._device,
        )
        task = Supervised(
            SpeciesStream(self._sampler()),
            self._criterion,
            predict=partial(self._predict, split="valid"),
            judge=self._judge("valid"),
            device=self._device,
        )
        with stop_on_signals() as stop:
            windows = -(-settings.global_batch_size // current_ranks().world_size)
            memory = run.plan(task, Load(self._window, windows))
            plan = self._describe(curriculum, memory, run.progress)
            console.log.info("%s", "\n".join(f"{name}: {text}" for name, text in plan.items()))
            progress = run.train(task, self._loop(curriculum, run.progress.micro_tokens), stop)
        if stop:
            console.log.warning("stopped after step %d, and saved; go on with --resume", progress.step)
            return SpeciesResult({}, stop.exit_code)
        return SpeciesResult(self._close(progress, plan), 0)

    def _sampler(self) -> SpeciesSampler:
        return SpeciesSampler(
            self._splits.contigs,
            self._splits.intervals("train"),
            self._settings.seed,
            rc_augment=self._settings.rc_augment,
        )

    def _windows(self, split: str) -> SpeciesWindows:
        held = fixed_species_windows(self._splits, split, self._window, self._settings.eval_windows)
        if split == "valid" and not len(held.labels_N):
            raise UserError("there is nothing to choose the model by", remedy="raise --valid-fraction")
        return held

    def _judge(self, split: str) -> Judge:
        return Judge(self._scheme, list(self._held[split].labels_N))

    def _predict(self, model: HyenaDNA, split: str) -> list[Logits]:
        """What a model says of the windows of a split; the same on every rank."""
        tokens_NW = self._held[split].tokens_NW
        rc = self._settings.rc == "mean"

        def way(model: HyenaDNA, places: Sequence[int]) -> list[Logits]:
            stretches = (window_stretch(tokens_NW[i]) for i in places)
            return [one.logits for one in predict(model, stretches, rc=rc) if one.logits is not None]

        model.eval()
        with torch.inference_mode(), self._precision():
            places = range(len(tokens_NW))
            return predict_in_shares(way, model, places, [0] * len(places), self._device)

    def _close(self, progress: Progress, plan: dict[str, str]) -> dict[str, Any]:
        """Calibrate the best model, judge it on the test windows, and write what it is worth."""
        settings, directory = self._settings, self._settings.output
        model = load_model(directory).to(self._device)
        names = [split for split, held in self._held.items() if len(held.labels_N)]
        logits = {split: self._predict(model, split) for split in names}
        said: dict[str, Any] = {}
        if current_ranks().first:
            judges = {split: self._judge(split) for split in names}
            found = calibrate(
                self._scheme.task, judges["valid"].stacked(logits["valid"]), judges["valid"].targets
            )
            scale_logits(model, found.temperature)
            origin = {**self._origin(), "temperature": found.temperature}
            Checkpoints(directory, settings.keep, origin).put_best("calibrated", model)
            splits = {
                split: score(
                    judge,
                    [one / found.temperature for one in logits[split]],
                    self._criterion,
                    settings.seed,
                )
                for split, judge in judges.items()
            }
            facts = {"steps": progress.step, "best_step": progress.best_step, "seconds": progress.seconds}
            outcome = Outcome(splits, None, found, self._warnings, facts)
            if not settings.no_baseline:
                outcome = replace(outcome, yardstick=self._yardstick(judges))
            said = self._write(outcome, plan, found, model_sha256(model))
        barrier()
        return said

    def _yardstick(self, judges: dict[str, Judge]) -> Any:
        count = fitted_windows(self._window, len(self._scheme.names))
        codes_NW, labels_N = self._sampler().rows(range(count), self._window)
        windows = {"train": plain_tokens(codes_NW)} | {split: self._held[split].tokens_NW for split in judges}
        sequences = {split: [bases_of(row) for row in rows] for split, rows in windows.items()}
        all_judges = {"train": Judge(self._scheme, list(labels_N)), **judges}
        return fit_yardstick(all_judges, sequences, self._settings.seed, lengths=(K,))

    def _write(
        self, outcome: Outcome, plan: dict[str, str], found: Calibration, sha256: str
    ) -> dict[str, Any]:
        directory = self._settings.output
        facts = plan | {"best step": f"{outcome.facts['best_step']:,} of {outcome.facts['steps']:,}"}
        notes = {f"split of {text.split(':')[0]}": text.split(": ", 1)[1] for text in self._splits.notes}
        title = f"{directory.resolve().name}: species"
        write_report(directory, title, facts | notes, self._scheme, outcome)
        said = {
            "task": "species",
            "labels": list(self._scheme.names),
            "window": self._window,
            "model_sha256": sha256,
            **outcome.facts,
            "splits": {name: scored.to_json() for name, scored in outcome.splits.items()},
            "kmer_baseline": outcome.yardstick.to_json() if outcome.yardstick else None,
            "calibration": {"temperature": found.temperature, "valid_loss": found.loss},
            "warnings": self._warnings,
        }
        add_to_record(directory, plan=plan, result=outcome.facts)
        write_json(directory / METRICS, said)
        for split, scored in outcome.splits.items():
            console.log.info("%s", in_words(split, scored))
        console.log.info("wrote %s", directory / "report.html")
        return said

    def _origin(self) -> dict[str, object]:
        return {
            "made_by": f"hyena classify-species train {__version__}",
            "model": self._settings.model,
            "species": {one.name: [path.name for path in one.fasta] for one in self._genomes.species},
        }

    def _loop(self, curriculum: Curriculum, micro_tokens: int) -> LoopSettings:
        settings = self._settings
        lr = settings.lr or 0.0
        every = settings.eval_every or max(1, settings.max_steps // 10)
        return LoopSettings(
            curriculum=curriculum,
            micro_tokens=micro_tokens,
            lr=lr,
            min_lr=lr / 10,
            warmup=min(settings.max_steps // 4, max(10, settings.max_steps // 100)),
            grad_clip=settings.grad_clip,
            eval_every=every,
            save_every=every,
            seed=settings.seed,
            patience=settings.patience,
        )

    def _describe(self, curriculum: Curriculum, memory: MemoryPlan, progress: Progress) -> dict[str, str]:
        settings, model = self._settings, self._model
        free = sum(p.numel() for p in model.parameters() if p.requires_grad)
        passes = -(-settings.global_batch_size // memory.windows) * (curriculum.steps - progress.step)
        left = dt.timedelta(seconds=round(memory.seconds * passes / current_ranks().world_size))
        return {
            "species": ", ".join(self._scheme.names),
            "model": f"{settings.model}: width {model.config.d_model}, layers {model.config.n_layer}, "
            f"{model.n_parameters:,} parameters, {free:,} of them trained ({settings.method})",
            "training": f"{curriculum.steps:,} steps of {settings.global_batch_size} windows of "
            f"{self._window:,} bases, every species as often",
            "device": f"{current_ranks().world_size} x {self._device.type}, {memory.windows} windows at once",
            "time": f"about {left}, evaluations not counted",
        }


def fitted_windows(window: int, species: int) -> int:
    """How many windows of so many bases the k-mer model is fitted to."""
    return max(10 * species, min(_FITTED, _FITTED_BASES // window))


def bases_of(tokens_W: Tokens) -> bytes:
    """The bases of token ids.

    >>> bases_of(np.array([7, 8, 9, 10, 11], np.uint8))
    b'ACGTN'
    """
    return _LETTERS[tokens_W].tobytes()


_LETTERS[[7, 8, 9, 10]] = np.frombuffer(b"ACGT", np.uint8)


def window_stretch(tokens_W: Tokens) -> Stretch:
    """A window as what predictions are made of."""
    return Stretch("", "", 0, len(tokens_W), bases=bases_of(tokens_W))
