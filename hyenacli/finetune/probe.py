"""The quick way to a linear head: scikit-learn on pooled states that were computed once.

N record, D width, C output, S strand.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hyenacli.adaptation.evaluator import Judge
from hyenacli.adaptation.labels import LabelScheme, Targets
from hyenacli.console import log
from hyenacli.errors import UserError
from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.metrics import monitor
from hyenacli.finetune.labelled_set import LabelledSet
from hyenadna.config import HeadConfig
from hyenadna.heads import Head

# Strengths of the penalty in scikit-learn's terms, C for classes and alpha for numbers.
_INVERSE = (0.001, 0.01, 0.1, 1.0, 10.0)
_STRENGTHS = (1000.0, 100.0, 10.0, 1.0, 0.1)
_ITERATIONS = 1000


def check_sklearn() -> None:
    """Refuse to begin without scikit-learn.

    Raises:
        UserError: naming the extra.
    """
    if find_spec("sklearn") is None:
        raise UserError(
            "scikit-learn is not installed", at="--solver sklearn", remedy="pip install 'hyenacli[probe]'"
        )


def check_classes(data: LabelledSet) -> None:
    """Refuse a class without training records, for which scikit-learn fits nothing.

    Raises:
        UserError: naming the class.
    """
    if not data.scheme.has_classes:
        return
    for splits in data.splits:
        seen = {int(data.targets[i]) for i in splits.train.tolist()}
        for k, name in enumerate(data.scheme.names):
            if k not in seen:
                raise UserError(
                    f"class '{name}' has no training record",
                    at="--solver sklearn",
                    remedy="split the data so that it has some, or take --solver adamw",
                )


def fit_head(
    head: Head,
    config: HeadConfig,
    scheme: LabelScheme,
    train: tuple[NDArray[np.float32], Targets],
    valid: tuple[NDArray[np.float32], Judge],
    *,
    balanced: bool,
) -> float:
    """Fit a head's weights in place; the penalty is chosen by the validation split.

    Logistic regression for classes and, column by column, for labels; ridge for numbers. Features are
    standardised, which ends up in the weights.

    Args:
        head: whose weights are replaced.
        config: its configuration.
        scheme: the task.
        train: features (N, D) and targets.
        valid: features (N, D) as they are predicted from, and their labels.
        balanced: give rare classes the weight of frequent ones.

    Returns:
        The validation split's metric, as `quality.monitor` says which.
    """
    features_ND, targets = train
    mean_D, scale_D = features_ND.mean(axis=0), features_ND.std(axis=0)
    scale_D = np.where(scale_D > 0, scale_D, 1.0)
    standard_ND = (features_ND - mean_D) / scale_D
    best, best_quality = None, -np.inf
    for strength, slope_CD, offset_C in _fits(scheme, standard_ND, targets, balanced=balanced):
        weights_CD = slope_CD / scale_D
        bias_C = offset_C - weights_CD @ mean_D
        logits_NC = valid[0] @ weights_CD.T + bias_C
        quality = valid[1].measure(list(logits_NC.astype(np.float64)))[monitor(scheme.task)]
        log.debug("penalty %g: valid %s %.4f", strength, monitor(scheme.task), quality)
        if best is None or quality > best_quality:
            best, best_quality = (weights_CD, bias_C), quality
    assert best is not None  # noqa: S101  (a bug, not an input)
    weights_CD, bias_C = best
    if config.scale:
        scale_C = np.array(config.scale)
        weights_CD, bias_C = weights_CD / scale_C[:, None], (bias_C - np.array(config.center)) / scale_C
    layer = head.output_transform
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights_CD))
        layer.bias.copy_(torch.from_numpy(bias_C))
    return float(best_quality)


def _fits(
    scheme: LabelScheme, features_ND: Floats, targets: Targets, *, balanced: bool
) -> Iterator[tuple[float, Floats, Floats]]:
    """A penalty, the weights (C, D) and the biases (C,) that go with it, for each penalty."""
    from sklearn.linear_model import LogisticRegression, Ridge

    if scheme.task == "regression":
        for strength in _STRENGTHS:
            parts = [
                _linear(Ridge(alpha=strength), features_ND, column, ~np.isnan(column)) for column in targets.T
            ]
            yield strength, np.array([w for w, _ in parts]), np.array([b for _, b in parts])
        return
    weight = "balanced" if balanced else None
    for strength in _INVERSE:
        model = LogisticRegression(C=strength, class_weight=weight, max_iter=_ITERATIONS)
        if scheme.task == "multilabel":
            parts = [_label(model, features_ND, column) for column in targets.T]
            yield strength, np.array([w for w, _ in parts]), np.array([b for _, b in parts])
            continue
        model.fit(features_ND, targets)
        weights_CD, bias_C = model.coef_, model.intercept_
        if scheme.n_outputs == 2:
            weights_CD = np.concatenate([-weights_CD, weights_CD]) / 2
            bias_C = np.concatenate([-bias_C, bias_C]) / 2
        yield strength, weights_CD, bias_C


def _linear(
    model: Any, features_ND: Floats, column_N: NDArray[Any], there_N: NDArray[np.bool_]
) -> tuple[Floats, float]:
    model.fit(features_ND[there_N], column_N[there_N])
    return np.ravel(model.coef_), float(np.ravel(model.intercept_)[0])


def _label(model: Any, features_ND: Floats, column_N: NDArray[Any]) -> tuple[Floats, float]:
    """One label; of a column without both kinds only how frequent it is."""
    there_N = ~np.isnan(column_N)
    share = float(column_N[there_N].mean()) if there_N.any() else 0.5
    if share in (0.0, 1.0) or not there_N.any():
        share = min(max(share, 1e-3), 1 - 1e-3)
        return np.zeros(features_ND.shape[1]), float(np.log(share / (1 - share)))
    return (
        _linear(model, features_ND, column_N.astype(np.int64, copy=False), there_N)
        if there_N.all()
        else (
            _linear(
                model, features_ND[there_N], column_N[there_N].astype(np.int64), np.ones(there_N.sum(), bool)
            )
        )
    )
