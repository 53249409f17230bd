"""One adaptation in its run directory, from training to report: what finetune and classify-species share."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch

from hyenacli import console
from hyenacli.adaptation.baseline import ExpertChoice, with_baselines
from hyenacli.adaptation.evaluation import (
    Baseline,
    EvaluationConfig,
    EvaluationResult,
    Logits,
    PieceJoint,
    SplitEvaluator,
    describe_guess,
    evaluate_split,
    evaluate_splits,
)
from hyenacli.adaptation.examples import Criterion, ExampleSource, LabelObjective
from hyenacli.adaptation.labels import LabelScheme
from hyenacli.adaptation.methods import METHODS, parameter_groups
from hyenacli.adaptation.report import describe_split, write_report
from hyenacli.adaptation.settings import AdaptationOptions
from hyenacli.devices import autocast
from hyenacli.distributed import broadcast, current_ranks, stop_on_signals
from hyenacli.evaluation.metrics import monitor
from hyenacli.inference.experts import Experts
from hyenacli.inference.prediction import prediction_head
from hyenacli.training.checkpoints import Checkpoints, Progress
from hyenacli.training.curriculum import Steps
from hyenacli.training.loop import LoopSettings
from hyenacli.training.metric_loggers import write_multiqc
from hyenacli.training.run_directory import METRICS, Fingerprints, add_to_record, open_run, write_json
from hyenacli.training.training_run import BatchShape, TrainingRun
from hyenadna import HyenaDNA, load_model, model_sha256

_REMEDY = "try another --lr, a longer training, or --calibrate"


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended.

    Attributes:
        progress: steps, seconds, and the monitored metric, last and best.
        plan: what was done, as names and texts.
        exit_code: 0, or 128 + signal where one ended it.
    """

    progress: Progress
    plan: dict[str, str]
    exit_code: int = 0


@dataclass(frozen=True)
class RunResult:
    """How a run of a verb ended.

    Attributes:
        metrics: contents of metrics.json, on every rank; empty after a signal.
        exit_code: 0, or 128 + signal after one.
    """

    metrics: dict[str, Any]
    exit_code: int = 0


class AdaptationRun(ABC):
    """A model, the examples it learns from and the splits it is evaluated on, in one run directory.

    A verb supplies examples, splits and what else its results say.

    Args:
        settings: of the verb, with the method's defaults; its output is the directory.
        warnings: sentences about the data.

    Attributes:
        kind: of the run, for the title of its report.
        unit: what an example is called, in the plural.
        experts: which baselines join the network; see `with_baselines`.
        precision: makes the context of every pass.
    """

    kind: ClassVar[str]
    unit: ClassVar[str]
    experts: ExpertChoice = "none"

    def __init__(
        self,
        settings: AdaptationOptions,
        scheme: LabelScheme,
        criterion: Criterion,
        device: torch.device,
        warnings: Sequence[str] = (),
    ) -> None:
        self.method = METHODS[settings.method]
        self.scheme, self.criterion, self.device, self.warnings = scheme, criterion, device, warnings
        self.precision = partial(autocast, device, settings.dtype)
        self.settings = settings

    @property
    @abstractmethod
    def evaluators(self) -> Mapping[str, SplitEvaluator]:
        """The labels of every split that has records; `valid` chooses the model."""

    @abstractmethod
    def predict_split(self, model: HyenaDNA, split: str) -> list[Logits]:
        """Compute a model's logits of the records of a split; the same on every rank."""

    @abstractmethod
    def origin(self) -> dict[str, Any]:
        """Return what checkpoints say of where they come from."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what metrics.json says before the metrics."""

    @abstractmethod
    def evaluation_config(self) -> EvaluationConfig:
        """Return the choices of the evaluation at the end."""

    @abstractmethod
    def fit_baselines(self, both_strands: bool) -> list[Baseline]:
        """Fit models of words to the same splits; an empty list where there are to be none.

        Args:
            both_strands: the network reads both, so that a sequence and its reverse complement are to count
                the same.
        """

    def predict_pieces(self, model: HyenaDNA) -> Mapping[int, list[Logits]]:
        """Compute a model's logits of longer validation sequences than it reads at once, by their length.

        They are the same on every rank; most verbs have no such sequences.
        """
        del model
        return {}

    def fit_pieces(
        self, experts: Sequence[Baseline], logits: Mapping[int, list[Logits]]
    ) -> Mapping[int, PieceJoint]:
        """Fit what joins the network on these sequences, of the experts that join it on others.

        Args:
            experts: the baselines that have joined.
            logits: of `predict_pieces`, calibrated.
        """
        del experts, logits
        return {}

    def clean_test(self) -> tuple[SplitEvaluator, Sequence[int]] | None:
        """Return the labels and positions of test records that resemble no training record, if some do."""
        return None

    def report_sections(self, evaluation: EvaluationResult) -> list[str]:
        """Return sections of report.html after the metrics."""
        del evaluation
        return []

    def write_tables(  # noqa: B027  (most verbs have none)
        self, model: HyenaDNA, evaluation: EvaluationResult, model_sha256: str
    ) -> None:
        """Write tables of the evaluated model beside metrics.json."""

    def open(
        self, model: HyenaDNA, inputs: Fingerprints, *, in_steps: bool = True, **facts: Any
    ) -> TrainingRun:
        """Make the directory, or check that it is this run's, and restore its last checkpoint.

        Args:
            model: to train, on its device; what its method does not train is frozen.
            inputs: fingerprints of the input files.
            in_steps: the model is trained in steps; what is fitted all at once begins anew on --resume.
            facts: what else run.json says from the start.

        Raises:
            UserError: the directory is another run's.
        """
        settings = self.settings
        open_run(settings, inputs, self.device, **facts)
        groups = parameter_groups(settings, model)
        return TrainingRun(
            settings if in_steps else replace(settings, resume=False),
            model,
            groups,
            origin=self.origin(),
            precision=self.precision,
            device=self.device,
            monitor=f"valid_{monitor(self.scheme.task)}",
        )

    def train(
        self,
        training: TrainingRun,
        source: ExampleSource,
        steps: Steps,
        batch: BatchShape,
        evaluate_every: int,
        plan: dict[str, str],
    ) -> TrainingResult:
        """Train to the last step, to the end of patience, or to a signal.

        Args:
            training: the opened run.
            source: examples to learn from.
            steps: of the training.
            batch: the longest examples, and the examples of a full step over all ranks.
            evaluate_every: steps between evaluations where the settings give none.
            plan: what is done, as names and texts; device and time are added.

        Raises:
            UserError: as `Trainer.run`.
        """
        objective = LabelObjective(source, self.criterion, self.scheme, self._evaluate_valid, self.device)
        settings, ranks, progress = self.settings, current_ranks().world_size, training.progress
        with stop_on_signals() as stop:
            memory = training.plan(objective, BatchShape(batch.length, -(-batch.windows // ranks)))
            duration = memory.duration(batch.windows, steps.steps - progress.step, ranks)
            bound = "about" if settings.patience is None else "at most about"
            plan = plan | {
                "device": f"{ranks} x {self.device.type}, {memory.windows} {self.unit} at once",
                "time": f"{bound} {duration}, evaluations not counted",
            }
            log_plan(plan)
            loop = loop_settings(settings, steps, evaluate_every, progress.micro_tokens)
            progress = training.train(objective, loop, stop)
        if stop:
            console.log.warning("stopped after step %d, and saved; continue with --resume", progress.step)
        return TrainingResult(progress, plan, stop.exit_code)

    def _evaluate_valid(self, model: HyenaDNA) -> dict[str, float]:
        logits, evaluator = self.predict_split(model, "valid"), self.evaluators["valid"]
        return {"loss": evaluator.loss(logits, self.criterion)} | evaluator.metrics(logits)


def log_plan(plan: Mapping[str, str]) -> None:
    """Log what is about to be done, a line for each part."""
    console.log.info("%s", "\n".join(f"{name}: {text}" for name, text in plan.items()))


def loop_settings(
    settings: AdaptationOptions, steps: Steps, evaluate_every: int, micro_tokens: int
) -> LoopSettings:
    """Return the rates of an adaptation: a cosine to a tenth of the peak after a short warm-up.

    Args:
        settings: with the method's defaults.
        steps: of the run.
        evaluate_every: steps from one evaluation to the next, where the user gives none.
        micro_tokens: most tokens in one forward pass.
    """
    lr, every = settings.lr or 0.0, settings.eval_every or max(1, evaluate_every)
    return LoopSettings(
        curriculum=steps,
        micro_tokens=micro_tokens,
        lr=lr,
        min_lr=lr / 10,
        warmup=min(steps.steps // 4, max(10, steps.steps // 100)),
        grad_clip=settings.grad_clip,
        eval_every=every,
        save_every=every,
        seed=settings.seed,
        patience=settings.patience,
    )


def evaluate_run(run: AdaptationRun, training: TrainingResult, splits: Collection[str]) -> dict[str, Any]:
    """Evaluate the best model of a run, and write its results.

    Args:
        run: whose directory.
        training: how its training ended.
        splits: names of those to evaluate on; the baseline is fitted only where none is left out.

    Returns:
        The contents of metrics.json, on every rank.
    """
    model = load_model(run.settings.output).to(run.device)
    evaluators = {name: evaluator for name, evaluator in run.evaluators.items() if name in splits}
    logits = {name: run.predict_split(model, name) for name in evaluators}
    whole = len(evaluators) == len(run.evaluators)
    pieces = run.predict_pieces(model) if whole else {}
    metrics: dict[str, Any] = {}
    if current_ranks().first:
        config = run.evaluation_config()
        evaluation = evaluate_splits(model, evaluators, logits, config)
        if whole:
            baselines = run.fit_baselines(prediction_head(model).rc)
            evaluation = with_baselines(evaluation, baselines, run.experts, config)
        if evaluation.members:
            if (calibration := evaluation.calibration) is not None:
                pieces = {length: [*map(calibration.apply, logits)] for length, logits in pieces.items()}
            evaluation = replace(evaluation, pieces=run.fit_pieces(evaluation.members, pieces))
        if "test" in evaluation.splits and (clean := run.clean_test()) is not None:
            logits_N = [evaluation.splits["test"].logits[i] for i in clean[1]]
            # joined outputs are no letters
            plain = replace(config, letters=config.letters and evaluation.network is None)
            evaluation = replace(evaluation, clean=evaluate_split(clean[0], logits_N, plain))
        metrics = write_results(run, model, training, evaluation)
    return broadcast(metrics)


def write_results(
    run: AdaptationRun, model: HyenaDNA, training: TrainingResult, evaluation: EvaluationResult
) -> dict[str, Any]:
    """Write the calibrated model, tables, report.html, run.json and metrics.json of a run; log the metrics.

    Args:
        run: whose directory.
        model: the evaluated one, calibrated.
        training: how its training ended.
        evaluation: of the model.

    Returns:
        The contents of metrics.json.
    """
    directory, progress, plan = run.settings.output, training.progress, training.plan
    if (calibration := evaluation.calibration) is not None:
        fitted = {"temperature": calibration.temperature, "offsets": list(calibration.offsets)}
        Checkpoints(directory, 1, run.origin() | fitted).replace_best("calibrated", model)
    if evaluation.network is not None and evaluation.joint is not None:
        models = tuple(expert.model for expert in evaluation.members)
        longer = {n: Experts(part.models, part.joint.weights) for n, part in evaluation.pieces.items()}
        Experts(models, evaluation.joint.weights, longer).save((directory / "checkpoints" / "best").resolve())
    sha256 = model_sha256(model)
    run.write_tables(model, evaluation, sha256)
    numbers = {
        "steps": progress.step,
        "best_step": progress.best_step,
        "seconds": round(progress.seconds, 1),
        "chosen_by": f"valid {monitor(run.scheme.task)}",
    }
    steps = {
        "time": f"{progress.step:,} steps in {progress.seconds:,.0f} s of training",
        "best step": f"{progress.best_step:,}",
    }
    shown = plan | (steps if progress.step else {})
    title = f"{directory.resolve().name}: {run.kind}"
    warnings = [*run.warnings, *filter(None, [describe_guess(evaluation.splits["valid"])])]
    write_report(directory, title, shown, run.scheme, evaluation, warnings, run.report_sections(evaluation))
    add_to_record(directory, plan=plan, result=numbers)
    head = run.facts() | {"model_sha256": sha256}
    metrics = head | numbers | evaluation.to_json() | {"warnings": warnings}
    if run.settings.multiqc:
        values = [
            (f"{split} {name}", value)
            for split, result in evaluation.splits.items()
            for name, value in result.metrics.items()
        ]
        write_multiqc(directory, run.kind, {"steps": progress.step, **dict(values)})
    write_json(directory / METRICS, metrics)  # last: its presence says that the run is complete
    console.log.info("wrote %s", directory / "report.html")
    _log_results(run, training, evaluation)
    finite: dict[str, Any] = console.finite(metrics)
    return finite


def _log_results(run: AdaptationRun, training: TrainingResult, evaluation: EvaluationResult) -> None:
    progress, metric = training.progress, monitor(run.scheme.task)
    if progress.step and progress.best_step >= 0:
        text = "best after step %d of %d: valid %s %.3f"
        console.log.info(text, progress.best_step, progress.step, metric, progress.best)
    if guess := describe_guess(evaluation.splits["valid"]):
        console.log.warning("%s; %s", guess, _REMEDY)
    elif progress.step and progress.best_step == 0:
        text = "training has not improved the model on the validation split, so the untrained model is kept"
        console.log.warning("%s; %s", text, _REMEDY)
    if (calibration := evaluation.calibration) is not None:
        pairs = zip(run.scheme.names, calibration.offsets, strict=False)
        offsets = "".join(f", {name} {round(offset, 2) + 0.0:+.2f}" for name, offset in pairs)
        before, after = calibration.loss
        text = "temperature %.3g%s: valid loss %.4f, before %.4f"
        console.log.info(text, calibration.temperature, offsets, after, before)
        if calibration.useless and not guess:
            text = "no calibration beats equal probabilities on the validation split: they are now predicted"
            console.log.warning("%s; %s", text, _REMEDY)
    for name, result in evaluation.splits.items():
        console.log.info("%s", describe_split(name, result))
    if evaluation.clean is not None:
        console.log.info("%s", describe_split("test without those that resemble training", evaluation.clean))
    _log_comparison(evaluation, metric)


def _log_comparison(evaluation: EvaluationResult, metric: str) -> None:
    split = evaluation.final_split
    beside = {"network alone": evaluation.network} if evaluation.network is not None else {}
    beside |= {baseline.title: baseline.splits for baseline in evaluation.baselines}
    for title, results in beside.items():
        console.log.info("%s, %s: %s %.3f", title, split, metric, results[split].metrics[metric])
    if evaluation.joint is not None and evaluation.network is None:
        tried = {name for names in evaluation.joint.losses for name in names.split("+")}
        titles = [baseline.title for baseline in evaluation.baselines if baseline.kind in tried]
        text = "the %s do not join the network: the validation split is predicted no better"
        console.log.info(text, " and ".join(titles))
    if evaluation.verdict is not None:
        console.log.info("%s", evaluation.verdict.sentence)
