"""The objective of an adaptation: the loss of labels, and their examples as the training loop takes them.

B sequence, L base, C output; labels at sequence level have no L.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hyenacli.adaptation.examples import ExampleSource, HostBatch
from hyenacli.adaptation.labels import IGNORED, LabelScheme, Targets
from hyenacli.evaluation.metrics import metric_names, monitor
from hyenadna import HyenaDNA


class Criterion:
    """The loss of a task: cross entropy, binary cross entropy, or squared error in units of the scale.

    Args:
        scheme: the task.
        weights: of the K classes, or of a 1 against a 0 in each of C columns; None for 1.
        scale: of each output of a regression, by which its errors are divided; empty for 1.
    """

    def __init__(
        self, scheme: LabelScheme, weights: Targets | None = None, scale: tuple[float, ...] = ()
    ) -> None:
        self._classes, self._regression = scheme.has_classes, scheme.task == "regression"
        self._weights = None if weights is None else torch.from_numpy(weights)
        self._scale = torch.tensor(scale or (1.0,))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the weighted sum of the losses, in nats or squared units: a float32 scalar with gradient.

        Args:
            outputs: (B, C) or (B, L, C); columns after those of the classes belong to no class.
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
        labelled = ~targets.isnan()
        targets = targets.masked_fill(~labelled, 0)
        if self._regression:
            losses = ((outputs - targets) / self._scale.to(outputs.device)).square()
        else:
            losses = functional.binary_cross_entropy_with_logits(
                outputs, targets, pos_weight=weights, reduction="none"
            )
        return (losses * labelled).sum()

    def count(self, targets: Targets) -> float:
        """Return what the sum is divided by: the number of labels, those of classes by their weights."""
        if not self._classes:
            return float(np.count_nonzero(~np.isnan(targets)))
        classes = targets[targets >= 0]
        return float(len(classes) if self._weights is None else self._weights.numpy()[classes].sum())


@dataclass(frozen=True)
class LabelBatch:
    """Examples on the device.

    Attributes:
        inputs: of the model.
        targets: of its outputs.
        count: number of labels, by their weights.
    """

    inputs: Tensor
    targets: Tensor
    count: float


class LabelObjective:
    """Learning labels, as the training loop takes it; see `Objective`.

    Args:
        source: examples to learn from.
        criterion: the loss.
        scheme: meaning of the labels.
        evaluate: returns loss and metrics of a model on the validation split, the same on every rank.
        device: where batches go.
    """

    higher_is_better = True
    tie_breaker = "valid_loss"

    def __init__(
        self,
        source: ExampleSource,
        criterion: Criterion,
        scheme: LabelScheme,
        evaluate: Callable[[HyenaDNA], dict[str, float]],
        device: torch.device,
    ) -> None:
        self._source, self._criterion = source, criterion
        self._evaluate, self._device = evaluate, device
        self.monitor = f"valid_{monitor(scheme.task)}"
        names = ("loss", *metric_names(scheme.task, scheme.n_outputs))
        self.evaluation_columns = tuple(f"valid_{name}" for name in names)

    def read(self, windows: range, length: int) -> HostBatch:
        """Read examples of the source by their numbers, padded to `length` tokens."""
        return self._source.read(windows, length)

    def batch(self, host: HostBatch) -> LabelBatch:
        """Move examples to the device."""
        return LabelBatch(*host.to(self._device), self._criterion.count(host.targets))

    def loss(self, model: nn.Module, batch: LabelBatch) -> Tensor:
        """Compute the sum of the losses of the labels of a batch."""
        return self._criterion.loss(self._source.outputs(model, batch.inputs), batch.targets)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Compute loss and metrics on the validation split."""
        assert isinstance(model, HyenaDNA)  # noqa: S101  (internal invariant)
        return {f"valid_{name}": value for name, value in self._evaluate(model).items()}
