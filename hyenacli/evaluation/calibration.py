"""Probabilities, their calibration on validation data, and their calibration error.

Temperature scaling: Guo et al., On calibration of modern neural networks, arXiv 1706.04599; with an offset
for each class, Alexandari et al., Maximum likelihood with bias-corrected calibration, arXiv 1901.06852.

Targets are those of `metrics.measure`, logits have the classes C, or the columns, as a further axis.

P items, C classes, K bins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from hyenacli.evaluation.bootstrap import Floats, ratio
from hyenadna.config import Task

BINS = 15
MAX_TEMPERATURE = 100.0
_MAX_ITERATIONS = 500


@dataclass(frozen=True)
class Calibration:
    """Temperature and offsets, and their effect on the data they were fitted to.

    Attributes:
        temperature: divisor of the logits; above 1 where the model was overconfident.
        offsets: added to the divided logit of each class, 0 in the mean; empty where none were fitted.
        loss: mean nats per label before and after.
        error: expected calibration error before and after.
    """

    temperature: float
    offsets: tuple[float, ...]
    loss: tuple[float, float]
    error: tuple[float, float]

    @property
    def useless(self) -> bool:
        """True where the logits carry no information: the temperature is at its limit."""
        return self.temperature >= MAX_TEMPERATURE

    def apply(self, logits: Floats) -> Floats:
        """Return calibrated logits (..., C)."""
        return logits / self.temperature + (np.array(self.offsets) if self.offsets else 0.0)


@dataclass(frozen=True)
class Reliability:
    """Predicted probabilities beside observed frequencies, in `BINS` bins of equal width.

    Attributes:
        count_K: items of each bin.
        predicted_K: their mean probability, NaN in an empty bin.
        observed_K: the fraction of them that came true.
    """

    count_K: Floats
    predicted_K: Floats
    observed_K: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: mean |predicted - observed| over items; NaN without any."""
        gap_K = np.abs(np.nan_to_num(self.predicted_K - self.observed_K))
        return float(gap_K @ self.count_K / self.count_K.sum()) if self.count_K.any() else float("nan")


def probabilities(task: Task, logits: npt.ArrayLike, temperature: float = 1.0) -> Floats:
    """Turn a model's logits into the outputs that `metrics.measure` takes, in float64.

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


def cross_entropy(task: Task, logits: npt.ArrayLike, targets: npt.ArrayLike) -> float:
    """Compute mean nats per label of a binary, multiclass or multilabel task, NaN without labels."""
    return float(functional.cross_entropy(*label_items(task, logits, targets)))


def calibrate(
    task: Task, logits: npt.ArrayLike, targets: npt.ArrayLike, *, offsets: bool = False
) -> Calibration:
    """Find the temperature, up to 100, and the offsets with the least cross entropy.

    Fit it on validation data: on training data the model is overconfident. Where all labels are predicted
    right, the loss falls as the temperature goes to 0, which would make every doubt a certainty; such labels
    do not determine a temperature, and it is 1.

    Args:
        task: a binary, multiclass or multilabel one.
        logits: of a model.
        targets: the labels, of every class if there are offsets.
        offsets: fit an offset for each class as well, with all classes weighted alike, which corrects a
            model that prefers frequent classes.

    Raises:
        ValueError: a regression task, shapes that do not fit, or a class or all classes without a label.
    """
    if task == "regression":
        raise ValueError("numbers have no temperature")
    logits_PC, truth_P = label_items(task, logits, targets)
    count_C = torch.bincount(truth_P, minlength=logits_PC.shape[1])
    if not (count_C.all() if offsets else count_C.any()):
        raise ValueError("there are no labels" if not len(truth_P) else "a class has no label")
    weight_C = 1 / count_C.double() if offsets else None

    def loss(scaled_PC: Tensor) -> Tensor:
        return functional.cross_entropy(scaled_PC, truth_P, weight_C)

    scale, offset_C = _fit(loss, logits_PC, truth_P, offsets=offsets)
    kind: Task = "multiclass" if logits_PC.shape[1] > 2 else "binary"
    before, after = (
        (float(loss(values_PC)), reliability(kind, probabilities("multiclass", values_PC), truth_P).error)
        for values_PC in (logits_PC, logits_PC * scale + offset_C)
    )
    fitted = tuple(offset_C.tolist()) if offsets else ()
    return Calibration(1 / scale, fitted, (before[0], after[0]), (before[1], after[1]))


def _fit(
    loss: Callable[[Tensor], Tensor], logits_PC: Tensor, truth_P: Tensor, *, offsets: bool
) -> tuple[float, Tensor]:
    """Return 1 / temperature and offsets (C,) of 0 in the mean; the loss is convex in both."""
    scale = torch.ones(1, dtype=torch.float64, requires_grad=True)
    offset_C = torch.zeros(logits_PC.shape[1], dtype=torch.float64, requires_grad=offsets)
    free = [scale, offset_C] if offsets else [scale]
    # Logits of unit size keep scale and offsets, the parameters, on one scale.
    size = float(logits_PC.std(correction=0)) or 1.0
    logits_PC = logits_PC / size
    with torch.no_grad():
        scale *= size

    def objective() -> Tensor:
        return loss(logits_PC * scale + offset_C)

    minimise(objective, free)
    with torch.no_grad():
        scores_PC = logits_PC * scale + offset_C
        all_right = bool((scores_PC.gather(1, truth_P[:, None])[:, 0] >= scores_PC.amax(1)).all())
        fitted = float(scale) / size
        bounded = 1.0 if all_right and fitted > 0 else max(fitted, 1 / MAX_TEMPERATURE)
        scale.fill_(bounded * size)
    if offsets and bounded != fitted:
        minimise(objective, [offset_C])
    return bounded, (offset_C - offset_C.mean()).detach()


def minimise(objective: Callable[[], Tensor], parameters: Sequence[Tensor]) -> None:
    """Move parameters to the minimum of a convex function."""
    optimiser = torch.optim.LBFGS(
        parameters,
        max_iter=_MAX_ITERATIONS,
        tolerance_grad=1e-10,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = objective()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]


def reliability(task: Task, outputs: npt.ArrayLike, targets: npt.ArrayLike) -> Reliability:
    """Count how often probabilities came true: of class 1, every label, or the likeliest of several classes.

    Args:
        task: binary, multiclass or multilabel.
        outputs: probabilities, as `metrics.measure` takes them.
        targets: likewise.
    """
    values, truth = np.asarray(outputs, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    labelled = truth >= 0
    values_P, hit_P = values[labelled], truth[labelled]
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
    """Return logits with an axis of at least two classes: a single logit stands against 0."""
    if task == "multilabel":
        logits = logits[..., None]
    if task == "multiclass" or logits.shape[-1] == 2:
        return logits
    return np.concatenate([np.zeros_like(logits), logits], axis=-1)


def label_items(task: Task, logits: npt.ArrayLike, targets: npt.ArrayLike) -> tuple[Tensor, Tensor]:
    """Return logits (P, C) and classes (P,) of the labels that are not missing."""
    pairs = _as_classes(task, np.asarray(logits, dtype=np.float64))
    truth = np.asarray(targets, dtype=np.float64)
    if pairs.shape[:-1] != truth.shape:
        raise ValueError(f"targets {truth.shape} and logits {np.shape(logits)} do not fit")
    labelled = truth >= 0
    return torch.from_numpy(pairs[labelled]), torch.from_numpy(truth[labelled].astype(np.int64))
