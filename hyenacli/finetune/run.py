"""One run of fine-tuning: a model, a split of the data, one seed, one directory."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyenacli import __version__
from hyenacli.adaptation.evaluation import (
    Baseline,
    EvaluationConfig,
    EvaluationResult,
    Logits,
    SplitEvaluator,
    SplitResult,
    predict_over_ranks,
)
from hyenacli.adaptation.examples import Criterion, EpochExamples, Epochs, FeatureExamples
from hyenacli.adaptation.labels import IGNORED, LabelScheme, Targets, class_weights
from hyenacli.adaptation.methods import METHODS, TrainingSet, build_model, describe_model, head_config
from hyenacli.adaptation.run import AdaptationRun, RunResult, TrainingResult, evaluate_run, log_plan
from hyenacli.evaluation.metrics import monitor
from hyenacli.finetune.dataset import LabelledSet, split_sizes
from hyenacli.finetune.features import Features
from hyenacli.finetune.leakage import Leak
from hyenacli.finetune.settings import FinetuneSettings
from hyenacli.finetune.splits import LabelSplits
from hyenacli.inference.intervals import SPLITS
from hyenacli.inference.prediction import (
    Predicted,
    head_values,
    predict,
    prediction_columns,
    prediction_head,
    prediction_options,
    prediction_rows,
    value_titles,
)
from hyenacli.readers.records import SequenceRecord
from hyenacli.readers.tables import LabelledRecord
from hyenacli.training.checkpoints import Progress
from hyenacli.training.training_run import BatchShape, TrainingRun
from hyenacli.writers.columns import Column
from hyenacli.writers.tables import open_table
from hyenadna import HyenaDNA
from hyenadna.config import HeadConfig

_LEAST_CLEAN = 10


class FinetuneRun(AdaptationRun):
    """One run of fine-tuning.

    Args:
        settings: with the method's defaults; its output is the run's directory.
        warnings: sentences about the splits.
        leaks: what the splits share.
        clean: indices of the test records that resemble no training record.
        baselines: fits the k-mer model for a network that reads both strands, or one; may return none.
    """

    kind = "fine-tuning"
    unit = "sequences"
    settings: FinetuneSettings

    def __init__(
        self,
        settings: FinetuneSettings,
        data: LabelledSet,
        splits: LabelSplits,
        device: torch.device,
        warnings: Sequence[str] = (),
        leaks: Sequence[Leak] = (),
        clean: Sequence[int] | None = None,
        baselines: Callable[[bool], list[Baseline]] = lambda _: [],
    ) -> None:
        self.data, self.splits = data, splits
        self._train_targets = [data.targets[i] for i in splits.train.tolist()]
        # `auto` until the validation split has chosen
        described = replace(settings, pool="mean") if settings.pool == "auto" else settings
        self._head = head_config(described, data.scheme, self._train_targets)
        criterion = make_criterion(data.scheme, self._train_targets, settings.class_weights, self._head.scale)
        super().__init__(settings, data.scheme, criterion, device, warnings)
        self.experts = settings.experts
        self._baselines, self._leaks, self._clean = baselines, leaks, clean
        self._features: Features | None = None

    def run(self, evaluated: Collection[str] = SPLITS) -> RunResult:
        """Train and evaluate, and leave a run directory.

        Args:
            evaluated: names of the splits to evaluate on.

        Raises:
            UserError: the directory is another run's; or as `AdaptationRun.train`.
        """
        model = self._build()
        in_steps = self.settings.solver != "sklearn"
        training = self.open(model, [self.data.inputs], in_steps=in_steps, splits=self.splits.counts())
        train = self._train if in_steps else self._solve
        result = train(model, training)
        if result.exit_code:
            return RunResult({}, result.exit_code)
        return RunResult(evaluate_run(self, result, evaluated))

    def _build(self) -> HyenaDNA:
        """Return the model before its first step, on the device; compute features where states are frozen."""
        settings = self.settings
        model = build_model(settings, self._head)
        if settings.layers not in (None, "auto"):
            model.keep_layers(int(settings.layers))
        self.method.set_demonstrations(model, settings, self._training_set)
        model = model.to(self.device)
        if self.method.freezes_states and self.scheme.level == "sequence":
            model.eval()
            self._features = Features(model, self.data.records, settings, self.precision, self.device)
        return model

    @property
    def _training_set(self) -> TrainingSet:
        records = [self.data.records[i] for i in self.splits.train.tolist()]
        return TrainingSet(self.scheme, records, self._train_targets)

    def _solve(self, model: HyenaDNA, training: TrainingRun) -> TrainingResult:
        """Fit a linear head with scikit-learn; every rank fits the same."""
        assert self._features is not None  # noqa: S101  (internal invariant)
        plan = self._plan(model) | {"training": "scikit-learn, all at once"}
        log_plan(plan)
        balanced = self.settings.class_weights == "balanced"
        indices = self.splits.indices()
        quality = self._features.fit_head(model, indices, self.evaluators, balanced=balanced)
        training.progress = Progress(last=quality, best=quality, best_step=0)
        training.save()
        return TrainingResult(training.progress, plan)

    def _train(self, model: HyenaDNA, training: TrainingRun) -> TrainingResult:
        settings, examples = self.settings, self._examples(model)
        epochs = examples.epochs
        times = f"{settings.epochs} {'epoch' if settings.epochs == 1 else 'epochs'}"
        paper = METHODS["full"].defaults
        if self.method.on_cpu and (settings.epochs, settings.batch_size) != (
            paper["epochs"],
            paper["batch_size"],
        ):
            times += f" (the paper's are {paper['epochs']} of {paper['batch_size']} sequences a step)"
        plan = self._plan(model) | {
            "training": f"at most {epochs.steps:,} steps of {epochs.batch_size} sequences, {times}; the "
            f"model with the best valid {monitor(self.scheme.task)} is kept; {settings.patience} evaluations "
            "without improvement end the run"
        }
        batch = BatchShape(epochs.longest, epochs.batch_size)
        return self.train(training, examples, epochs, batch, epochs.per_epoch, plan)

    def _examples(self, model: HyenaDNA) -> EpochExamples:
        settings = self.settings
        # a head is fitted to the states of both strands where it predicts from both
        both = settings.rc_augment or (self._features is not None and settings.rc == "mean")
        order = partial(
            Epochs,
            batch_size=settings.batch_size or 1,
            epochs=settings.epochs or 0,
            seed=settings.seed,
            rc_augment=both,
        )
        if self._features is not None:
            states_NSD = self._features.states_NSD[self.splits.train]
            return FeatureExamples(states_NSD, self._train_targets, order)
        return self.method.examples(model, settings, self._training_set, order)

    def _plan(self, model: HyenaDNA) -> dict[str, str]:
        """Describe what is learnt, from what and by what, in a few lines."""
        plan, demonstrations = {"labels": self.scheme.sentence}, model.config.demonstrations
        if demonstrations is not None:
            letters = zip(demonstrations.letters, demonstrations.labels, strict=True)
            classes = ", ".join(f"{letter} is {label}" for letter, label in letters)
            plan["demonstrations"] = f"{self.settings.shots} of each class; {classes}"
        if self.settings.rc == "mean":
            plan["strands"] = "predictions are the mean of both (--rc none: of the one given)"
        return plan | {"splits": split_sizes(self.splits), "model": describe_model(self.settings, model)}

    def origin(self) -> dict[str, Any]:
        """Return what checkpoints say of where they come from."""
        return {
            "made_by": f"hyena finetune {__version__}",
            "model": self.settings.model,
            "method": self.settings.method,
            "data": self.data.inputs["path"],
        }

    def facts(self) -> dict[str, Any]:
        """Return what metrics.json says before the metrics."""
        return {
            "task": self.scheme.task,
            "level": self.scheme.level,
            "labels": list(self.scheme.names),
            "method": self.settings.method,
            "model": self.settings.model,
            "seed": self.settings.seed,
            "leakage": [leak.to_json() for leak in self._leaks],
        }

    def evaluation_config(self) -> EvaluationConfig:
        """Return the choices of the evaluation at the end."""
        settings = self.settings
        return EvaluationConfig(
            self.criterion, settings.seed, calibrate=settings.calibrate, letters=not self.method.has_head
        )

    def fit_baselines(self, both_strands: bool) -> list[Baseline]:
        """Fit the k-mer model to the same splits; an empty list where there is to be none."""
        return self._baselines(both_strands)

    def clean_test(self) -> tuple[SplitEvaluator, Sequence[int]] | None:
        """Return the labels and positions of test records that resemble no training record, if some do.

        Fewer than ten are not measured.
        """
        if self._clean is None or not _LEAST_CLEAN <= len(self._clean) < len(self.splits.test):
            return None
        targets = [self.data.targets[i] for i in self._clean]
        return SplitEvaluator(self.scheme, targets), np.searchsorted(self.splits.test, self._clean).tolist()

    def write_tables(self, model: HyenaDNA, evaluation: EvaluationResult, model_sha256: str) -> None:
        """Write the predictions of the evaluated splits."""
        beside = {"network": evaluation.network} if evaluation.network is not None else {}
        beside |= {baseline.kind: baseline.splits for baseline in evaluation.baselines}
        write_predictions(
            self.settings,
            self.data,
            self.splits,
            prediction_head(model),
            evaluation.splits,
            model_sha256,
            beside,
        )

    @cached_property
    def evaluators(self) -> dict[str, SplitEvaluator]:
        """The labels of every split that has records."""
        return self.data.evaluators(self.splits)

    def predict_split(self, model: HyenaDNA, split: str) -> list[Logits]:
        """Compute a model's logits of the records of a split; the same on every rank.

        Raises:
            UserError: as `predict`.
        """
        model.eval()
        indices = self.splits.indices()[split]
        per_base = self.scheme.level == "nucleotide"
        sizes = [len(self.data.records[i].sequence) if per_base else 0 for i in indices]
        compute = self._predict if self._features is None else self._features.logits
        with torch.inference_mode(), self.precision():
            return predict_over_ranks(compute, model, indices, sizes, self.device)

    def _predict(self, model: HyenaDNA, indices: Sequence[int]) -> list[Logits]:
        records = (self.data.records[i] for i in indices)
        sequences = (SequenceRecord.of_sequence(record.id, record.sequence) for record in records)
        head = prediction_head(model)
        options = prediction_options(head, rc=head.rc)
        answers = predict(model, sequences, options)
        return [answer.logits for answer in answers if answer.logits is not None]


def make_criterion(
    scheme: LabelScheme, targets: Sequence[Targets], weighting: str, scale: tuple[float, ...]
) -> Criterion:
    """Return the loss of labels.

    Args:
        scheme: the task.
        targets: of the training records.
        weighting: balanced, or none for equal weights.
        scale: of each output of a regression.
    """
    if weighting != "balanced":
        return Criterion(scheme, None, scale)
    flat = [target.reshape(-1) if scheme.has_classes else target for target in targets]
    joined = np.concatenate([np.atleast_1d(target) for target in flat])
    return Criterion(scheme, class_weights(scheme, joined), scale)


def write_predictions(
    settings: FinetuneSettings,
    data: LabelledSet,
    splits: LabelSplits,
    head: HeadConfig,
    results: Mapping[str, SplitResult],
    model_sha256: str,
    beside: Mapping[str, Mapping[str, SplitResult]] | None = None,
) -> Path:
    """Write the table: that of `hyena predict`, with the split and the label of each record.

    Of labels of bases, which are many, only the last split of train, valid and test is written.

    Args:
        settings: of the run.
        data: the records.
        splits: of them.
        head: of the model.
        results: logits of each split.
        model_sha256: hash of the model.
        beside: results of other models, whose values get columns of their own, by a word for each.
    """
    scheme, beside = data.scheme, beside or {}
    titles = (
        ["label"] if scheme.has_classes or scheme.n_outputs == 1 else [f"label_{n}" for n in scheme.names]
    )
    label_columns = [Column("split", str), *(Column(title, str) for title in titles)]
    first, *others = prediction_columns(head)
    written = list(results) if scheme.level == "sequence" else list(results)[-1:]
    provenance = {"model_sha256": model_sha256, "data": data.inputs}
    path = settings.output / f"predictions.{settings.predictions}"
    values = value_titles(head)
    more = [Column(f"{word}_{name}", float, digits=7) for word in beside for name in values]
    with open_table(path, None, [first, *label_columns, *others, *more], provenance) as table:
        for split in written:
            rows_of = zip(splits.indices()[split], results[split].logits, strict=True)
            for number, (i, logits) in enumerate(rows_of):
                record, target, per_base = data.records[i], data.targets[i], logits.ndim > 1
                alone = {word: result[split].logits[number] for word, result in beside.items()}
                if per_base and record.region is not None and record.region.strand == "-":
                    # rows of bases follow the + strand, and the record was read along the other
                    logits, target = logits[::-1], target[::-1]  # noqa: PLW2901
                    alone = {word: outputs[::-1] for word, outputs in alone.items()}
                n_bases = 1 if per_base else len(record.sequence)
                rows = dict(prediction_rows(Predicted(_with_region(record), n_bases, logits), head))
                labels = _label_texts(scheme, target)
                rows["split"] = [split] * len(labels[0])
                for word, outputs in alone.items():
                    columns = head_values(outputs, head).T
                    rows |= {f"{word}_{name}": column for name, column in zip(values, columns, strict=True)}
                table.write(rows | dict(zip(titles, labels, strict=True)))
    return path


def _with_region(record: LabelledRecord) -> SequenceRecord:
    """Return the record with its region in the genome, where it has one."""
    sequence, region = SequenceRecord.of_sequence(record.id, record.sequence), record.region
    if region is None:
        return replace(sequence, chrom="")
    return replace(sequence, chrom=region.contig, start=region.start, end=region.end, strand=region.strand)


def _label_texts(scheme: LabelScheme, target: Targets) -> Sequence[list[str]]:
    """Return the texts of each label column: one of a sequence, or one of each base."""
    if scheme.has_classes:
        return [[scheme.names[int(k)] if k != IGNORED else "" for k in target.reshape(-1).tolist()]]
    by_column = target.reshape(-1, scheme.n_outputs).T.tolist()
    return [["" if math.isnan(value) else f"{value:.7g}" for value in column] for column in by_column]
