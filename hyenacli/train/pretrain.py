"""`hyena pretrain` as a function: read genomes, split them, train, report."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch

from hyenacli import __version__, console
from hyenacli.config import PretrainConfig
from hyenacli.data.splits import Interval, Splits, split_by_contigs, split_by_fraction, split_by_intervals
from hyenacli.data.store import Contig, Tokens, read_contigs
from hyenacli.data.windows import WindowSampler, complement, fixed_windows
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.errors import UsageError, UserError
from hyenacli.ranks import current_ranks
from hyenacli.train import record
from hyenacli.train.checkpoints import Checkpoints, Progress
from hyenacli.train.distributed import barrier, process_group
from hyenacli.train.language import NextNucleotide, WindowBatch
from hyenacli.train.loop import TRAINING_COLUMNS, LoopSettings, Trainer
from hyenacli.train.markov import MarkovModels
from hyenacli.train.metrics import MetricsFile
from hyenacli.train.report import best_order, write_report
from hyenacli.train.signals import Stop, stop_on_signals
from hyenacli.train.steps import StepDisplay
from hyenacli.writers.atomic import check_run_directory, prepare_run_directory
from hyenadna import HyenaConfig, HyenaDNA, load_model, preset

# The Markov yardsticks are fitted to at most this many training bases, in pieces spread over the genome.
MARKOV_BASES = 200_000_000
_PIECE = 1_000_000


@dataclass(frozen=True)
class PretrainResult:
    """How a run ended.

    Attributes:
        progress: steps, tokens, seconds, and the last and best loss on the held-out windows, in nats a base.
        markov: the loss of Markov models of order 0, 1, ... there; empty if nothing is held out.
        exit_code: 0, or 143 or 130 after a signal.
    """

    progress: Progress
    markov: list[float]
    exit_code: int


def pretrain(settings: PretrainConfig) -> PretrainResult:
    """Pretrain a model as `settings` say and leave a run directory.

    Raises:
        UserError: anything wrong with the inputs, the splits, the run directory or the training itself.
    """
    set_threads(settings.threads)
    device = resolve_device(settings.device)
    precision = functools.partial(autocast, device, settings.dtype)
    precision()  # refuses an unknown dtype before anything is read
    check_run_directory(settings.output, resume=settings.resume, force=settings.force)
    model = build_model(settings)
    contigs = read_contigs(settings.fasta)
    width = (settings.max_length or model.config.context) + 1
    splits = split_genome(contigs, settings, width)
    train = WindowSampler(contigs, splits.train, width, settings.seed, rc_augment=settings.rc_augment)
    valid_NW = fixed_windows(contigs, splits.valid, width, settings.eval_windows)
    plan = _plan(settings, model, splits, width - 1)
    with process_group(device):
        if current_ranks().first:
            _open_run(settings, plan, device)
        barrier()
        task = NextNucleotide(train, valid_NW, batch_size=settings.micro_batch_size, device=device)
        console.log.info("%s", "\n".join(f"{name}: {text}" for name, text in plan.items()))
        progress, stop = _train(settings, model.to(device), task, device, precision)
    markov: list[float] = []
    if current_ranks().first:
        if len(valid_NW):
            markov = _fit_markov(contigs, splits.train, rc=settings.rc_augment).cross_entropy(valid_NW)
        _close_run(settings, plan, progress, markov)
    return PretrainResult(progress, markov, stop.exit_code)


def build_model(settings: PretrainConfig) -> HyenaDNA:
    """The model to train: a preset's architecture, changed where flags say so, or another model's weights.

    A fresh model's l_max is its context + 2, as in every published one; weights depend on --seed alone.
    """
    if settings.init_from is not None:
        if settings.d_model or settings.n_layer or settings.window_shift is not None:
            remedy = "leave out --d-model, --n-layer and --window-shift"
            raise UsageError("--init-from fixes the architecture", remedy=remedy)
        model: HyenaDNA = load_model(settings.init_from)
        if settings.max_length and settings.max_length > model.config.l_max:
            raise UserError(
                f"--max-length {settings.max_length} is beyond the model's {model.config.l_max} tokens",
                at=settings.init_from,
                remedy="choose a model with a longer context",
            )
        return model
    config = preset(settings.preset)
    if settings.d_model:
        config = replace(config, d_model=settings.d_model, d_inner=4 * settings.d_model)
    if settings.n_layer:
        config = replace(config, n_layer=settings.n_layer)
    if settings.max_length:
        config = replace(config, l_max=settings.max_length + 2)
    if settings.window_shift is not None:
        config = replace(config, window_shift=settings.window_shift)
    return HyenaDNA(config, generator=torch.Generator().manual_seed(settings.seed))


def split_genome(contigs: Sequence[Contig], settings: PretrainConfig, width: int) -> Splits:
    """Training and held-out stretches, by intervals, by contigs, or by a fraction in blocks.

    Raises:
        UserError: nothing to train on, or held-out stretches that are all shorter than two bases.
        UsageError: more than one way of splitting at once.
    """
    named = bool(settings.valid_contigs or settings.test_contigs)
    if settings.intervals and named:
        raise UsageError("--intervals already says what is held out", remedy="leave --valid-contigs out")
    if settings.intervals:
        splits = split_by_intervals(contigs, settings.intervals)
    elif named:
        splits = split_by_contigs(contigs, _names(settings.valid_contigs), _names(settings.test_contigs))
    else:
        splits = split_by_fraction(contigs, settings.valid_fraction, width, settings.seed)
    if max(map(len, splits.train), default=0) < 2:
        raise UserError("no bases are left to train on", remedy="hold out less, or add sequence")
    if max(map(len, splits.train)) < width:
        console.log.warning(
            "every training stretch is shorter than a window of %d bases: windows are padded", width
        )
    return splits


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _plan(settings: PretrainConfig, model: HyenaDNA, splits: Splits, length: int) -> dict[str, str]:
    """What will be done, in a few lines."""
    config: HyenaConfig = model.config
    bases = splits.bases()
    tokens = settings.max_steps * settings.global_batch_size * length
    return {
        "model": f"{settings.init_from or settings.preset}: width {config.d_model}, {config.n_layer} layers, "
        f"{model.n_parameters:,} parameters",
        "data": ", ".join(f"{name} {count:,} bases" for name, count in bases.items() if count),
        "training": f"{settings.max_steps:,} steps x {settings.global_batch_size} windows x {length:,} bases "
        f"= {tokens:,} tokens, {tokens / bases['train']:.2f} times the training bases",
    }


def _open_run(settings: PretrainConfig, plan: dict[str, str], device: torch.device) -> None:
    run = settings.output
    prepare_run_directory(run, resume=settings.resume, force=settings.force)
    if settings.resume:
        record.check_resumable(run, settings)
        return
    record.write_config(run, settings)
    record.write_record(
        run,
        inputs=[*settings.fasta, *([settings.intervals] if settings.intervals else [])],
        plan=plan,
        seed=settings.seed,
        device=str(device),
        dtype=settings.dtype,
        world_size=current_ranks().world_size,
    )


def _train(
    settings: PretrainConfig,
    model: HyenaDNA,
    task: NextNucleotide,
    device: torch.device,
    precision: Callable[[], AbstractContextManager[object]],
) -> tuple[Progress, Stop]:
    run, first = settings.output, current_ranks().first
    optimizer = torch.optim.AdamW(model.parameter_groups(settings.lr, settings.weight_decay))
    origin = {
        "made_by": f"hyena pretrain {__version__}",
        "genomes": [path.name for path in settings.fasta],
        "init_from": settings.init_from,
    }
    checkpoints = Checkpoints(run, settings.keep, origin)
    progress = checkpoints.restore(model, optimizer) if settings.resume else Progress()
    columns = (*TRAINING_COLUMNS, *task.evaluation_columns)
    loop = loop_settings(settings)
    with (
        stop_on_signals() as stop,
        MetricsFile(run / "metrics.csv", columns, progress.step or None, write=first) as metrics,
        console.json_sink(run / "log.jsonl"),
        StepDisplay(loop.max_steps, progress.step) as display,
    ):
        trainer: Trainer[WindowBatch] = Trainer(
            model,
            task,
            optimizer,
            loop,
            checkpoints=checkpoints,
            metrics=metrics,
            device=device,
            autocast=precision,
        )
        return trainer.run(progress, stop, display.show), stop


def loop_settings(settings: PretrainConfig) -> LoopSettings:
    """The loop's numbers with defaults: ten evaluations a run, warm-up over its first hundredth."""
    eval_every = settings.eval_every or max(1, settings.max_steps // 10)
    warmup = settings.lr_warmup_steps
    return LoopSettings(
        max_steps=settings.max_steps,
        global_batch=settings.global_batch_size,
        micro_batch=settings.micro_batch_size,
        lr=settings.lr,
        min_lr=settings.lr / 10 if settings.min_lr is None else settings.min_lr,
        warmup=max(10, settings.max_steps // 100) if warmup is None else warmup,
        grad_clip=settings.grad_clip,
        eval_every=eval_every,
        save_every=settings.save_every or eval_every,
        seed=settings.seed,
    )


def _fit_markov(contigs: Sequence[Contig], intervals: Sequence[Interval], *, rc: bool) -> MarkovModels:
    """Markov models of the training bases, on both strands if the model reads both."""

    def stretches() -> Iterator[Tokens]:
        pieces = [
            contigs[i.contig].tokens[start : min(start + _PIECE, i.end)]
            for i in intervals
            for start in range(i.start, i.end, _PIECE)
        ]
        every = max(1, math.ceil(sum(map(len, pieces)) / MARKOV_BASES))
        for piece in pieces[::every]:
            yield piece
            if rc:
                yield complement(piece)

    return MarkovModels(stretches())


def _close_run(
    settings: PretrainConfig, plan: dict[str, str], progress: Progress, markov: Sequence[float]
) -> None:
    facts = {
        "steps": progress.step,
        "tokens": progress.tokens,
        "seconds": round(progress.seconds, 1),
        "valid_loss": progress.last,
        "best_valid_loss": progress.best,
        "best_step": progress.best_step,
        "markov_loss": list(markov),
    }
    record.add_to_record(settings.output, result=facts)
    listed = plan | {"steps made": f"{progress.step:,} in {progress.seconds:,.0f} s"}
    write_report(settings.output, listed, markov, progress.last)
    if markov:
        order = best_order(markov)
        console.log.info(
            "held-out loss %.4f nats (%.4f bits) per base; order-0 %.4f, best Markov model (order %d) %.4f",
            progress.last,
            progress.last / math.log(2),
            markov[0],
            order,
            markov[order],
        )
    console.log.info("wrote %s", settings.output / "report.html")
