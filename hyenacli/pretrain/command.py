"""`hyena pretrain`: read genomes, split them, train, report."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hyenacli import __version__, console
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.distributed import Stop, current_ranks, process_group, stop_on_signals
from hyenacli.errors import UsageError
from hyenacli.inference.batching import parse_batch_size
from hyenacli.pretrain.corpus import Corpus, open_corpus
from hyenacli.pretrain.language_model import DEFAULT_PRESET, NextNucleotide, build_model, share_windows
from hyenacli.pretrain.report import best_order, write_report
from hyenacli.pretrain.settings import PretrainSettings
from hyenacli.readers.genome import fingerprint
from hyenacli.training.checkpoints import Progress
from hyenacli.training.curriculum import Curriculum, parse_curriculum
from hyenacli.training.loop import LoopSettings
from hyenacli.training.memory import BatchShape, MemoryPlan
from hyenacli.training.metric_loggers import check_tensorboard
from hyenacli.training.run_directory import add_to_record, check_run_directory, open_run
from hyenacli.training.training_run import Precision, TrainingRun
from hyenadna import HyenaDNA


@dataclass(frozen=True)
class PretrainResult:
    """Result of a run.

    Attributes:
        progress: steps, tokens, seconds, last and best loss on the held-out windows, in nats per base.
        markov: loss of Markov models of order 0, 1, ... on the same windows; empty if there are none, or
            after a signal.
        exit_code: 0, or 143 or 130 after a signal.
    """

    progress: Progress
    markov: list[float]
    exit_code: int


def run(settings: PretrainSettings) -> int:
    """Pretrain, and return the exit code: 143 or 130 if a signal ended the run after a checkpoint."""
    return pretrain(settings).exit_code


def pretrain(settings: PretrainSettings) -> PretrainResult:
    """Pretrain a model and write its run directory.

    Raises:
        UserError: anything wrong with the inputs, the splits, the run directory or the training itself.
    """
    set_threads(settings.threads)
    device = resolve_device(settings.device)
    precision = functools.partial(autocast, device, settings.dtype)
    parse_batch_size(str(settings.micro_batch_size), "--micro-batch-size")
    _check_rates(settings)
    if settings.tensorboard:
        check_tensorboard()
    check_run_directory(settings.output, resume=settings.resume, force=settings.force)
    model = build_model(settings)
    length = settings.max_length or model.config.context
    curriculum = parse_curriculum(
        settings.length_warmup, length=length, windows=settings.global_batch_size, steps=settings.max_steps
    )
    if settings.length_warmup and len(curriculum.stages) == 1:
        console.log.warning("no length warm-up: there is no shorter stage, or no step for one")
    corpus = open_corpus(settings, length)
    run = _Run(settings, corpus, curriculum, device)
    with process_group(device):
        share_windows(model, settings.context_parallel)
        run.open()
        progress, stop = run.train(model.to(device), precision)
    markov: list[float] = []
    if current_ranks().first:
        # a batch system gives a process seconds to end after a signal
        markov = [] if stop else corpus.markov(rc=settings.rc_augment)
        run.close(progress, markov, stop)
    return PretrainResult(progress, markov, stop.exit_code)


def _check_rates(settings: PretrainSettings) -> None:
    lowest = 0.0 if settings.min_lr is None else settings.min_lr
    if not 0 <= lowest <= settings.lr < math.inf:
        raise UsageError(
            f"--lr {settings.lr:g} and --min-lr {lowest:g}", remedy="give 0 <= --min-lr <= --lr, finite"
        )


class _Run:
    """One run directory from its opening to its report."""

    def __init__(
        self, settings: PretrainSettings, corpus: Corpus, curriculum: Curriculum, device: torch.device
    ):
        self._settings, self._corpus, self._curriculum = settings, corpus, curriculum
        self._device = device
        self._plan: dict[str, str] = {}

    def open(self) -> None:
        """Create the run directory; of a resumption, check that it is the same run."""
        inputs = [genome.fingerprint() for genome in self._corpus.genomes]
        inputs += [fingerprint(self._settings.intervals)] if self._settings.intervals else []
        open_run(self._settings, inputs, self._device)

    def train(self, model: HyenaDNA, precision: Precision) -> tuple[Progress, Stop]:
        """Train to the end or to a signal."""
        settings = self._settings
        groups = model.parameter_groups(settings.lr, settings.weight_decay)
        run = TrainingRun(
            settings, model, groups, origin=self._origin(), precision=precision, device=self._device
        )
        with stop_on_signals() as stop:
            windows = -(-settings.global_batch_size // self._replicas())
            shape = BatchShape(self._curriculum.target.length, windows, settings.context_parallel)
            memory = run.plan(self._objective(batch_size=1), shape)
            self._plan = self._describe(model, memory, run.progress)
            console.log.info("%s", "\n".join(f"{name}: {text}" for name, text in self._plan.items()))
            loop = loop_settings(settings, self._curriculum, self._device, run.progress.micro_tokens)
            return run.train(self._objective(batch_size=memory.windows), loop, stop, bits=True), stop

    def _objective(self, batch_size: int) -> NextNucleotide:
        return NextNucleotide(
            self._corpus.sampler,
            self._corpus.valid_NW,
            batch_size=batch_size,
            device=self._device,
            soft_mask_weight=self._settings.soft_mask_weight,
        )

    def close(self, progress: Progress, markov: Sequence[float], stop: Stop) -> None:
        """Write the result to run.json, and the report."""
        facts = {
            "steps": progress.step,
            "tokens": progress.tokens,
            "seconds": round(progress.seconds, 1),
            "valid_loss": progress.last,
            "valid_loss_after_step": progress.last_step,
            "best_valid_loss": progress.best,
            "best_step": progress.best_step,
            "skipped_steps": progress.skipped,
            "markov_loss": list(markov),
        }
        directory = self._settings.output
        add_to_record(directory, plan=self._plan, result=facts)
        shown = self._plan | {"steps made": f"{progress.step:,} in {progress.seconds:,.0f} s"}
        if progress.last_step < progress.step:
            shown["held-out loss"] = f"of step {progress.last_step:,}, the last evaluation"
        write_report(directory, shown, self._curriculum, markov, progress.last)
        if markov:
            order = best_order(markov)
            console.log.info(
                "held-out loss after step %d: %.4f nats (%.4f bits) per base; order-0 %.4f, "
                "best Markov model (order %d) %.4f",
                progress.last_step,
                progress.last,
                progress.last / math.log(2),
                markov[0],
                order,
                markov[order],
            )
        console.log.info("wrote %s", directory / "report.html")
        if stop:
            console.log.warning(
                "stopped after step %d of %d, and saved; continue with --resume",
                progress.step,
                self._curriculum.steps,
            )

    def _name(self) -> str:
        settings = self._settings
        changed = settings.d_model or settings.n_layer or settings.max_length
        return settings.init_from or f"{settings.preset or DEFAULT_PRESET}{', changed' if changed else ''}"

    def _replicas(self) -> int:
        """Return the number of groups of ranks, each of which trains on different windows."""
        return current_ranks().world_size // self._settings.context_parallel

    def _origin(self) -> dict[str, object]:
        return {
            "made_by": f"hyena pretrain {__version__}",
            "genomes": [path.name for path in self._settings.fasta],
            "init_from": self._settings.init_from,
        }

    def _describe(self, model: HyenaDNA, memory: MemoryPlan, progress: Progress) -> dict[str, str]:
        """Return the plan of the run as a few named lines."""
        settings, config, curriculum = self._settings, model.config, self._curriculum
        target, replicas = curriculum.target, self._replicas()
        bases = self._corpus.splits.bases()["train"]
        step_tokens = {stage.windows * stage.length for stage in curriculum.stages}
        per_step = f"{'about ' * (len(step_tokens) > 1)}{target.windows * target.length:,}"
        duration = memory.duration(target.windows, curriculum.steps - progress.step, replicas)
        plan = {
            "model": f"{self._name()}: width {config.d_model}, layers {config.n_layer}, "
            f"{model.n_parameters:,} parameters",
            "data": self._corpus.describe(),
            "training": f"{curriculum.steps:,} steps of {per_step} tokens ({target.windows} windows x "
            f"{target.length:,} bases) = {curriculum.tokens:,} tokens, "
            f"{curriculum.tokens / bases:.2f} times the training bases",
        }
        if len(curriculum.stages) > 1:
            stages = (f"{s.steps:,} x {s.windows} windows of {s.length:,}" for s in curriculum.stages)
            plan["stages"] = ", ".join(stages)
        share = f", each window over {settings.context_parallel}" if settings.context_parallel > 1 else ""
        plan["devices"] = (
            f"{current_ranks().world_size} x {self._device.type}{share}, {memory.windows} windows at once"
            f"{', blocks computed again for the gradient' if memory.checkpointing else ''}, about "
            f"{memory.n_bytes / 2**30:.1f} GiB each"
        )
        plan["time"] = f"about {duration}, by one pass of {memory.seconds:.2g} s, evaluations not counted"
        return plan


def loop_settings(
    settings: PretrainSettings, curriculum: Curriculum, device: torch.device, micro_tokens: int
) -> LoopSettings:
    """Return the loop's settings; by default ten evaluations a run, and warm-up over its first hundredth."""
    eval_every = settings.eval_every or max(1, settings.max_steps // 10)
    warmup, workers = settings.lr_warmup_steps, settings.workers
    return LoopSettings(
        curriculum=curriculum,
        micro_tokens=micro_tokens,
        lr=settings.lr,
        min_lr=settings.lr / 10 if settings.min_lr is None else settings.min_lr,
        warmup=max(10, settings.max_steps // 100) if warmup is None else warmup,
        grad_clip=settings.grad_clip,
        eval_every=eval_every,
        save_every=settings.save_every or eval_every,
        seed=settings.seed,
        context_parallel=settings.context_parallel,
        workers=2 * (device.type == "cuda") if workers is None else workers,
    )
