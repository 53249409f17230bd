"""`hyena pretrain`: read genomes, split them, train, report."""

import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from hyenacli import __version__, console
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.distributed import Stop, current_ranks, process_group, stop_on_signals
from hyenacli.errors import UsageError
from hyenacli.evaluation.figures import BLACK, BLUE, GREY, RED
from hyenacli.evaluation.line_plots import Series, curve, line_chart, smoothed
from hyenacli.evaluation.metrics import compare_with_guessing, describe_bits
from hyenacli.evaluation.report import (
    facts_table,
    number_table,
    settings_section,
    side_by_side,
    write_page,
)
from hyenacli.inference.batching import parse_batch_size
from hyenacli.pretrain.corpus import Corpus, open_corpus
from hyenacli.pretrain.language_model import DEFAULT_PRESET, NextNucleotide, build_model, share_windows
from hyenacli.pretrain.settings import PretrainSettings
from hyenacli.readers.genome import fingerprint
from hyenacli.training.checkpoints import Progress
from hyenacli.training.curriculum import Curriculum, parse_curriculum
from hyenacli.training.loop import LoopSettings
from hyenacli.training.metric_loggers import check_tensorboard, read_metrics, write_multiqc
from hyenacli.training.run_directory import add_to_record, open_run, reserve_run
from hyenacli.training.training_run import BatchShape, MemoryPlan, Precision, TrainingRun
from hyenadna import HyenaDNA
from hyenadna.config import preset_name

# The loss of so many steps, or of a twentieth of the run, is drawn step by step.
_FIRST_STEPS = 50


@dataclass(frozen=True)
class PretrainResult:
    """Result of a run.

    Attributes:
        progress: steps, tokens, seconds, last and best loss on the held-out windows, in nats per base.
        markov: loss of Markov models of order 0, 1, ... on the same windows; empty if there are none, or
            after a signal.
        exit_code: 0, or 128 + signal after one.
    """

    progress: Progress
    markov: list[float]
    exit_code: int


def run(settings: PretrainSettings) -> int:
    """Pretrain, and return the exit code: 128 + signal if one ended the run after a checkpoint."""
    return pretrain(settings).exit_code


def pretrain(settings: PretrainSettings) -> PretrainResult:
    """Pretrain a model and write its run directory.

    Raises:
        UserError: anything wrong with the inputs, the splits, the run directory or the training itself.
    """
    set_threads(settings.threads)
    device = resolve_device(settings.device)
    parse_batch_size(str(settings.micro_batch_size), "--micro-batch-size")
    _check_rates(settings)
    if settings.tensorboard:
        check_tensorboard()
    with reserve_run(settings):
        return _pretrain(settings, device)


def _pretrain(settings: PretrainSettings, device: torch.device) -> PretrainResult:
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
        progress, stop = run.train(model.to(device), functools.partial(autocast, device, settings.dtype))
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
        shown = self._plan | {"time": f"{progress.step:,} steps in {progress.seconds:,.0f} s of training"}
        verdict = describe_result(progress, markov)
        if stop:
            verdict = f"stopped after step {progress.step:,} of {self._curriculum.steps:,}; {verdict}"
        write_report(directory, verdict, shown, self._curriculum, markov, progress.last)
        if self._settings.multiqc:
            losses = {"held-out loss": progress.last, "best held-out loss": progress.best}
            best_markov = {"loss of the best Markov model": min(markov)} if markov else {}
            write_multiqc(directory, "pretraining", {"steps": progress.step, **losses, **best_markov})
        console.log.info("%s", verdict)
        if sentence := compare_with_guessing(progress.last):
            console.log.warning("held out: %s", sentence)
        console.log.info("wrote %s", directory / "report.html")
        if stop:
            console.log.warning(
                "stopped after step %d of %d, and saved; continue with --resume",
                progress.step,
                self._curriculum.steps,
            )

    def _name(self) -> str:
        settings = self._settings
        if settings.init_from:
            return settings.init_from
        name = settings.preset or DEFAULT_PRESET
        if settings.d_model or settings.n_layer or settings.max_length:
            return f"{name}, changed, with fresh weights"
        published = f"hyenadna-{preset_name(name)}"
        return f"{name} with fresh weights (--init-from {published} starts from the published ones)"

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


def describe_result(progress: Progress, markov: Sequence[float]) -> str:
    """Say how well held-out bases are predicted, beside a guess and beside Markov models.

    Args:
        progress: at the end of the run.
        markov: nats per base of Markov models of order 0, 1, ... on the same windows; may be empty.
    """
    if not math.isfinite(progress.last):
        return "nothing is held out to judge the model by"
    sentence = f"held out, after step {progress.last_step:,}: {describe_bits(progress.last)}"
    if not markov:
        return sentence
    order = best_order(markov)
    ours, theirs = (round(loss / math.log(2), 3) for loss in (progress.last, markov[order]))
    word = "better than" if ours < theirs else "as good as" if ours == theirs else "no better than"
    return f"{sentence}; {word} the best Markov model ({theirs:.3f}, order {order})"


def write_report(
    run: Path,
    verdict: str,
    facts: Mapping[str, object],
    curriculum: Curriculum,
    markov: Sequence[float],
    loss: float,
) -> None:
    """Write report.html from the run's metrics.csv and config.yaml.

    Args:
        run: the run directory.
        verdict: what came out.
        facts: rows under the title, in order.
        curriculum: stages of the run; if there are several, each has a mark in the curves and a table row.
        markov: nats per base of Markov models of order 0, 1, ... on the held-out windows; may be empty.
        loss: nats per base of the model on the same windows; NaN if there are none.
    """
    rows = read_metrics(run / "metrics.csv")
    train = curve(rows, "tokens", "loss")
    marks, tokens = {}, 0
    for stage in curriculum.stages[:-1]:
        tokens += stage.steps * stage.windows * stage.length
        marks[float(tokens)] = f"{stage.length:,}"
    end = max((x for x, _ in train), default=0.0)
    orders = sorted({0, best_order(markov)}) if markov else []
    baselines = [
        Series(f"Markov order {order}", [(0.0, markov[order]), (end, markov[order])], color, dashed=True)
        for order, color in zip(orders, (GREY, BLACK), strict=False)
    ]
    held_out = Series("held out", curve(rows, "tokens", "valid_loss"), RED, dots=True)
    losses = [Series("training", smoothed(train), BLUE), held_out, *baselines]
    x_label, y_label, top = "training tokens", "loss, nats per base", math.log(4) + 0.01
    loss_chart = line_chart(losses, x_label=x_label, y_label=y_label, y_max=top, marks=marks)
    first = train[: max(_FIRST_STEPS, len(train) // 20)]
    start = line_chart([Series("training, each step", first, BLUE)], x_label=x_label, y_label=y_label)

    def chart(column: str, y_label: str) -> str:
        line = Series(y_label, smoothed(curve(rows, "tokens", column)), BLUE)
        return line_chart([line], x_label=x_label, y_label=y_label, marks=marks)

    others = [
        chart("lr", "learning rate"),
        chart("tokens_per_second", "tokens per second"),
        chart("wait_fraction", "share of time without data"),
    ]
    sections = [
        facts_table(facts),
        settings_section(run),
        f"<h2>Loss</h2>{loss_chart}",
        f"<h2>Loss of the first {len(first):,} steps</h2>{start}",
        f"<h2>Stages</h2>{_stage_table(curriculum, rows)}" if marks else "",
        f"<h2>Comparison with Markov models</h2>{_markov_table(markov, loss)}",
        f"<h2>Learning rate, throughput and waiting</h2>{side_by_side(*others)}",
    ]
    names = ("metrics.csv", "run.json", "log.jsonl", "config.yaml")
    tables = [run / name for name in names if (run / name).exists()]
    title = f"{run.resolve().name}: pretraining"
    write_page(run / "report.html", title, sections, verdict=verdict, tables=tables)


def _stage_table(curriculum: Curriculum, rows: Sequence[Mapping[str, str]]) -> str:
    """Return a table with a row for each stage that has begun."""
    by_step = {int(row["step"]): row for row in rows if row["loss"]}
    cells = []
    for stage in curriculum.stages:
        steps = [by_step[step] for step in range(stage.first_step + 1, stage.end + 1) if step in by_step]
        if not steps:
            continue
        tail = steps[-max(1, len(steps) // 10) :]
        loss = sum(float(row["loss"]) for row in tail) / len(tail)
        speed = statistics.median(float(row["tokens_per_second"]) for row in steps)
        counts = (stage.length, stage.windows, len(steps), len(steps) * stage.windows * stage.length)
        cells.append([*(f"{count:,}" for count in counts), f"{loss:.4f}", f"{speed:,.0f}"])
    header = ("length", "windows a step", "steps", "tokens", "loss of its last tenth", "tokens/s (median)")
    return number_table(header, cells)


def best_order(markov: Sequence[float]) -> int:
    """Return the order with the lowest loss.

    >>> best_order([1.38, 1.3, 1.35])
    1
    """
    return min(range(len(markov)), key=markov.__getitem__)


def _markov_table(markov: Sequence[float], loss: float) -> str:
    if not markov:
        return "<p>None yet: they are fitted at the end of a run with held-out bases.</p>"
    losses = {f"Markov, order {order}": nats for order, nats in enumerate(markov)} | {"this model": loss}
    rows = [
        [name, *(f"{value:.4f}" for value in (nats, nats / math.log(2), math.exp(nats)))]
        for name, nats in losses.items()
    ]
    table = number_table(["", "nats/base", "bits/base", "perplexity"], rows, bold=[len(markov)])
    return (
        "<p>All are fitted to the same training bases and evaluated on the same held-out windows; order k "
        "predicts a base from the k before it. Uniform probabilities score 1.3863 nats, 2 bits.</p>" + table
    )
