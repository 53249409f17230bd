"""Probabilities that mean what they say: temperature scaling on validation data, and how far off they are.

Guo et al., On calibration of modern neural networks, arXiv 1706.04599; with an offset for each class,
Alexandari et al., Maximum likelihood with bias-corrected calibration, arXiv 1901.06852.

Arrays are shaped as in `quality`: targets (N,) or (N, positions), negative where missing, and logits with the
classes C as a further axis; of a multilabel task both are (..., T), targets 0 or 1, negative or NaN where
missing.

Legend of shape suffixes: P items, C classes, K bins.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hyenacli.evaluation.bootstrap import Floats, ratio
from hyenadna.config import Task

BINS = 15
# Beyond these the data are told apart perfectly, or the wrong way round: no temperature is right.
_LOWEST, _HIGHEST = 0.01, 100.0
_UNTOUCHED = 1.0
_STEPS = 60
_ROUNDS, _CLOSE = 1_000, 1e-9


@dataclass(frozen=True)
class Calibration:
    """What temperature scaling found and did, on the data it was fitted to.

    Attributes:
        temperature: what logits are divided by; above 1 where the model was too sure.
        offsets: what is then added to the logit of each class, 0 in the mean; empty for nothing.
        items: labels it was fitted to.
        loss: mean nats per label before and after.
        error: expected calibration error before and after.
    """

    temperature: float
    offsets: tuple[float, ...]
    items: int
    loss: tuple[float, float]
    error: tuple[float, float]

    @property
    def useless(self) -> bool:
        """Whether logits are best left aside."""
        return self.temperature >= _HIGHEST

    def apply(self, logits: Floats) -> Floats:
        """Logits (..., C) as they are after it."""
        return logits / self.temperature + (np.array(self.offsets) if self.offsets else 0.0)


@dataclass(frozen=True)
class Reliability:
    """Probabilities in `BINS` bins of equal width, beside how often they came true.

    Attributes:
        count_K: items of each bin.
        predicted_K: their mean probability, NaN in an empty bin.
        observed_K: the share of them that came true.
    """

    count_K: Floats
    predicted_K: Floats
    observed_K: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: the mean distance of both, by items; NaN without any."""
        gap_K = np.abs(np.nan_to_num(self.predicted_K - self.observed_K))
        return float(gap_K @ self.count_K / self.count_K.sum()) if self.count_K.any() else float("nan")


def probabilities(task: Task, logits: npt.ArrayLike, temperature: float = 1.0) -> Floats:
    """What a model's logits mean as `quality.measure` takes it, in float64.

    Softmax over classes, where a single logit of a binary task is class 1 against class 0; sigmoids of a
    multilabel task; the numbers themselves for regression.

    >>> probabilities("binary", [[0.0], [2.0]]).round(3).tolist()
    [[0.5, 0.5], [0.119, 0.881]]
    """
    values = np.asarray(logits, dtype=np.float64)
    if task == "regression":
        return values
    pairs = _as_classes(task, values) / temperature
    shares: Floats = np.exp(pairs - pairs.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return shares[..., 1] if task == "multilabel" else shares


def calibrate(
    task: Task, logits: npt.ArrayLike, targets: npt.ArrayLike, *, offsets: bool = False
) -> Calibration:
    """The temperature with the least cross entropy, between 0.01 and 100.

    Where all labels are told right, the loss falls with the temperature to the end, which would make every
    doubt a certainty; they do not say how sure to be, and the temperature is 1.

    Fit it on validation data: on training data it learns how well those are known.

    Args:
        task: of the labels, with probabilities.
        logits: of a model.
        targets: the labels, of every class if there are offsets.
        offsets: fit an offset for each class as well, every class counting the same: the one that the model
            would rather say than another loses what it has ahead.

    Raises:
        ValueError: a regression task, shapes that do not fit, or no label at all.
    """
    if task == "regression":
        raise ValueError("numbers have no temperature")
    logits_PC, truth_P = _items(task, logits, targets)
    if not len(truth_P):
        raise ValueError("there are no labels")
    weight_P = np.full(len(truth_P), 1 / len(truth_P))
    shifts_C = np.zeros(logits_PC.shape[1])
    if offsets:
        count_C = np.bincount(truth_P, minlength=len(shifts_C))
        if not count_C.all():
            raise ValueError("a class has no label")
        weight_P = 1 / (len(count_C) * count_C[truth_P])
        shifts_C = _best_shifts(logits_PC, truth_P, weight_P)
    items = (truth_P, weight_P)
    temperature = 1 / _best_scale(logits_PC + shifts_C, *items)
    both = ((logits_PC, 1.0), (logits_PC + shifts_C, temperature))
    before, after = (_loss(shifted_PC, *items, t) for shifted_PC, t in both)
    kind: Task = "multiclass" if logits_PC.shape[1] > 2 else "binary"
    errors = [reliability(kind, probabilities("multiclass", *one), truth_P).error for one in both]
    found = tuple((shifts_C / temperature).tolist()) if offsets else ()
    return Calibration(temperature, found, len(truth_P), (before, after), (errors[0], errors[1]))


def reliability(task: Task, outputs: npt.ArrayLike, targets: npt.ArrayLike) -> Reliability:
    """How often probabilities came true: of class 1, of every label, or of the likeliest of several classes.

    Args:
        task: binary, multiclass or multilabel.
        outputs: probabilities, as `quality.measure` takes them.
        targets: as there.

    Raises:
        ValueError: a regression task.
    """
    if task == "regression":
        raise ValueError("numbers have no reliability")
    values, truth = np.asarray(outputs, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    there = truth >= 0
    values_P, hit_P = values[there], truth[there]
    if task == "multiclass":
        hit_P = (values_P.argmax(axis=-1) == hit_P).astype(np.float64)
        values_P = values_P.max(axis=-1)
    elif task == "binary":
        values_P = values_P[:, 1]
    bin_P = np.minimum((values_P * BINS).astype(np.int64), BINS - 1)
    count_K, sum_K, hits_K = (
        np.bincount(bin_P, weights, minlength=BINS).astype(np.float64)
        for weights in (np.ones_like(hit_P), values_P, hit_P)
    )
    return Reliability(count_K, ratio(sum_K, count_K), ratio(hits_K, count_K))


def _as_classes(task: Task, logits: Floats) -> Floats:
    """Logits with an axis of classes: a lone logit stands against one that is 0."""
    if task == "multilabel":
        logits = logits[..., None]
    if task == "multiclass" or logits.shape[-1] == 2:
        return logits
    return np.concatenate([np.zeros_like(logits), logits], axis=-1)


def _items(task: Task, logits: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Logits (P, C) and classes (P,) of the labels that are there."""
    pairs = _as_classes(task, np.asarray(logits, dtype=np.float64))
    truth = np.asarray(targets, dtype=np.float64)
    if pairs.shape[:-1] != truth.shape:
        raise ValueError(f"targets {truth.shape} and logits {np.shape(logits)} do not fit")
    there = truth >= 0
    return pairs[there], truth[there].astype(np.int64)


def _loss(logits_PC: Floats, truth_P: npt.NDArray[np.int64], weight_P: Floats, temperature: float) -> float:
    """Mean nats per item."""
    scaled_PC = logits_PC / temperature
    scaled_PC = scaled_PC - scaled_PC.max(axis=1, keepdims=True)
    own_P = scaled_PC[np.arange(len(truth_P)), truth_P]
    return float((np.log(np.exp(scaled_PC).sum(axis=1)) - own_P) @ weight_P)


def _best_shifts(logits_PC: Floats, truth_P: npt.NDArray[np.int64], weight_P: Floats) -> Floats:
    """(C,), 0 in the mean: what to add to logits before they are scaled best.

    Iterative scaling: each round makes classes as probable in the mean as they are frequent, all of them the
    same by their weights, and scales anew; the loss never rises.
    """
    shifts_C = np.zeros(logits_PC.shape[1])
    for _ in range(_ROUNDS):
        scale = _best_scale(logits_PC + shifts_C, truth_P, weight_P)
        mean_C = weight_P @ probabilities("multiclass", logits_PC + shifts_C, 1 / scale)
        step_C = -np.log(mean_C * len(mean_C)) / scale
        shifts_C += step_C - step_C.mean()
        if np.abs(step_C).max() < _CLOSE:
            break
    return shifts_C


def _best_scale(logits_PC: Floats, truth_P: npt.NDArray[np.int64], weight_P: Floats) -> float:
    """1 / temperature, in which the loss is convex: Newton's steps, halved where they leave the bracket."""
    items = (logits_PC, truth_P, weight_P)
    low, high, scale = 1 / _HIGHEST, 1 / _LOWEST, 1.0
    if _slope(*items, high)[0] <= 0 and _slope(*items, scale)[0] < 0:
        return _UNTOUCHED
    if _slope(*items, low)[0] > 0:
        return low
    for _ in range(_STEPS):
        slope, curvature = _slope(*items, scale)
        if slope == 0:
            break
        low, high = (scale, high) if slope < 0 else (low, scale)
        step = scale - slope / curvature if curvature > 0 else low
        scale, before = step if low < step < high else (low + high) / 2, scale
        if abs(scale - before) < 1e-12 * before:
            break
    return scale


def _slope(
    logits_PC: Floats, truth_P: npt.NDArray[np.int64], weight_P: Floats, scale: float
) -> tuple[float, float]:
    """First and second derivative of the loss with respect to scale = 1 / temperature."""
    p_PC = probabilities("multiclass", logits_PC, 1 / scale)
    mean_P = (p_PC * logits_PC).sum(axis=1)
    own_P = logits_PC[np.arange(len(truth_P)), truth_P]
    spread_P = (p_PC * (logits_PC - mean_P[:, None]) ** 2).sum(axis=1)
    return float((mean_P - own_P) @ weight_P), float(spread_P @ weight_P)
