"""Metrics of predictions: one set for each task, with bootstrap intervals.

Legend of shape suffixes: N sequences, P items (a label with its prediction), D draws, C classes, T columns.
At nucleotide level an axis of positions comes after that of the sequences; or else, where sequences differ in
length, the first axis is that of all positions (P), and `sequence_P` says whose they are.
"""

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import Protocol

import numpy as np
import numpy.typing as npt

from hyenacli.evaluation.bootstrap import Agreement, Confusion, Floats, Ints, Ranking, Weights, mean, median
from hyenadna.config import Task

MISSING = -100
# Weights in a block of draws: small enough for the cache, many enough for the interpreter not to matter.
BLOCK_ITEMS = 1 << 18
_NORMAL = NormalDist()
_MAX_SHIFT = 1.5
_MONITOR = {"binary": "mcc", "multiclass": "mcc", "multilabel": "auroc", "regression": "r2"}


class Scorer(Protocol):
    """Predictions sorted in advance for any number of draws."""

    def metrics(self, weights_DN: Weights) -> dict[str, Floats]:
        """Compute each metric under each draw's weights, (D,)."""
        ...


def monitor(task: Task) -> str:
    """Return the metric that selects models of a task on the validation split; higher is better.

    >>> monitor("binary")
    'mcc'
    """
    return _MONITOR[task]


def metric_names(task: Task, columns: int) -> tuple[str, ...]:
    """Return the names of what `measure` returns, in its order, for so many columns.

    >>> metric_names("regression", 1)
    ('pearson', 'spearman', 'r2', 'mse')
    """
    if task in ("binary", "multiclass"):
        return "accuracy", "balanced_accuracy", "mcc", "macro_f1", "auroc", "auprc"
    if task == "multilabel":
        return "auroc", "auprc", "auroc_median", "auprc_median", "columns_left_out"
    return ("pearson", "spearman", "r2", "mse", *("columns_left_out",) * (columns > 1))


def measure(
    task: Task, targets: npt.ArrayLike, outputs: npt.ArrayLike, sequence_P: Ints | None = None
) -> dict[str, float]:
    """Compute the metrics of a task, in an order that depends on the task only.

    binary and multiclass: accuracy, balanced_accuracy, mcc, macro_f1, auroc, auprc; the last two are of
    class 1 if there are two classes, else means over the classes, each against all others. multilabel: auroc
    and auprc as means over the columns, auroc_median, auprc_median. regression: pearson, spearman, r2, mse,
    means over the columns. Where there are columns, those in which a metric is undefined (a single class, a
    constant) are left out, and columns_left_out says how many; what is undefined everywhere is NaN.
    Definitions are scikit-learn's and SciPy's; AUPRC is average precision.

    Args:
        task: what the outputs mean.
        targets: binary and multiclass: classes (N,), negative where missing. multilabel: 0 or 1 (N, T),
            negative or NaN where missing. regression: numbers (N, T), or (N,) for one column, NaN where
            missing. Missing ones are left out.
        outputs: probabilities (N, C), the highest being the prediction; probabilities (N, T); numbers (N, T).
        sequence_P: the sequence of each item, from 0 on, where the first axis is of items.

    Raises:
        ValueError: shapes that do not fit, a class without an output, or outputs that are not numbers.

    >>> measure("regression", [1.0, 2.0, 3.0], [1.0, 2.0, 4.0])["mse"]
    0.3333333333333333
    """
    scorer, size = make_scorer(task, targets, outputs, sequence_P)
    values = scorer.metrics(np.ones((1, size[0]), dtype=np.int32))
    return {name: float(value_D[0]) for name, value_D in values.items()}


def intervals(
    task: Task,
    targets: npt.ArrayLike,
    outputs: npt.ArrayLike,
    sequence_P: Ints | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Compute 95 % bootstrap intervals of what `measure` returns, except the count of columns.

    Sequences are drawn with replacement, each with all its positions and columns. Of the draws in which the
    metric is defined, the interval holds the middle 95 %, corrected for the draws' bias (Efron's BC interval:
    where a share s of the draws lies below the estimate, the middle is shifted by twice the normal quantile
    of s): a sample of few positives, say, has a higher average precision than the sequences it is drawn from.

    Args:
        task: as for `measure`.
        targets: as for `measure`.
        outputs: as for `measure`.
        sequence_P: as for `measure`.
        draws: how many.
        seed: of the draws.

    Raises:
        ValueError: as for `measure`.
    """
    scorer, size = make_scorer(task, targets, outputs, sequence_P)
    estimates = scorer.metrics(np.ones((1, size[0]), dtype=np.int32))
    blocks = [scorer.metrics(weights_DN) for weights_DN in bootstrap_weights(size, draws, seed)]
    result = {
        name: _interval(np.concatenate([block[name] for block in blocks]), float(estimate_1[0]))
        for name, estimate_1 in estimates.items()
    }
    result.pop("columns_left_out", None)
    return result


def _interval(value_D: Floats, estimate: float) -> tuple[float, float]:
    """Return the bias-corrected 95 % interval of draws."""
    value_D = value_D[~np.isnan(value_D)]
    if not value_D.size or math.isnan(estimate):
        return math.nan, math.nan
    below = ((value_D < estimate).mean() + (value_D <= estimate).mean()) / 2
    # an estimate beyond nearly all draws would leave no interval on one side
    shift = 2 * min(max(_NORMAL.inv_cdf(min(max(below, 1e-9), 1 - 1e-9)), -_MAX_SHIFT), _MAX_SHIFT)
    low, high = (100 * _NORMAL.cdf(shift + side * _NORMAL.inv_cdf(0.975)) for side in (-1, 1))
    ends = np.percentile(value_D, [low, high])
    return min(float(ends[0]), estimate), max(float(ends[1]), estimate)


def measure_columns(task: Task, targets: npt.ArrayLike, outputs: npt.ArrayLike) -> dict[str, Floats]:
    """Compute the metrics (T,) of every column of a multilabel or regression task, NaN where undefined.

    Raises:
        ValueError: as for `measure`, or a task without columns.
    """
    targets, outputs = _columns(task, targets, outputs)
    scorer = _Columns(task, targets, outputs, _sequences(targets[..., 0]))
    return {
        name: value_TD[:, 0]
        for name, value_TD in scorer.by_column(np.ones((1, len(targets)), dtype=np.int32)).items()
    }


def bootstrap_weights(
    size: tuple[int, int], draws: int, seed: int, block_items: int = BLOCK_ITEMS
) -> Iterator[Weights]:
    """Yield blocks (D, N) of how often each sequence is drawn, independent of the size of a block."""
    rng = np.random.default_rng(seed)
    n, block = size[0], max(8, block_items // size[1])
    for first in range(0, draws, block):
        count = min(block, draws - first)
        counts = [np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(count)]
        yield np.array(counts, dtype=np.int32)


def make_scorer(
    task: Task, targets: npt.ArrayLike, outputs: npt.ArrayLike, sequence_P: Ints | None = None
) -> tuple[Scorer, tuple[int, int]]:
    """Return the scorer of these predictions, and the numbers of sequences and items."""
    if task in ("multilabel", "regression"):
        targets, outputs = _columns(task, targets, outputs)
        sequences = _sequences(targets[..., 0]) if sequence_P is None else sequence_P
        return _Columns(task, targets, outputs, sequences), _size(sequences)
    targets, outputs = _numbers(targets, outputs)
    if outputs.shape[:-1] != targets.shape or outputs.shape[-1] < 2:
        raise ValueError(f"targets {targets.shape} and probabilities {outputs.shape} do not fit")
    if not (task == "multiclass" or outputs.shape[-1] == 2):
        raise ValueError(f"a {task} task has 2 classes, not {outputs.shape[-1]}")
    sequences = _sequences(targets) if sequence_P is None else sequence_P
    return _Classes(targets, outputs, sequences), _size(sequences)


def _size(sequences: Ints) -> tuple[int, int]:
    """Count sequences and items."""
    return int(sequences.max()) + 1, sequences.size


class _Classes:
    """Predictions of one class each."""

    def __init__(self, targets: Floats, outputs: Floats, sequences: Ints):
        labelled = targets >= 0
        sequence_P = sequences[labelled]
        truth_P, outputs_PC = targets[labelled].astype(np.int64), outputs[labelled]
        classes = outputs.shape[-1]
        if truth_P.size and truth_P.max() >= classes:
            raise ValueError(f"class {truth_P.max()} has no output among {classes}")
        self._confusion = Confusion(sequence_P, truth_P, outputs_PC.argmax(axis=1), classes)
        self._rankings = [
            Ranking(sequence_P, truth_P == c, outputs_PC[:, c])
            for c in (range(classes) if classes > 2 else (1,))
        ]

    def metrics(self, weights_DN: Weights) -> dict[str, Floats]:
        """Compute the metrics of the confusion matrix, then the areas."""
        areas_C2D = np.array([ranking.areas(weights_DN) for ranking in self._rankings])
        return self._confusion.metrics(weights_DN) | {
            "auroc": mean(areas_C2D[:, 0]),
            "auprc": mean(areas_C2D[:, 1]),
        }


class _Columns:
    """Predictions of a number or of a probability in each of several columns."""

    def __init__(self, task: Task, targets: Floats, outputs: Floats, sequences: Ints):
        self._labels = task == "multilabel"
        self._columns: list[Ranking | Agreement] = []
        for t in range(targets.shape[-1]):
            truth, scores = targets[..., t], outputs[..., t]
            # any number may be measured, but no label is negative
            labelled = (truth >= 0) if self._labels else ~np.isnan(truth)
            items = sequences[labelled], truth[labelled], scores[labelled]
            self._columns.append(_ranking(*items) if self._labels else Agreement(*items))

    def by_column(self, weights_DN: Weights) -> dict[str, Floats]:
        """Compute each metric (T, D)."""
        by_column = [
            dict(zip(("auroc", "auprc"), column.areas(weights_DN), strict=True))
            if isinstance(column, Ranking)
            else column.metrics(weights_DN)
            for column in self._columns
        ]
        return {name: np.array([metrics[name] for metrics in by_column]) for name in by_column[0]}

    def metrics(self, weights_DN: Weights) -> dict[str, Floats]:
        """Average over columns; add medians for labels, and the number of columns left out of a mean."""
        columns = self.by_column(weights_DN)
        metrics = {name: mean(value_TD) for name, value_TD in columns.items()}
        if self._labels:
            metrics |= {f"{name}_median": median(value_TD) for name, value_TD in columns.items()}
        if self._labels or len(self._columns) > 1:
            undefined_TD = np.any([np.isnan(value_TD) for value_TD in columns.values()], axis=0)
            metrics["columns_left_out"] = undefined_TD.sum(axis=0).astype(np.float64)
        return metrics


def _ranking(sequence_P: Ints, truth_P: Floats, scores_P: Floats) -> Ranking:
    if not np.isin(truth_P, (0, 1)).all():
        raise ValueError("labels of a multilabel task are 0 and 1")
    return Ranking(sequence_P, truth_P == 1, scores_P)


def _columns(task: Task, targets: npt.ArrayLike, outputs: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return targets and outputs of the same shape with columns as the last axis."""
    if task not in ("multilabel", "regression"):
        raise ValueError(f"a {task} task has no columns")
    targets, outputs = _numbers(targets, outputs)
    if targets.ndim == 1 and outputs.ndim == 1:
        targets, outputs = targets[:, None], outputs[:, None]
    elif (*targets.shape, 1) == outputs.shape:
        targets = targets[..., None]
    if targets.shape != outputs.shape:
        raise ValueError(f"targets {targets.shape} and outputs {outputs.shape} do not fit")
    return targets, outputs


def _numbers(targets: npt.ArrayLike, outputs: npt.ArrayLike) -> tuple[Floats, Floats]:
    targets, outputs = np.asarray(targets, dtype=np.float64), np.asarray(outputs, dtype=np.float64)
    if not (targets.size and outputs.size):
        raise ValueError("there are no predictions")
    if not np.isfinite(outputs).all():
        raise ValueError("outputs are not finite")
    return targets, outputs


def _sequences(targets: Floats) -> Ints:
    """Return the index of the sequence at every position of an array whose first axis is sequences."""
    numbers = np.arange(len(targets)).reshape(-1, *[1] * (targets.ndim - 1))
    return np.broadcast_to(numbers, targets.shape)


def compare_with_guessing(nats: float) -> str | None:
    """Return a sentence on a loss per base that is worse than that of a guess; None for any other.

    >>> compare_with_guessing(1.2), compare_with_guessing(2.5)
    (None, 'a loss of 2.5000 nats per base is worse than guessing: equal probabilities score 1.3863')
    """
    if not nats > math.log(4):
        return None
    guess = f"equal probabilities score {math.log(4):.4f}"
    return f"a loss of {nats:.4f} nats per base is worse than guessing: {guess}"


def describe_bits(nats: float) -> str:
    """Say what a loss per base means, in bits and beside a guess.

    >>> describe_bits(1.2)
    '1.731 bits per base, 13.4 % less than the 2 of guessing'
    """
    bits = nats / math.log(2)
    change = f"{100 * abs(bits / 2 - 1):.1f} % {'more' if bits > 2 else 'less'}"
    return f"{bits:.3f} bits per base, {change} than the 2 of guessing"


def paired_difference(
    task: Task,
    targets: npt.ArrayLike,
    outputs: npt.ArrayLike,
    others: npt.ArrayLike,
    sequence_P: Ints | None = None,
    *,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, tuple[float, float, float]]:
    """Compute how far each metric of `outputs` lies above that of `others`, with a 95 % bootstrap interval.

    Both are measured on the same draws of sequences, so that what makes a draw easy for both cancels.

    Args:
        task: as for `measure`.
        targets: as for `measure`.
        outputs: predictions of the same sequences, as for `measure`.
        others: what they are compared with.
        sequence_P: as for `measure`.
        draws: how many.
        seed: of the draws.

    Returns:
        Of each metric its difference, and the lower and upper end of the interval.
    """
    scorers = [make_scorer(task, targets, values, sequence_P) for values in (outputs, others)]
    size = scorers[0][1]

    def differences(weights_DN: Weights) -> dict[str, Floats]:
        first, second = (scorer.metrics(weights_DN) for scorer, _ in scorers)
        return {name: first[name] - second[name] for name in first if name != "columns_left_out"}

    estimates = differences(np.ones((1, size[0]), dtype=np.int32))
    blocks = [differences(weights_DN) for weights_DN in bootstrap_weights(size, draws, seed)]
    result = {}
    for name, estimate_1 in estimates.items():
        estimate = float(estimate_1[0])
        result[name] = (estimate, *_interval(np.concatenate([block[name] for block in blocks]), estimate))
    return result
