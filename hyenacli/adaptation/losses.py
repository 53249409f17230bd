"""What a head is trained to do: sums of losses over the labels there are.

B sequence, L base, C output; labels at sequence level have no L.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hyenacli.adaptation.labels import IGNORED, LabelScheme, Targets


class Criterion:
    """The loss of a task: cross entropy, binary cross entropy, or squared error in units of the scale.

    Args:
        scheme: the task.
        weights: of the K classes, or of a 1 against a 0 in each of C columns; None for 1.
        scale: of each output of a regression, which its errors are divided by; empty for 1.
    """

    def __init__(self, scheme: LabelScheme, weights: Targets | None, scale: tuple[float, ...]) -> None:
        self._classes, self._regression = scheme.has_classes, scheme.task == "regression"
        self._weights = None if weights is None else torch.from_numpy(weights)
        self._scale = torch.tensor(scale or (1.0,))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The weighted sum of the losses, in nats or squared units: a float32 scalar with gradient.

        Args:
            outputs: (B, C) or (B, L, C); columns after those of the classes stand for what is none of them.
            targets: classes (B,) or (B, L), `IGNORED` where missing; or numbers as the outputs, NaN where
                missing.
        """
        outputs = outputs.float()
        weights = None if self._weights is None else self._weights.to(outputs.device)
        if self._classes:
            if weights is not None:
                weights = functional.pad(weights, (0, outputs.shape[-1] - len(weights)), value=1.0)
            return functional.cross_entropy(
                outputs.flatten(0, -2), targets.flatten(), weights, ignore_index=IGNORED, reduction="sum"
            )
        there = ~targets.isnan()
        known = targets.masked_fill(~there, 0)
        if self._regression:
            losses = ((outputs - known) / self._scale.to(outputs.device)).square()
        else:
            losses = functional.binary_cross_entropy_with_logits(
                outputs, known, pos_weight=weights, reduction="none"
            )
        return (losses * there).sum()

    def count(self, targets: Targets) -> float:
        """What the sum is divided by: the labels there are, classes by their weights."""
        if not self._classes:
            return float(np.count_nonzero(~np.isnan(targets)))
        there = targets[targets >= 0]
        return float(len(there) if self._weights is None else self._weights.numpy()[there].sum())
