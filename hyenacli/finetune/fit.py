"""The training of a trial: through the loop, or for a linear head at one go."""

from dataclasses import dataclass
from functools import partial

from hyenacli import console
from hyenacli.adaptation.epochs import Epochs
from hyenacli.adaptation.examples import Examples, FeatureExamples, TokenExamples
from hyenacli.adaptation.methods import groups_of, in_words, loop_of
from hyenacli.adaptation.supervised import EpochStream, Supervised
from hyenacli.distributed import current_ranks
from hyenacli.evaluation.metrics import monitor
from hyenacli.finetune.in_context import PromptExamples
from hyenacli.finetune.labelled_set import split_sizes
from hyenacli.finetune.probe import fit_head
from hyenacli.finetune.run import Trial
from hyenacli.training.checkpoints import Progress
from hyenacli.training.memory import BatchShape, MemoryPlan
from hyenacli.training.run_directory import TrainingRun, open_run
from hyenacli.training.signals import stop_on_signals
from hyenadna import HyenaDNA


@dataclass(frozen=True)
class Ended:
    """How the training of a trial ended.

    Attributes:
        progress: steps, seconds, and the monitored metric, last and best.
        plan: what was done, in a few lines.
        exit_code: 0, or 143 or 130 where a signal ended it.
    """

    progress: Progress
    plan: dict[str, str]
    exit_code: int = 0


def adapt(trial: Trial, model: HyenaDNA) -> Ended:
    """Train a model as a trial says, to the end or to a signal, and leave a run directory.

    Raises:
        UserError: the directory is another run's; or as `Trainer.run`.
    """
    open_run(trial.settings, [trial.data.inputs], trial.device, splits=trial.splits.counts())
    settings = trial.settings
    groups = groups_of(settings, model)
    run = TrainingRun(
        settings, model, groups, origin=trial.origin(), precision=trial.precision, device=trial.device
    )
    return (_fit if settings.solver == "sklearn" else _train)(trial, model, run)


def _fit(trial: Trial, model: HyenaDNA, run: TrainingRun) -> Ended:
    """A linear head from scikit-learn; every rank finds the same."""
    settings, scheme = trial.settings, trial.data.scheme
    assert model.head is not None and model.config.head is not None  # noqa: S101, PT018  (a bug, not an input)
    plan = _said_of(trial, model) | {"training": "scikit-learn, all at once"}
    console.log.info("%s", "\n".join(f"{name}: {text}" for name, text in plan.items()))
    train_NSD = trial.features_of("train")
    strands = train_NSD.shape[1] if settings.rc_augment else 1
    quality = fit_head(
        model.head,
        model.config.head,
        scheme,
        (
            train_NSD[:, :strands].swapaxes(0, 1).reshape(-1, train_NSD.shape[2]),
            trial.judge("train").repeated(strands),
        ),
        (trial.pooled(trial.features_of("valid")), trial.judge("valid")),
        balanced=settings.class_weights == "balanced",
    )
    run.progress = Progress(last=quality, best=quality, best_step=0)
    run.keep()
    return Ended(run.progress, plan)


def _train(trial: Trial, model: HyenaDNA, run: TrainingRun) -> Ended:
    settings = trial.settings
    examples = _examples(trial, model)
    epochs = Epochs(
        examples.lengths,
        settings.batch_size or 1,
        settings.epochs or 0,
        settings.seed,
        rc_augment=settings.rc_augment,
    )
    task = Supervised(
        EpochStream(examples, epochs),
        trial.criterion(),
        predict=partial(trial.predict_split, split="valid"),
        judge=trial.judge("valid"),
        device=trial.device,
    )
    windows = -(-epochs.most_at_once // current_ranks().world_size)
    with stop_on_signals() as stop:
        memory = run.plan(task, BatchShape(epochs.longest, windows))
        plan = _said_of(trial, model) | _schedule(trial, epochs, memory, run.progress)
        console.log.info("%s", "\n".join(f"{name}: {text}" for name, text in plan.items()))
        loop = loop_of(settings, epochs, epochs.per_epoch, run.progress.micro_tokens)
        progress = run.train(task, loop, stop)
    return Ended(progress, plan, stop.exit_code)


def _examples(trial: Trial, model: HyenaDNA) -> Examples:
    places, settings = trial.splits.train.tolist(), trial.settings
    targets = [trial.data.targets[i] for i in places]
    if trial.frozen_states:
        return FeatureExamples(trial.features_of("train"), targets)
    records = [trial.data.records[i] for i in places]
    demonstrations = model.config.demonstrations
    if demonstrations is not None:
        prompts = PromptExamples(records, targets, demonstrations, settings)
        _warn_of_longer(prompts.cut_short, demonstrations.max_length, "cut to their middle")
        return prompts
    most = min(settings.max_length or model.longest_input, model.longest_input)
    examples = TokenExamples(records, targets, trial.data.scheme, most, settings.seed)
    _warn_of_longer(examples.longer, most, "read in windows, another one in each epoch")
    return examples


def _warn_of_longer(count: int, most: int, what: str) -> None:
    if count:
        console.log.warning("%d training sequences are longer than %d bases: %s", count, most, what)


def _said_of(trial: Trial, model: HyenaDNA) -> dict[str, str]:
    """What is learnt, from what and by what, in a few lines."""
    settings, demonstrations = trial.settings, model.config.demonstrations
    shown = {}
    if demonstrations is not None:
        letters = zip(demonstrations.letters, demonstrations.labels, strict=True)
        classes = ", ".join(f"{letter} is {label}" for letter, label in letters)
        shown["demonstrations"] = f"{settings.shots} of each class; {classes}"
    return {
        "labels": trial.data.scheme.sentence,
        **shown,
        "splits": split_sizes(trial.splits),
        "model": in_words(settings, model),
    }


def _schedule(trial: Trial, epochs: Epochs, memory: MemoryPlan, progress: Progress) -> dict[str, str]:
    """How it is trained, in a few lines."""
    settings = trial.settings
    left = memory.duration(epochs.most_at_once, epochs.steps - progress.step, current_ranks().world_size)
    judged = f"valid {monitor(trial.data.scheme.task)}"
    return {
        "training": f"at most {epochs.steps:,} steps of {epochs.most_at_once} sequences, {settings.epochs} "
        f"{'epoch' if settings.epochs == 1 else 'epochs'}; the model with the best {judged} is kept, "
        f"{settings.patience} evaluations without a better one end the run",
        "device": f"{current_ranks().world_size} x {trial.device.type}, {memory.windows} sequences at once",
        "time": f"at most about {left}, evaluations not counted",
    }
