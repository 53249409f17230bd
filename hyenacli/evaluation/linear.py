"""Linear models of features, fitted by scikit-learn.

N records, F features, T outputs (classes or columns).
"""

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hyenadna.config import Task

Array = npt.NDArray[Any]

_MAX_ITERATIONS = 1000
# Least squares by conjugate steps: normal equations take minutes where features are thousands.
_TOLERANCE = 1e-7
# Weight of the record that stands for a class of which the training data have none.
_ABSENT_WEIGHT = 0.1


@dataclass(frozen=True)
class LinearModel:
    """A model fitted by scikit-learn.

    Attributes:
        penalty: strength of the L2 penalty: the summed loss of the records is beside penalty / 2 |w|^2.
        weights_TF: of the features as they were given.
        bias_T: of the outputs.
    """

    penalty: float
    weights_TF: Array
    bias_T: Array

    def logits(self, features_NF: Array) -> Array:
        """Return outputs (N, T): logits of classes or labels, or numbers."""
        logits_NT: Array = features_NF @ self.weights_TF.T + self.bias_T
        return logits_NT


def fit_linear(
    task: Task,
    features_NF: Array,
    targets: Array,
    n_outputs: int,
    penalties: Iterable[float],
    *,
    balanced: bool = False,
    one_scale: bool = False,
    tolerance: float = 1e-4,
) -> Iterator[LinearModel]:
    """Fit one model per penalty; classes share one model, labels and numbers have one per column.

    A class, or a label's value, without a record becomes improbable: one record of average features and
    little weight stands for it.

    Args:
        task: meaning of the targets.
        features_NF: floating; centred and scaled in place.
        targets: classes (N,), negative or NaN where missing; or 0 and 1, or numbers, (N, T), NaN where
            missing.
        n_outputs: T.
        penalties: strengths to fit with, see `LinearModel`.
        balanced: weight classes inversely to their frequency.
        one_scale: divide all features by the same number, the root of their mean variance, instead of each
            by its own deviation: rare features then stay small.
        tolerance: largest gradient of the mean loss of classes and labels at which a fit ends.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    mean_F, scale_F = features_NF.mean(axis=0), features_NF.std(axis=0)
    if one_scale:
        scale_F[:] = np.sqrt(np.mean(scale_F.astype(np.float64) ** 2))
    # a feature that never varies would be divided by rounding
    scale_F[scale_F < 1e-9] = 1.0
    features_NF -= mean_F
    features_NF /= scale_F
    n_classes = {"regression": 0, "multilabel": 2}.get(task, n_outputs)
    joint = targets.ndim == 1 or (task == "regression" and np.isfinite(targets).all())
    groups = [targets] if joint else list(targets.T)
    weight = "balanced" if balanced else None
    # each fit begins at the one before
    estimators: list[Any] = [
        LogisticRegression(class_weight=weight, max_iter=_MAX_ITERATIONS, tol=tolerance, warm_start=True)
        if n_classes
        else Ridge(solver="lsqr", tol=_TOLERANCE)
        for _ in groups
    ]
    for penalty in penalties:
        for estimator in estimators:
            estimator.set_params(**({"C": 1 / penalty} if n_classes else {"alpha": penalty}))
        pairs = zip(estimators, groups, strict=True)
        fits = [_fit(estimator, features_NF, y, n_classes) for estimator, y in pairs]
        weights_TF, bias_T = (np.concatenate(parts) for parts in zip(*fits, strict=True))
        if targets.ndim == 1 and n_classes == 2:
            weights_TF, bias_T = (np.concatenate([-part, part]) / 2 for part in (weights_TF, bias_T))
        weights_TF = weights_TF / scale_F
        yield LinearModel(penalty, weights_TF, bias_T - weights_TF @ mean_F)


def _fit(estimator: Any, x_NF: Array, y: Array, n_classes: int) -> tuple[Array, Array]:
    """Return weights (T, F) and biases (T,), or a single row of both for two classes."""
    from sklearn.exceptions import ConvergenceWarning

    if not n_classes:
        # single precision is too little for sums of squares
        x_NF = x_NF.astype(np.float64, copy=False)
    labelled = y >= 0 if n_classes else np.isfinite(y)
    if not labelled.all():
        x_NF, y = x_NF[labelled], y[labelled]
    absent = np.setdiff1d(np.arange(n_classes), y) if n_classes else np.zeros(int(not len(y)))
    weight_N = None
    if absent.size:
        weight_N = np.append(np.ones(len(y)), np.full(len(absent), _ABSENT_WEIGHT))
        x_NF = np.concatenate([x_NF, np.zeros((len(absent), x_NF.shape[1]), x_NF.dtype)])
        y = np.append(y, absent)
    with warnings.catch_warnings():
        # the validation loss judges a fit that stopped early like any other
        warnings.simplefilter("ignore", ConvergenceWarning)
        estimator.fit(x_NF, y, sample_weight=weight_N)
    return np.atleast_2d(estimator.coef_), np.ravel(estimator.intercept_)
