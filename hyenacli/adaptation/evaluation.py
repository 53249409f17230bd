"""Evaluation of an adapted model: metrics of every split, calibration, and baselines beside them.

N record, P base of any record, C output.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hyenacli.adaptation.examples import Criterion
from hyenacli.adaptation.labels import LabelScheme, Targets
from hyenacli.distributed import current_ranks, sum_array
from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.calibration import Calibration, calibrate, cross_entropy, probabilities
from hyenacli.evaluation.joining import Joint
from hyenacli.evaluation.metrics import intervals, measure, paired_difference
from hyenacli.inference.experts import ExpertModel
from hyenacli.inference.prediction import prediction_head
from hyenadna import HyenaDNA

Logits = NDArray[np.float64]
# Labels times bootstrap draws: labels of bases are many, and get fewer draws.
_MAX_DRAWN = 1 << 28
_DRAWS = (100, 1000)


class SplitEvaluator:
    """The labels of one split, and the metrics of a model's logits against them.

    Attributes:
        targets: of all: (N,) or (N, C), or of their bases, one record after the other, (P,) or (P, C).
    """

    def __init__(self, scheme: LabelScheme, targets: Sequence[Targets]) -> None:
        self.scheme = scheme
        self._per_base = scheme.level == "nucleotide"
        self.targets = self.stacked(targets)
        # the record of each base
        lengths = [len(target) for target in targets] if self._per_base else []
        self._record_P = np.repeat(np.arange(len(targets)), lengths) if self._per_base else None

    def stacked(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Join the arrays of all records: (N, ...), or (P, ...) where labels are those of bases."""
        return np.concatenate(arrays) if self._per_base else np.stack(arrays)

    def outputs(self, logits: Sequence[Logits]) -> Floats:
        """Return what `measure` takes: probabilities or numbers, of shapes as `stacked`."""
        return probabilities(self.scheme.task, self.stacked(logits))

    def loss(self, logits: Sequence[Logits], criterion: Criterion) -> float:
        """Compute the mean loss of a label."""
        outputs, targets = torch.from_numpy(self.stacked(logits)), torch.from_numpy(self.targets)
        return float(criterion.loss(outputs, targets)) / max(1.0, criterion.count(self.targets))

    def metrics(self, logits: Sequence[Logits]) -> dict[str, float]:
        """Compute the metrics of the task; see `measure`."""
        return measure(self.scheme.task, self.targets, self.outputs(logits), self._record_P)

    @property
    def draws(self) -> int:
        """Bootstrap draws of `intervals`."""
        return int(np.clip(_MAX_DRAWN // self.targets.size, *_DRAWS))

    def difference(
        self, logits: Sequence[Logits], others: Sequence[Logits], metric: str, seed: int
    ) -> tuple[float, float, float]:
        """Compute by how much a metric is above that of other logits, with a paired 95 % interval."""
        outputs, other_outputs = self.outputs(logits), self.outputs(others)
        return paired_difference(
            self.scheme.task,
            self.targets,
            outputs,
            other_outputs,
            self._record_P,
            draws=self.draws,
            seed=seed,
        )[metric]

    def intervals(self, logits: Sequence[Logits], seed: int) -> dict[str, tuple[float, float]]:
        """Compute 95 % bootstrap intervals of the metrics; records are drawn."""
        outputs = self.outputs(logits)
        return intervals(self.scheme.task, self.targets, outputs, self._record_P, draws=self.draws, seed=seed)


@dataclass(frozen=True)
class SplitResult:
    """Logits of one split, and their metrics.

    Attributes:
        logits: of its records: (C,) each, or (bases, C).
        loss: mean of a label.
        label_share: how often the likeliest token is the letter of a class, where classes are letters.
    """

    evaluator: SplitEvaluator
    logits: list[Logits]
    loss: float
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    label_share: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what metrics.json says of the split."""
        return {
            "records": len(self.logits),
            "loss": self.loss,
            **({} if self.label_share is None else {"label_share": self.label_share}),
            "metrics": with_intervals(self.metrics, self.intervals),
        }


@dataclass(frozen=True)
class Baseline:
    """A model of words on the same splits, which may join the network as an expert.

    Attributes:
        kind: as --experts calls it.
        title: what it is called, in the plural.
        description: what it was fitted to and how, for the report.
        model: fitted to the training split, with choices made by the validation split.
        outputs: of the model (E, N, T), by split; empty where it cannot join.
        splits: the results of its outputs, which are weighted by the validation split where they are several.
        facts: what metrics.json says of it before its results.
    """

    kind: Literal["kmers", "markov"]
    title: str
    description: str
    model: ExpertModel
    outputs: dict[str, Floats]
    splits: dict[str, SplitResult]
    facts: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return what metrics.json says of the baseline."""
        return {**self.facts, "splits": {name: result.to_json() for name, result in self.splits.items()}}


@dataclass(frozen=True)
class Verdict:
    """How far a model is above a baseline on the same records.

    Attributes:
        metric: which is compared.
        split: of the records.
        baseline: what it is called, in the plural.
        values: of the model and of the baseline.
        difference: of both, with the ends of its paired bootstrap interval.
        joined: what the predictors are called that are joined, if any are.
    """

    metric: str
    split: str
    baseline: str
    values: tuple[float, float]
    difference: tuple[float, float, float]
    joined: Sequence[str] = ()

    @property
    def sentence(self) -> str:
        """The comparison in plain words."""
        change, low, high = self.difference
        *others, final = self.joined or ("", "")
        model = f"{', '.join(others)} and {final} joined are" if self.joined else "the model is"
        where = f"{self.split} {self.metric} {self.values[0]:.3f}, {self.baseline} {self.values[1]:.3f}"
        span = f"{abs(change):.3f} [{low:.3f}, {high:.3f}]"
        if low > 0:
            return f"{model} better than {self.baseline} by {span} ({where})"
        if high < 0:
            remedy = f"use the {self.baseline}, train longer, or begin with published weights"
            span = f"{-change:.3f} [{-high:.3f}, {-low:.3f}]"
            return f"{model} worse than {self.baseline} by {span} ({where}): {remedy}"
        return f"{model} no different from {self.baseline}: {change:+.3f} [{low:.3f}, {high:.3f}] ({where})"

    def to_json(self) -> dict[str, Any]:
        """Return what metrics.json says of the comparison."""
        change, low, high = self.difference
        return {
            "sentence": self.sentence,
            "metric": self.metric,
            "split": self.split,
            "baseline": self.baseline,
            "values": {"model": self.values[0], "baseline": self.values[1]},
            "difference": {"value": change, "low": low, "high": high},
        }


@dataclass(frozen=True)
class PieceJoint:
    """What joins the network on pieces of one length, longer than its window.

    Attributes:
        count: validation pieces that it was chosen and fitted by.
        joint: the weights of network and experts.
        models: the experts that have joined, fitted to pieces of the length.
    """

    count: int
    joint: Joint
    models: tuple[ExpertModel, ...]

    @property
    def sentence(self) -> str:
        """What is joined, and what that gains."""
        losses = ", ".join(f"{name} {loss:.3f}" for name, loss in self.joint.losses.items())
        return f"{' + '.join(self.joint.members)} by {self.count:,} validation pieces (losses: {losses})"

    def to_json(self) -> dict[str, Any]:
        """Return what metrics.json says of it."""
        return {"pieces": self.count, **asdict(self.joint)}


@dataclass(frozen=True)
class EvaluationResult:
    """Results of all splits that a model was evaluated on.

    Attributes:
        splits: each, in the order train, valid, test; of the joined model where experts have joined it.
        baselines: models of words on the same splits.
        calibration: temperature and offsets fitted to the validation split, or None.
        network: the splits of the network alone, where an expert has joined it.
        joint: the weights of network and experts, where they were fitted.
        verdict: the model beside the baseline that is best on the validation split, on the final split.
        clean: the test records that resemble no training record, where some do.
        pieces: what joins the network on longer sequences than its window, by the length of their pieces.
    """

    splits: dict[str, SplitResult]
    baselines: Sequence[Baseline] = ()
    calibration: Calibration | None = None
    network: dict[str, SplitResult] | None = None
    joint: Joint | None = None
    verdict: Verdict | None = None
    clean: SplitResult | None = None
    pieces: Mapping[int, PieceJoint] = field(default_factory=dict)

    @property
    def members(self) -> list[Baseline]:
        """The baselines that have joined the network."""
        joined = () if self.network is None or self.joint is None else self.joint.members
        return [baseline for baseline in self.baselines if baseline.kind in joined]

    @property
    def final_split(self) -> str:
        """The split that generalisation is read from: test, or else valid."""
        return list(self.splits)[-1]

    def to_json(self) -> dict[str, Any]:
        """Return what metrics.json says of the evaluation."""
        calibration = self.calibration and {
            "temperature": self.calibration.temperature,
            "offsets": list(self.calibration.offsets),
            "valid_loss": self.calibration.loss,
            "valid_calibration_error": self.calibration.error,
        }
        draws = max(result.evaluator.draws for result in self.splits.values())
        return {
            "splits": {name: result.to_json() for name, result in self.splits.items()},
            "verdict": self.verdict and self.verdict.to_json(),
            "clean_test": self.clean and self.clean.to_json(),
            "network": self.network and {name: result.to_json() for name, result in self.network.items()},
            "experts": self.joint
            and {
                **asdict(self.joint),
                "joined": self.network is not None,
                "on_pieces": {str(length): part.to_json() for length, part in self.pieces.items()},
            },
            **{f"{baseline.kind}_baseline": baseline.to_json() for baseline in self.baselines},
            "calibration": calibration,
            "intervals": f"95 % bootstrap over records, {draws} draws",
        }


@dataclass(frozen=True)
class EvaluationConfig:
    """Choices of an evaluation.

    Attributes:
        seed: of the bootstrap.
        calibrate: scale the probabilities to fit the validation split first.
        offsets: also let classes count the same on the validation split; see `calibrate`.
        letters: logits are those of letters among all tokens.
    """

    criterion: Criterion
    seed: int
    calibrate: bool = False
    offsets: bool = False
    letters: bool = False


def evaluate_split(evaluator: SplitEvaluator, logits: list[Logits], config: EvaluationConfig) -> SplitResult:
    """Compute the loss and metrics of a split, with intervals."""
    return SplitResult(
        evaluator,
        logits,
        evaluator.loss(logits, config.criterion),
        evaluator.metrics(logits),
        evaluator.intervals(logits, config.seed),
        label_share(logits) if config.letters else None,
    )


def describe_guess(result: SplitResult) -> str | None:
    """Return a sentence if a split is predicted no better than by its mean or its class frequencies."""
    scheme, metrics, targets = result.evaluator.scheme, result.metrics, result.evaluator.targets
    name, chance = {"regression": ("r2", 0.0), "multilabel": ("auroc", 0.5)}.get(scheme.task, ("mcc", 0.0))
    if metrics[name] <= chance:
        return f"the validation split is predicted no better than by guessing ({name} {metrics[name]:.3f})"
    if not scheme.has_classes:
        return None
    loss = cross_entropy(scheme.task, result.evaluator.stacked(result.logits), targets)
    _, counts = np.unique(targets[targets >= 0], return_counts=True)
    shares = counts / counts.sum()
    guess = float(-(shares * np.log(shares)).sum())
    if loss <= guess:
        return None
    return (
        f"the probabilities fit the validation split worse than the frequencies of its classes do (loss "
        f"{loss:.3f}, and {guess:.3f})"
    )


def evaluate_splits(
    model: HyenaDNA,
    evaluators: Mapping[str, SplitEvaluator],
    logits: Mapping[str, list[Logits]],
    config: EvaluationConfig,
) -> EvaluationResult:
    """Evaluate a model's logits, calibrated first where `config` says so, which changes the model.

    Args:
        model: whose logits they are.
        evaluators: the labels of each split.
        logits: of each split.
        config: how.
    """
    calibration = None
    if config.calibrate:
        valid = evaluators["valid"]
        stacked, task = valid.stacked(logits["valid"]), valid.scheme.task
        calibration = calibrate(task, stacked, valid.targets, offsets=config.offsets)
        apply_calibration(model, calibration)
        logits = {name: [calibration.apply(record) for record in split] for name, split in logits.items()}
    splits = {name: evaluate_split(evaluator, logits[name], config) for name, evaluator in evaluators.items()}
    return EvaluationResult(splits, calibration=calibration)


def apply_calibration(model: HyenaDNA, calibration: Calibration) -> None:
    """Change a model's head, or the temperature of its demonstrations, so that it predicts calibrated."""
    if (shots := model.config.demonstrations) is not None:
        temperature = shots.temperature * calibration.temperature
        model.set_demonstrations(replace(shots, temperature=temperature))
        return
    assert model.head is not None  # noqa: S101  (internal invariant)
    affine = model.head.output_transform
    with torch.no_grad():
        for parameter in affine.parameters():
            parameter.div_(calibration.temperature)
        if calibration.offsets:
            affine.bias.add_(torch.tensor(calibration.offsets))


def label_share(logits: Sequence[Logits]) -> float:
    """Return how often the likeliest of all tokens is a letter, from logits of `answer_in_context`."""
    return float(np.mean([logits_C.max() == 0 for logits_C in logits]))


def predict_over_ranks(
    predict: Callable[[HyenaDNA, Sequence[int]], list[Logits]],
    model: HyenaDNA,
    indices: Sequence[int],
    sizes: Sequence[int],
    device: torch.device,
) -> list[Logits]:
    """Compute the logits of records, of which every rank computes a part; the same on all ranks.

    Args:
        predict: returns the logits of records by their indices: (C,) each, or (bases, C).
        model: on its device.
        indices: of the records.
        sizes: rows of the logits of each record: its bases, or 0 where they are (C,).
        device: of the model.
    """
    ranks = current_ranks()
    if ranks.world_size == 1:
        return predict(model, indices)
    positions = range(ranks.rank, len(indices), ranks.world_size)
    computed = predict(model, [indices[i] for i in positions]) if positions else []
    rows = [max(1, size) for size in sizes]
    ends = np.cumsum(rows)
    logits_RC = np.zeros((int(ends[-1]), prediction_head(model).n_outputs))
    for i, logits in zip(positions, computed, strict=True):
        logits_RC[ends[i] - rows[i] : ends[i]] = logits
    parts = np.split(sum_array(logits_RC, device=device), ends[:-1])
    return [part if size else part[0] for part, size in zip(parts, sizes, strict=True)]


def with_intervals(metrics: Mapping[str, float], bounds: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """Return each metric as metrics.json has it: its value, and the ends of its interval."""
    return {
        name: {"value": value} | ({"low": bounds[name][0], "high": bounds[name][1]} if name in bounds else {})
        for name, value in metrics.items()
    }
