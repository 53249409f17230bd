"""`hyena finetune` as a function: read labels, split, adapt, evaluate, report."""

from dataclasses import replace
from typing import Any, Literal

from hyenacli import settings_file
from hyenacli.adaptation.methods import METHODS, check_model, with_method_defaults
from hyenacli.adaptation.run import RunResult
from hyenacli.devices import resolve_device, set_threads
from hyenacli.distributed import process_group
from hyenacli.errors import UsageError
from hyenacli.finetune.cross_validation import Choice, CrossValidation, read_grid
from hyenacli.finetune.dataset import LabelledSet, open_set
from hyenacli.finetune.settings import FinetuneSettings
from hyenacli.inference.batching import parse_batch_size
from hyenacli.training.metric_loggers import check_tensorboard
from hyenacli.training.run_directory import CONFIG, reserve_run

_TRAINING_DEFAULTS = ("lr", "weight_decay", "batch_size", "epochs", "patience")
# Flags of training step by step.
_STEPWISE = (*_TRAINING_DEFAULTS, "eval_every", "sweep")


def run(settings: FinetuneSettings) -> int:
    """Fine-tune, and return the exit code: 128 + signal if one ended the run after a checkpoint."""
    return finetune(settings).exit_code


def finetune(settings: FinetuneSettings) -> RunResult:
    """Adapt a model as `settings` say and leave a run directory.

    With folds, seeds or a sweep there are several runs, each a run directory under `trials`; the checkpoints
    are then those of the run with the best validation split.

    Raises:
        UserError: anything wrong with the flags, the data, the model or the training itself.
    """
    set_threads(settings.threads)
    device = resolve_device(settings.device)
    filled = with_defaults(settings, device.type)
    grid = read_grid(settings.sweep or ())
    _check(settings)
    _check_effective(settings, grid)
    with reserve_run(settings):
        check_model(settings.model)
        data = open_set(settings)
        filled = with_strands(filled, data)
        _check_labels(filled, data)
        with process_group(device):
            return CrossValidation(filled, data, grid, device).run()


def with_defaults(settings: FinetuneSettings, device: str) -> FinetuneSettings:
    """Return the settings with the defaults of their method where the user gave no value.

    Args:
        settings: as given.
        device: type of the device that trains.

    Raises:
        UsageError: flags that do not go together.
    """
    method = METHODS[settings.method]
    if settings.solver == "auto":
        settings = replace(settings, solver=_choose_solver(settings))
    suited: dict[str, Any] = method.on_cpu if device == "cpu" else {}
    if settings.resume and (settings.output / CONFIG).exists():
        # on whichever device the run began
        earlier = settings_file.read_yaml(settings.output / CONFIG, list(settings_file.to_dict(settings)))
        suited = {name: earlier[name] for name in method.on_cpu if name in earlier}
    settings = replace(settings, **{k: v for k, v in suited.items() if getattr(settings, k) is None})
    solved = settings.solver == "sklearn"
    for flag, word in (("--pool", settings.pool), ("--layers", settings.layers)):
        if word == "auto" and not solved:
            what = "is chosen for heads that scikit-learn fits"
            raise UsageError(what, at=f"{flag} auto", remedy="name one, or add --method head")
    filled = with_method_defaults(settings, () if solved else _TRAINING_DEFAULTS)
    if not solved:
        return filled
    if not method.freezes_states or settings.level != "sequence":
        raise UsageError("fits heads on sequences", at="--solver sklearn", remedy="add --method head")
    for name in _STEPWISE:
        if getattr(settings, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError("--solver sklearn takes no steps", at=flag, remedy="leave it out")
    return filled


def with_strands(settings: FinetuneSettings, data: LabelledSet) -> FinetuneSettings:
    """Return the settings with the strands that `--rc auto` stands for; it stays where validation chooses.

    Sequences are read on both strands unless a strand is given, in training as in prediction: that costs
    twice the time of a prediction, and is better more often than not.
    """
    if settings.rc != "auto":
        return settings
    is_stranded = any(record.region is not None and record.region.strand != "." for record in data.records)
    if is_stranded or data.scheme.level != "sequence" or not METHODS[settings.method].has_head:
        return replace(settings, rc="none")
    return settings if settings.solver == "sklearn" else replace(settings, rc="mean", rc_augment=True)


def _choose_solver(settings: FinetuneSettings) -> Literal["adamw", "sklearn"]:
    """Return sklearn for heads on sequences, unless a flag of training step by step is given."""
    stepwise = any(getattr(settings, name) is not None for name in _STEPWISE)
    per_base = settings.level == "nucleotide" or settings.bedgraph is not None
    return "sklearn" if METHODS[settings.method].freezes_states and not (per_base or stepwise) else "adamw"


def _check(settings: FinetuneSettings) -> None:
    """Check what can be checked before anything is read."""
    parse_batch_size(str(settings.micro_batch_size), "--micro-batch-size")
    if settings.tensorboard:
        check_tensorboard()
    _check_layers(settings)
    if settings.experts == "kmers":
        remedy = "leave it out, or take --experts none"
        if settings.no_baseline:
            raise UsageError(
                "joins the k-mer model, which --no-baseline leaves out", at="--experts", remedy=remedy
            )
        if settings.level == "nucleotide" or settings.bedgraph is not None:
            raise UsageError("the k-mer model of bases does not join", at="--experts", remedy=remedy)


def _check_layers(settings: FinetuneSettings) -> None:
    layers = settings.layers
    if layers is None:
        return
    if layers != "auto" and not (layers.isdecimal() and int(layers)):
        remedy = "use auto or a number from 1 on"
        raise UsageError(f"unknown number of layers '{layers}'", at="--layers", remedy=remedy)
    if METHODS[settings.method].adapter is not None:
        what = f"{METHODS[settings.method].adapter_name} belongs to the whole of a model"
        raise UsageError(what, at="--layers", remedy="leave it out, or choose --method full or head")


def _check_effective(settings: FinetuneSettings, grid: list[Choice]) -> None:
    """Raise UsageError for flags that would do nothing."""
    method = METHODS[settings.method]
    per_base = settings.level == "nucleotide" or settings.bedgraph is not None
    if method.freezes_states and not per_base:
        for name, flag in (("embed_dropout", "embed-dropout"), ("resid_dropout", "resid-dropout")):
            if getattr(settings, name) is not None or flag in grid[0]:
                what = f"--method {method.name} computes the states of sequences once, without dropout"
                at = f"--sweep {flag}" if flag in grid[0] else f"--{flag}"
                raise UsageError(what, at=at, remedy="leave it out, or choose another method")
    if settings.pool != FinetuneSettings.pool and (per_base or not method.has_head):
        what = "bases with labels of their own" if per_base else f"the letters of --method {method.name}"
        raise UsageError(f"{what} are not pooled", at="--pool", remedy="leave it out")


def _check_labels(settings: FinetuneSettings, data: LabelledSet) -> None:
    """Check that the labels of every fold can be learnt as the flags say."""
    for splits in data.splits:
        targets = [data.targets[i] for i in splits.train.tolist()]
        METHODS[settings.method].check_labels(settings, data.scheme, targets)
    if data.scheme.task == "regression":
        remedy = "leave it out, or give --task"
        if settings.calibrate:
            raise UsageError("a regression has no probabilities", at="--calibrate", remedy=remedy)
        if settings.class_weights == "balanced":
            raise UsageError("a regression has no classes to weigh", at="--class-weights", remedy=remedy)
