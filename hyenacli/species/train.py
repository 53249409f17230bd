"""`hyena classify-species train` as a function: windows of genomes, and which species they are of."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from hyenacli import __version__, console
from hyenacli.adaptation.evaluation_result import Judging, Yardstick, conclude, fit_yardstick
from hyenacli.adaptation.evaluator import Judge, Logits
from hyenacli.adaptation.losses import Criterion
from hyenacli.adaptation.methods import (
    METHOD_DEFAULTS,
    build_model,
    check_model,
    groups_of,
    in_words,
    loop_of,
    own_defaults,
    pool_of,
)
from hyenacli.adaptation.results import Closing
from hyenacli.adaptation.supervised import Supervised
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.distributed import current_ranks
from hyenacli.errors import UserError
from hyenacli.genome.names import abbreviate
from hyenacli.inference.batch_size import parse_batch_size
from hyenacli.species.genomes import SpeciesGenomes
from hyenacli.species.leakage import find_leakage
from hyenacli.species.settings import SpeciesTrainSettings
from hyenacli.species.splits import SpeciesSplits
from hyenacli.species.training_data import (
    SPLITS_FILE,
    HeldOut,
    K,
    SpeciesStream,
    bases_of,
    check_splits,
    fingerprints,
    open_run_genomes,
    scheme_of,
    split_run,
    write_splits,
)
from hyenacli.training.checkpoints import Progress
from hyenacli.training.curriculum import parse_curriculum
from hyenacli.training.gradients import barrier, process_group
from hyenacli.training.memory import BatchShape, MemoryPlan
from hyenacli.training.run_directory import Precision, TrainingRun, open_run
from hyenacli.training.run_metadata import METRICS
from hyenacli.training.signals import stop_on_signals
from hyenacli.training.tensorboard import check_tensorboard
from hyenacli.writers.atomic import check_run_directory
from hyenadna import HyenaDNA, load_model, model_sha256
from hyenadna.config import HeadConfig

METHODS = ["full", "head", "lora", "soft-prompt"]


@dataclass(frozen=True)
class SpeciesResult:
    """How a run ended.

    Attributes:
        metrics: what metrics.json says; empty after a signal.
        exit_code: 0, or 143 or 130 after a signal.
    """

    metrics: dict[str, Any]
    exit_code: int


def train_species(settings: SpeciesTrainSettings) -> SpeciesResult:
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
    genomes = open_run_genomes(settings)
    with process_group(device):
        return _Run(whole, genomes, device, precision).run()


def _with_defaults(settings: SpeciesTrainSettings) -> SpeciesTrainSettings:
    own, recipe = own_defaults(settings, METHODS), METHOD_DEFAULTS[settings.method]
    return replace(
        settings,
        lr=recipe.lr if settings.lr is None else settings.lr,
        weight_decay=recipe.weight_decay if settings.weight_decay is None else settings.weight_decay,
        **own,
    )


def _check_all_held_out(splits: SpeciesSplits, split: str) -> None:
    """Raise UserError where a split has some species only: what is chosen by it would mean nothing."""
    pairs = zip(splits.names, splits.intervals(split), strict=True)
    if lacking := [name for name, intervals in pairs if not intervals]:
        raise UserError(
            f"nothing of {abbreviate(lacking)} is held out for the {split} split, which others have",
            remedy=f"name {split} contigs of every species, or give --{split}-fraction",
        )


class _Run:
    """One run directory from its opening to the end of its training."""

    def __init__(
        self,
        settings: SpeciesTrainSettings,
        genomes: SpeciesGenomes,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self._settings, self._genomes, self._device, self._precision = settings, genomes, device, precision
        self._scheme = scheme_of(tuple(one.name for one in genomes.species))
        head = HeadConfig(
            self._scheme.task,
            self._scheme.n_outputs,
            self._scheme.names,
            pool=pool_of(settings),
            rc=settings.rc == "mean",
        )
        model = build_model(settings, head)
        self._window = settings.max_length or min(model.config.context, model.longest_input)
        model.config = replace(model.config, head=replace(head, window=self._window))
        self._model = model.to(device)
        self._curriculum = parse_curriculum(
            settings.length_warmup,
            length=self._window,
            windows=settings.global_batch_size,
            steps=settings.max_steps,
        )
        self._splits = split_run(settings, genomes, self._window)
        self._held = {
            split: HeldOut(self._splits, split, self._window, settings.eval_windows)
            for split in ("valid", "test")
            if any(self._splits.intervals(split))
        }
        if "valid" not in self._held:
            raise UserError("there is nothing to choose the model by", remedy="raise --valid-fraction")
        for split in self._held:
            _check_all_held_out(self._splits, split)
        self._shared = find_leakage(self._splits)
        self._warnings = self._shared.sentences()
        self._warnings += [text for held in self._held.values() for text in held.missing]

    def run(self) -> SpeciesResult:
        """Train, judge and report."""
        settings, model, stream = self._settings, self._model, SpeciesStream(self._settings, self._splits)
        for sentence in self._splits.notes:
            console.log.info("%s", sentence)
        for sentence in self._warnings:
            console.log.warning("%s", sentence)
        inputs = fingerprints(self._genomes)
        open_run(settings, inputs, self._device, splits=list(self._splits.notes))
        if settings.resume and (settings.output / SPLITS_FILE).exists():
            check_splits(settings.output, self._splits)
        elif current_ranks().first:
            write_splits(settings.output, self._splits)
        run = TrainingRun(
            settings,
            model,
            groups_of(settings, model),
            origin=self._origin(),
            precision=self._precision,
            device=self._device,
        )
        criterion = Criterion(self._scheme, None, ())
        task = Supervised(
            stream,
            criterion,
            predict=self._logits(self._held["valid"]),
            judge=self._held["valid"].judge,
            device=self._device,
        )
        with stop_on_signals() as stop:
            windows = -(-settings.global_batch_size // current_ranks().world_size)
            memory = run.plan(task, BatchShape(self._window, windows))
            plan = self._describe(memory, run.progress)
            console.log.info("%s", "\n".join(f"{name}: {text}" for name, text in plan.items()))
            loop = loop_of(settings, self._curriculum, settings.max_steps // 10, run.progress.micro_tokens)
            progress = run.train(task, loop, stop)
        if stop:
            console.log.warning("stopped after step %d, and saved; go on with --resume", progress.step)
            return SpeciesResult({}, stop.exit_code)
        judging = Judging(criterion, settings.seed, calibrated=True, offsets=True)
        return SpeciesResult(self._close(stream, judging, plan, progress), 0)

    def _close(
        self, stream: SpeciesStream, judging: Judging, plan: dict[str, str], progress: Progress
    ) -> dict[str, Any]:
        """Calibrate the best model, judge it on the windows that are held out, and write what it is worth."""
        settings = self._settings
        model = load_model(settings.output).to(self._device)
        held = self._held
        logits = {name: self._logits(some)(model) for name, some in held.items()}
        if current_ranks().first:
            judges = {name: some.judge for name, some in held.items()}
            outcome = conclude(model, judges, logits, judging)
            if not settings.no_baseline:
                outcome = replace(outcome, yardstick=self._yardstick(stream, held))
            notes = {f"split of {note.split(':')[0]}": note.split(": ", 1)[1] for note in self._splits.notes}
            closing = Closing(
                settings.output,
                "species",
                self._scheme,
                plan | notes,
                progress,
                self._warnings,
                self._origin(),
                sections=[self._shared.to_html()],
            )
            closing.keep_calibrated(model, outcome)
            about = {
                "task": "species",
                "labels": list(self._scheme.names),
                "window": self._window,
                "model_sha256": model_sha256(model),
                "leakage": self._shared.to_json(),
            }
            closing.write(outcome, about)
        barrier()
        said: dict[str, Any] = json.loads((settings.output / METRICS).read_text())
        return said

    def _logits(self, held: HeldOut) -> Callable[[HyenaDNA], list[Logits]]:
        return partial(
            held.logits, rc=self._settings.rc == "mean", precision=self._precision, device=self._device
        )

    def _yardstick(self, stream: SpeciesStream, held: dict[str, HeldOut]) -> Yardstick:
        seen = stream.to_fit(self._window)
        judges = {"train": Judge(self._scheme, list(seen.targets))}
        judges |= {name: some.judge for name, some in held.items()}
        sequences = {"train": bases_of(seen.inputs)} | {name: some.sequences for name, some in held.items()}
        return fit_yardstick(judges, sequences, self._settings.seed, lengths=(K,))

    def _origin(self) -> dict[str, object]:
        return {
            "made_by": f"hyena classify-species train {__version__}",
            "model": self._settings.model,
            "species": {one.name: [path.name for path in one.fasta] for one in self._genomes.species},
        }

    def _describe(self, memory: MemoryPlan, progress: Progress) -> dict[str, str]:
        settings, curriculum, ranks = self._settings, self._curriculum, current_ranks().world_size
        left = memory.duration(settings.global_batch_size, curriculum.steps - progress.step, ranks)
        return {
            "species": ", ".join(self._scheme.names),
            "model": in_words(settings, self._model),
            "training": f"{curriculum.steps:,} steps of {settings.global_batch_size} windows of "
            f"{self._window:,} bases, every species as often",
            "device": f"{ranks} x {self._device.type}, {memory.windows} windows at once",
            "time": f"about {left}, evaluations not counted",
        }
