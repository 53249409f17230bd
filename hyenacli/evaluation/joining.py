"""Predictions of a network and of a linear model joined: a weighted sum, fitted on the validation split.

The weights are shrunk towards the plain mean of both, each at its own temperature, so that a few hundred
records suffice.

N records, T outputs, P items.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.calibration import calibrate, cross_entropy, label_items, minimise
from hyenadna.config import Task

FOLDS = 5
# The penalty on weights, in nats: as much as some tens of records say about them.
_SHRINKAGE = 20.0


@dataclass(frozen=True)
class JointWeights:
    """Weights of the outputs of a network and of an expert.

    Attributes:
        bias: of each output of a regression; empty otherwise.
    """

    network: float
    expert: float
    bias: tuple[float, ...] = ()

    def apply(self, network: Floats, expert: Floats) -> Floats:
        """Return joined outputs (..., T)."""
        joined = self.network * network + self.expert * expert
        return joined + np.array(self.bias) if self.bias else joined


@dataclass(frozen=True)
class Joint:
    """A fit of weights.

    Attributes:
        losses: mean validation loss of the network, the expert and both joined, each with its weights fitted
            to the other folds of the validation split.
    """

    weights: JointWeights
    losses: tuple[float, float, float]

    @property
    def helps(self) -> bool:
        """True where both together predict unseen validation records better than the network alone."""
        return self.losses[2] < self.losses[0]


def fit_joint(task: Task, network: Floats, expert: Floats, targets: npt.NDArray[Any]) -> Joint:
    """Fit weights, and measure by nested folds what they are worth.

    Args:
        task: meaning of the outputs.
        network: logits or numbers (N, T) of the network on the validation split.
        expert: those of the expert.
        targets: as in `metrics.measure`.
    """
    fold_N = np.argsort(np.random.Philox(key=0).random_raw(len(targets)), kind="stable") % FOLDS
    none = np.zeros_like(network)
    losses = []
    for parts in ((network, none), (none, expert), (network, expert)):
        held_out = np.empty_like(network)
        for fold in range(FOLDS):
            train, test = fold_N != fold, fold_N == fold
            weights = fit_weights(task, parts[0][train], parts[1][train], targets[train])
            held_out[test] = weights.apply(parts[0][test], parts[1][test])
        losses.append(_loss(task, held_out, targets))
    weights = fit_weights(task, network, expert, targets)
    return Joint(weights, (losses[0], losses[1], losses[2]))


def fit_weights(task: Task, network: Floats, expert: Floats, targets: npt.NDArray[Any]) -> JointWeights:
    """Fit weights to validation records, shrunk towards the mean of both."""
    if task == "regression":
        return _fit_numbers(network, expert, targets)
    logits_2PC, scales = [], []
    for outputs in (network, expert):
        scale = 1 / calibrate(task, outputs, targets).temperature if np.ptp(outputs) else 0.0
        pairs_PC, truth_P = label_items(task, outputs, targets)
        logits_2PC.append(pairs_PC * scale)
        scales.append(scale)
    weight_2 = torch.full((2,), 0.5, dtype=torch.float64, requires_grad=True)

    def objective() -> Tensor:
        joined_PC = weight_2[0] * logits_2PC[0] + weight_2[1] * logits_2PC[1]
        nats = functional.cross_entropy(joined_PC, truth_P, reduction="sum")
        return nats + _SHRINKAGE * (weight_2 - 0.5).square().sum()

    minimise(objective, [weight_2])
    fitted = weight_2.tolist()
    return JointWeights(fitted[0] * scales[0], fitted[1] * scales[1])


def _fit_numbers(network: Floats, expert: Floats, targets: npt.NDArray[Any]) -> JointWeights:
    """Fit weights by ridge regression around the mean of both, all columns in units of their deviation."""
    targets = targets.reshape(network.shape)
    y = np.where(np.isfinite(targets), targets, np.nan)
    missing = np.isnan(y)
    parts = [np.where(missing, np.nan, outputs) for outputs in (network, expert)]
    mean_T, scale_T = np.nanmean(y, axis=0), np.nanstd(y, axis=0)
    scale_T[scale_T == 0] = 1.0
    centres = [np.nanmean(part, axis=0) for part in parts]
    x_P2 = np.stack([((p - c) / scale_T)[~missing] for p, c in zip(parts, centres, strict=True)], axis=1)
    rest_P = ((y - mean_T) / scale_T)[~missing] - x_P2 @ [0.5, 0.5]
    change_2 = np.linalg.solve(x_P2.T @ x_P2 + _SHRINKAGE * np.eye(2), x_P2.T @ rest_P)
    a, b = (0.5 + change_2).tolist()
    bias_T = mean_T - a * centres[0] - b * centres[1]
    return JointWeights(a, b, tuple(bias_T.tolist()))


def _loss(task: Task, outputs: Floats, targets: npt.NDArray[Any]) -> float:
    if task == "regression":
        return float(np.nanmean((outputs - targets.reshape(outputs.shape)) ** 2))
    return cross_entropy(task, outputs, targets)
