"""`hyena finetune` as a function: read labels, split, adapt, judge, report."""

from dataclasses import dataclass
from typing import Any

from hyenacli.adaptation.methods import check_model, with_defaults
from hyenacli.devices import autocast, resolve_device, set_threads
from hyenacli.errors import UsageError, nearest
from hyenacli.finetune import in_context, probe
from hyenacli.finetune.cross_validation import Choice, Trials, read_grid
from hyenacli.finetune.labelled_set import open_set
from hyenacli.finetune.settings import FinetuneSettings
from hyenacli.inference.batch_size import parse_batch_size
from hyenacli.training.gradients import process_group
from hyenacli.training.tensorboard import check_tensorboard
from hyenacli.writers.atomic import check_run_directory

_TABLES = ["tsv", "tsv.gz", "parquet"]


@dataclass(frozen=True)
class FinetuneResult:
    """How a run ended.

    Attributes:
        metrics: what metrics.json says; empty after a signal.
        exit_code: 0, or 143 or 130 after a signal.
    """

    metrics: dict[str, Any]
    exit_code: int


def finetune(settings: FinetuneSettings) -> FinetuneResult:
    """Adapt a model as `settings` say and leave a run directory.

    With folds, seeds or a sweep there are several trials, each a run directory under `trials`; the run's own
    checkpoints are then those of the trial with the best validation split.

    Raises:
        UserError: anything wrong with the flags, the data, the model or the training itself.
    """
    set_threads(settings.threads)
    device = resolve_device(settings.device)
    autocast(device, settings.dtype)  # refuses an unknown dtype before anything is read
    whole = with_defaults(settings)
    grid = read_grid(settings.sweep or ())
    _check(settings)
    _check_useful(settings, grid)
    check_run_directory(settings.output, resume=settings.resume, force=settings.force)
    check_model(settings.model)
    data = open_set(settings)
    if settings.method == "icl":
        in_context.check_classes(whole, data)
    if settings.solver == "sklearn":
        probe.check_classes(data)
    if data.scheme.task == "regression":
        _check_regression(settings)
    with process_group(device):
        trials = Trials(whole, data, grid, device)
        return FinetuneResult(trials.run(), trials.exit_code)


def _check_useful(settings: FinetuneSettings, grid: list[Choice]) -> None:
    """Refuse flags that would do nothing."""
    per_base = settings.level == "nucleotide" or settings.bedgraph is not None
    if settings.method == "head" and not per_base:
        for name, flag in (("embed_dropout", "embed-dropout"), ("resid_dropout", "resid-dropout")):
            if getattr(settings, name) is not None or flag in grid[0]:
                what = "--method head computes the states of sequences once, without dropout"
                at = f"--sweep {flag}" if flag in grid[0] else f"--{flag}"
                raise UsageError(what, at=at, remedy="leave it out, or choose another method")
    if settings.pool != FinetuneSettings.pool and (per_base or settings.method == "icl"):
        what = "bases with labels of their own" if per_base else "the letters of --method icl"
        raise UsageError(f"{what} are not pooled", at="--pool", remedy="leave it out")


def _check_regression(settings: FinetuneSettings) -> None:
    """Refuse what means nothing for numbers."""
    remedy = "leave it out, or give --task"
    if settings.calibrate:
        raise UsageError("a regression has no probabilities", at="--calibrate", remedy=remedy)
    if settings.class_weights == "balanced":
        raise UsageError("a regression has no classes to weigh", at="--class-weights", remedy=remedy)


def _check(settings: FinetuneSettings) -> None:
    """Refuse what can be refused before anything is read."""
    parse_batch_size(str(settings.micro_batch_size), "--micro-batch-size")
    if settings.predictions not in _TABLES:
        raise UsageError(
            f"unknown type '{settings.predictions}'",
            at="--predictions",
            remedy=nearest(settings.predictions, _TABLES),
        )
    if settings.tensorboard:
        check_tensorboard()
