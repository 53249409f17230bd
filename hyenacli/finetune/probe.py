"""A linear head fitted by scikit-learn to pooled states that were computed once.

N record, D width, C output.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from hyenacli.adaptation.evaluation import SplitEvaluator
from hyenacli.adaptation.labels import LabelScheme, Targets
from hyenacli.console import log
from hyenacli.errors import UserError
from hyenacli.evaluation.linear_model import fit_linear
from hyenacli.evaluation.metrics import monitor
from hyenacli.finetune.dataset import LabelledSet
from hyenadna.config import HeadConfig
from hyenadna.heads import Head

_PENALTIES = (1000.0, 100.0, 10.0, 1.0, 0.1)


def check_classes(data: LabelledSet) -> None:
    """Check that every class has training records.

    Raises:
        UserError: a class has none, which it names.
    """
    if not data.scheme.has_classes:
        return
    for splits in data.splits:
        classes = {int(data.targets[i]) for i in splits.train.tolist()}
        for k, name in enumerate(data.scheme.names):
            if k not in classes:
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
    valid: tuple[NDArray[np.float32], SplitEvaluator],
    *,
    balanced: bool,
) -> float:
    """Fit a head's weights in place; the validation split chooses the penalty.

    Args:
        head: whose weights are replaced.
        config: its configuration.
        scheme: the task.
        train: features (N, D) and targets.
        valid: features (N, D) as they are predicted from, and their labels.
        balanced: weight classes inversely to their frequency.

    Returns:
        The validation split's metric, the one that `metrics.monitor` names.
    """
    metric = monitor(scheme.task)
    qualities, models = [], []
    features_ND, targets = train
    for model in fit_linear(
        scheme.task, features_ND.copy(), targets, scheme.n_outputs, _PENALTIES, balanced=balanced
    ):
        logits_NC = model.logits(valid[0]).astype(np.float64)
        qualities.append(valid[1].metrics(list(logits_NC))[metric])
        models.append(model)
        log.debug("penalty %g: valid %s %.4f", model.penalty, metric, qualities[-1])
    best = int(np.argmax(np.nan_to_num(qualities, nan=-np.inf)))
    weights_CD, bias_C = models[best].weights_TF, models[best].bias_T
    if config.scale:
        scale_C = np.array(config.scale)
        weights_CD, bias_C = weights_CD / scale_C[:, None], (bias_C - np.array(config.center)) / scale_C
    layer = head.output_transform
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights_CD))
        layer.bias.copy_(torch.from_numpy(bias_C))
    return float(qualities[best])
