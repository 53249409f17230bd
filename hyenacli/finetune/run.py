"""One run of fine-tuning: a model, a split of the data, one seed, one directory.

N record, S strand, D width.
"""

from collections.abc import Callable, Collection, Sequence
from copy import deepcopy
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hyenacli import __version__, console
from hyenacli.adaptation.evaluation import (
    Baseline,
    EvaluationConfig,
    EvaluationResult,
    Logits,
    SplitEvaluator,
    predict_over_ranks,
)
from hyenacli.adaptation.examples import EpochExamples, Epochs, FeatureExamples
from hyenacli.adaptation.labels import LabelScheme, Targets, class_weights
from hyenacli.adaptation.model_setup import build_model, describe_model, head_config
from hyenacli.adaptation.objective import Criterion
from hyenacli.adaptation.results import evaluate_run
from hyenacli.adaptation.run import AdaptationRun, RunResult, TrainingResult, log_plan
from hyenacli.distributed import current_ranks
from hyenacli.evaluation.metrics import monitor
from hyenacli.finetune.dataset import LabelledSet, split_sizes
from hyenacli.finetune.predictions import as_sequence_record, write_predictions
from hyenacli.finetune.probe import fit_head
from hyenacli.finetune.settings import FinetuneSettings
from hyenacli.finetune.splits import LabelSplits
from hyenacli.inference.embedding import embed
from hyenacli.inference.embedding_options import EmbeddingOptions
from hyenacli.inference.intervals import SPLITS
from hyenacli.inference.pooling import Pooling
from hyenacli.inference.prediction import head_of, predict
from hyenacli.training.checkpoints import Progress
from hyenacli.training.gradients import sum_array
from hyenacli.training.memory import BatchShape
from hyenacli.training.run_directory import TrainingRun
from hyenadna import HyenaDNA

Features = NDArray[np.float32]


class FinetuneRun(AdaptationRun):
    """One run of fine-tuning.

    Args:
        settings: with the method's defaults; its output is the run's directory.
        data: the labelled records.
        splits: of them.
        device: where the model goes.
        warnings: sentences about the splits.
        baseline: fits the k-mer model, or returns None.
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
        baseline: Callable[[], Baseline | None] = lambda: None,
    ) -> None:
        self.data, self.splits = data, splits
        self._train_targets = [data.targets[i] for i in splits.train.tolist()]
        self._head = head_config(settings, data.scheme, self._train_targets)
        criterion = make_criterion(data.scheme, self._train_targets, settings.class_weights, self._head.scale)
        super().__init__(settings, data.scheme, criterion, device, warnings)
        self._baseline = baseline
        self._features: Features | None = None

    def run(self, evaluated: Collection[str] = SPLITS) -> RunResult:
        """Train and evaluate, and leave a run directory.

        Args:
            evaluated: names of the splits to evaluate on.

        Raises:
            UserError: the directory is another run's; or as `AdaptationRun.train`.
        """
        model = self._build()
        training = self.open(model, [self.data.inputs], splits=self.splits.counts())
        train = self._solve if self.settings.solver == "sklearn" else self._train
        result = train(model, training)
        if result.exit_code:
            return RunResult({}, result.exit_code)
        return RunResult(evaluate_run(self, result, evaluated))

    def _build(self) -> HyenaDNA:
        """Return the model before its first step, on the device; compute features where states are frozen."""
        settings, records = self.settings, self._train_records
        model = build_model(settings, self._head)
        self.method.set_demonstrations(model, settings, self.scheme, records, self._train_targets)
        model = model.to(self.device)
        if self.method.freezes_states and self.scheme.level == "sequence":
            self._features = self._compute_features(model.eval())
        return model

    @property
    def _train_records(self) -> list[Any]:
        return [self.data.records[i] for i in self.splits.train.tolist()]

    def _solve(self, model: HyenaDNA, training: TrainingRun) -> TrainingResult:
        """Fit a linear head with scikit-learn; every rank fits the same."""
        assert model.head is not None and self._features is not None  # noqa: S101, PT018  (internal invariant)
        plan = self._plan(model) | {"training": "scikit-learn, all at once"}
        log_plan(plan)
        train_NSD = self._features[self.splits.train]
        strands = train_NSD.shape[1] if self.settings.rc_augment else 1
        features_ND = train_NSD[:, :strands].swapaxes(0, 1).reshape(-1, train_NSD.shape[2])
        quality = fit_head(
            model.head,
            self._head,
            self.scheme,
            (features_ND, np.concatenate([self.evaluators["train"].targets] * strands)),
            (self._strand_mean(self._features[self.splits.valid]), self.evaluators["valid"]),
            balanced=self.settings.class_weights == "balanced",
        )
        training.progress = Progress(last=quality, best=quality, best_step=0)
        training.keep()
        return TrainingResult(training.progress, plan)

    def _train(self, model: HyenaDNA, training: TrainingRun) -> TrainingResult:
        settings, examples = self.settings, self._examples(model)
        epochs = examples.epochs
        times = f"{settings.epochs} {'epoch' if settings.epochs == 1 else 'epochs'}"
        plan = self._plan(model) | {
            "training": f"at most {epochs.steps:,} steps of {epochs.batch_size} sequences, {times}; the "
            f"model with the best valid {monitor(self.scheme.task)} is kept, {settings.patience} evaluations "
            "without a better one end the run"
        }
        batch = BatchShape(epochs.longest, epochs.batch_size)
        return self.train(training, examples, epochs, batch, epochs.per_epoch, plan)

    def _examples(self, model: HyenaDNA) -> EpochExamples:
        settings, targets = self.settings, self._train_targets
        order = partial(
            Epochs,
            batch_size=settings.batch_size or 1,
            epochs=settings.epochs or 0,
            seed=settings.seed,
            rc_augment=settings.rc_augment,
        )
        if self._features is not None:
            return FeatureExamples(self._features[self.splits.train], targets, order)
        return self.method.examples(model, settings, self.scheme, self._train_records, targets, order)

    def _plan(self, model: HyenaDNA) -> dict[str, str]:
        """Describe what is learnt, from what and by what, in a few lines."""
        plan, demonstrations = {"labels": self.scheme.sentence}, model.config.demonstrations
        if demonstrations is not None:
            letters = zip(demonstrations.letters, demonstrations.labels, strict=True)
            classes = ", ".join(f"{letter} is {label}" for letter, label in letters)
            plan["demonstrations"] = f"{self.settings.shots} of each class; {classes}"
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
        }

    def evaluation_config(self) -> EvaluationConfig:
        """Return the choices of the evaluation at the end."""
        settings = self.settings
        return EvaluationConfig(
            self.criterion, settings.seed, calibrate=settings.calibrate, letters=not self.method.has_head
        )

    def fit_baseline(self) -> Baseline | None:
        """Fit the k-mer model to the same splits; None where there is to be none."""
        return self._baseline()

    def write_tables(self, model: HyenaDNA, evaluation: EvaluationResult, model_sha256: str) -> None:
        """Write the predictions of the evaluated splits."""
        write_predictions(
            self.settings, self.data, self.splits, head_of(model), evaluation.splits, model_sha256
        )

    @cached_property
    def evaluators(self) -> dict[str, SplitEvaluator]:
        """The labels of every split that has records."""
        return {
            split: SplitEvaluator(self.scheme, [self.data.targets[i] for i in indices])
            for split, indices in self.splits.indices().items()
        }

    def predict_split(self, model: HyenaDNA, split: str) -> list[Logits]:
        """Compute a model's logits of the records of a split; the same on every rank.

        Raises:
            UserError: as `predict`.
        """
        model.eval()
        indices = self.splits.indices()[split]
        per_base = self.scheme.level == "nucleotide"
        sizes = [len(self.data.records[i].sequence) if per_base else 0 for i in indices]
        compute = self._predict if self._features is None else self._project
        with torch.inference_mode(), self.precision():
            return predict_over_ranks(compute, model, indices, sizes, self.device)

    def _predict(self, model: HyenaDNA, indices: Sequence[int]) -> list[Logits]:
        records = (as_sequence_record(self.data.records[i]) for i in indices)
        answers = predict(model, records, rc=self.settings.rc == "mean")
        return [answer.logits for answer in answers if answer.logits is not None]

    def _project(self, model: HyenaDNA, indices: Sequence[int]) -> list[Logits]:
        assert self._features is not None and model.head is not None  # noqa: S101, PT018  (internal invariant)
        # in float64, as `predict` does it: no autocast touches that
        head = deepcopy(model.head).cpu().double()
        states_ND = torch.from_numpy(self._strand_mean(self._features[indices])).double()
        return list(head.project(states_ND).numpy())

    def _strand_mean(self, features_NSD: Features) -> Features:
        """Return the features (N, D) of predictions: of one strand, or the mean of both."""
        mean_ND: Features = features_NSD.mean(axis=1) if self.settings.rc == "mean" else features_NSD[:, 0]
        return mean_ND

    def _compute_features(self, model: HyenaDNA) -> Features:
        """Compute the pooled states (N, S, D) of every record; of both strands where either is needed."""
        records, ranks = self.data.records, current_ranks()
        strands = 2 if self.settings.rc_augment or self.settings.rc == "mean" else 1
        options = EmbeddingOptions(
            pooling=Pooling(self.settings.pool),
            rc="concat" if strands == 2 else "none",
            window=self.settings.max_length,
        )
        features_NF = np.zeros((len(records), strands * model.config.d_model))
        indices = range(ranks.rank, len(records), ranks.world_size)
        console.log.info("computing the features of %s sequences", f"{len(records):,}")
        with torch.inference_mode(), self.precision(), console.progress() as bar:
            task = bar.add_task("features", total=len(indices))
            answers = embed(model, (as_sequence_record(records[i]) for i in indices), options)
            for i, answer in zip(indices, answers, strict=True):
                assert answer.vectors is not None  # noqa: S101  (internal invariant)
                features_NF[i] = answer.vectors[0, 0]
                bar.update(task, advance=1)
        summed: Features = sum_array(features_NF, device=self.device).astype(np.float32)
        return summed.reshape(len(records), strands, -1)


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
