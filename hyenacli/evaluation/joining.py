"""Predictions of a network and of its experts joined: a weighted sum, fitted on the validation split.

The weights are shrunk towards the plain mean of all, each at its own temperature, so that a few hundred
records suffice.

N records, T outputs, P items, E parts: the network and its experts, or some of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.calibration import calibrate, cross_entropy, label_items, minimise
from hyenadna.config import Task

NETWORK = "network"
FOLDS = 5
# The penalty on weights, in nats: as much as some tens of records say about them.
_SHRINKAGE = 20.0


@dataclass(frozen=True)
class JointWeights:
    """Weights of the outputs of several predictors.

    Attributes:
        factors: of each; the network is the first, and 0 where it is left out.
        bias: of each output; empty for none.
    """

    factors: tuple[float, ...]
    bias: tuple[float, ...] = ()

    def apply(self, parts: Sequence[Floats]) -> Floats:
        """Return joined outputs (..., T) of those of each predictor."""
        joined = sum(factor * part for factor, part in zip(self.factors, parts, strict=True))
        return np.asarray(joined + np.array(self.bias) if self.bias else joined)


@dataclass(frozen=True)
class Joint:
    """Predictors that are joined, and their weights.

    Attributes:
        members: names of the predictors.
        weights: of the network, then of the parts of the other members.
        losses: mean validation loss of each choice of predictors that was tried, by their names with `+`
            between, with weights fitted to the other folds of the validation split.
    """

    members: tuple[str, ...]
    weights: JointWeights
    losses: Mapping[str, float]


def fit_joint(
    task: Task,
    outputs: Mapping[str, Floats],
    targets: npt.NDArray[Any],
    choices: Sequence[Sequence[str]],
    *,
    offsets: bool = False,
) -> Joint:
    """Choose by nested folds which predictors to join, and fit their weights.

    Args:
        task: meaning of the outputs.
        outputs: logits or numbers (E, N, T) of the parts of each predictor on the validation split, by name;
            one is the `NETWORK`, of one part.
        targets: as in `metrics.measure`.
        choices: names of the predictors to join; the one with the least loss is taken.
        offsets: see `fit_weights`.
    """
    fold_N = np.argsort(np.random.Philox(key=0).random_raw(len(targets)), kind="stable") % FOLDS
    losses = {}
    for names in choices:
        parts = [part for name in names for part in outputs[name]]
        held_out = np.empty_like(parts[0])
        for fold in range(FOLDS):
            train, test = fold_N != fold, fold_N == fold
            weights = fit_weights(task, [part[train] for part in parts], targets[train], offsets=offsets)
            held_out[test] = weights.apply([part[test] for part in parts])
        losses[tuple(names)] = _loss(task, held_out, targets)
    members = min(losses, key=losses.__getitem__)
    parts = [part for name in members for part in outputs[name]]
    weights = fit_weights(task, parts, targets, offsets=offsets)
    if NETWORK not in members:
        weights = replace(weights, factors=(0.0, *weights.factors))
    return Joint(members, weights, {"+".join(names): loss for names, loss in losses.items()})


def fit_weights(
    task: Task, parts: Sequence[Floats], targets: npt.NDArray[Any], *, offsets: bool = False
) -> JointWeights:
    """Fit weights to validation records, shrunk towards the mean of all parts.

    Args:
        task: meaning of the outputs.
        parts: outputs (N, T) of each predictor.
        targets: as in `metrics.measure`.
        offsets: correct each part's leaning towards some classes first, as `calibrate` does, where all
            classes have records.
    """
    if task == "regression":
        return _fit_numbers(parts, targets)
    logits_EPC, scales, offsets_EC = [], [], []
    classes = {int(target) for target in np.ravel(targets) if target >= 0} if offsets else set()
    offsets = offsets and len(classes) == parts[0].shape[-1]
    for outputs in parts:
        calibration = calibrate(task, outputs, targets, offsets=offsets)
        scale = 1 / calibration.temperature if np.ptp(outputs) else 0.0
        pairs_PC, truth_P = label_items(task, outputs, targets)
        offset_C = torch.tensor(calibration.offsets, dtype=torch.float64)
        logits_EPC.append(pairs_PC * scale + (offset_C if offsets else 0))
        scales.append(scale)
        offsets_EC.append(offset_C)
    mean = 1 / len(parts)
    weight_E = torch.full((len(parts),), mean, dtype=torch.float64, requires_grad=True)
    stacked_EPC = torch.stack(logits_EPC)

    def objective() -> Tensor:
        joined_PC = torch.tensordot(weight_E, stacked_EPC, dims=1)
        nats = functional.cross_entropy(joined_PC, truth_P, reduction="sum")
        return nats + _SHRINKAGE * (weight_E - mean).square().sum()

    minimise(objective, [weight_E])
    fitted = weight_E.detach()
    bias_C = tuple((fitted @ torch.stack(offsets_EC)).tolist())
    return JointWeights(tuple(w * s for w, s in zip(fitted.tolist(), scales, strict=True)), bias_C)


def _fit_numbers(parts: Sequence[Floats], targets: npt.NDArray[Any]) -> JointWeights:
    """Fit weights by ridge regression around the mean of all, all columns in units of their deviation."""
    targets = targets.reshape(parts[0].shape)
    y = np.where(np.isfinite(targets), targets, np.nan)
    missing = np.isnan(y)
    parts = [np.where(missing, np.nan, outputs) for outputs in parts]
    # a column without labels has neither mean nor spread
    count_T = np.maximum(1, (~missing).sum(axis=0))
    mean_T, *centres = (np.nansum(part, axis=0) / count_T for part in (y, *parts))
    scale_T = np.sqrt(np.nansum((y - mean_T) ** 2, axis=0) / count_T)
    scale_T[scale_T == 0] = 1.0
    x_PE = np.stack([((p - c) / scale_T)[~missing] for p, c in zip(parts, centres, strict=True)], axis=1)
    mean_E = np.full(len(parts), 1 / len(parts))
    rest_P = ((y - mean_T) / scale_T)[~missing] - x_PE @ mean_E
    change_E = np.linalg.solve(x_PE.T @ x_PE + _SHRINKAGE * np.eye(len(parts)), x_PE.T @ rest_P)
    factors = tuple((mean_E + change_E).tolist())
    bias_T = mean_T - sum(factor * centre for factor, centre in zip(factors, centres, strict=True))
    return JointWeights(factors, tuple(bias_T.tolist()))


def _loss(task: Task, outputs: Floats, targets: npt.NDArray[Any]) -> float:
    if task == "regression":
        return float(np.nanmean((outputs - targets.reshape(outputs.shape)) ** 2))
    return cross_entropy(task, outputs, targets)
