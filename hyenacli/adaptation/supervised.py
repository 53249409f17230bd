"""Labels as a task of the training loop.

B example, C output.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from hyenacli.adaptation.epochs import Epochs
from hyenacli.adaptation.evaluator import Judge, Logits
from hyenacli.adaptation.examples import Examples, HostBatch, to_device
from hyenacli.adaptation.losses import Criterion
from hyenacli.distributed import current_ranks
from hyenacli.evaluation.metrics import metric_names, monitor
from hyenacli.inference.prediction import head_of
from hyenacli.training.gradients import sum_array
from hyenadna import HyenaDNA

Predict = Callable[[HyenaDNA, Sequence[int]], list[Logits]]
"""The logits of records by their places: (C,) each, or (bases, C)."""


@dataclass(frozen=True)
class LabelBatch:
    """Examples on the device.

    Attributes:
        inputs: of the model.
        targets: what it should say.
        count: the labels there are, by their weights.
    """

    inputs: Tensor
    targets: Tensor
    count: float


class Stream(Protocol):
    """An endless row of examples, and how they go through a model."""

    def read(self, numbers: range, length: int) -> HostBatch:
        """Examples by their numbers, padded to `length` tokens."""

    def outputs(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """What the model says of inputs on its device, in training mode and with gradient."""


@dataclass(frozen=True)
class EpochStream:
    """Examples dealt out epoch by epoch."""

    examples: Examples
    epochs: Epochs

    def read(self, numbers: range, length: int) -> HostBatch:
        """See `Stream`."""
        return self.examples.read(numbers, *self.epochs.draw(numbers), length)

    def outputs(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """See `Stream`."""
        return self.examples.outputs(model, inputs)


class Supervised:
    """Learning to say labels.

    Args:
        stream: what is learnt from.
        criterion: the loss.
        predict: what a model says of the validation split.
        judge: its labels.
        device: where batches go.
    """

    higher_is_better = True
    tie_breaker = "valid_loss"

    def __init__(
        self,
        stream: Stream,
        criterion: Criterion,
        *,
        predict: Callable[[HyenaDNA], list[Logits]],
        judge: Judge,
        device: torch.device,
    ) -> None:
        self._stream, self._criterion = stream, criterion
        self._predict, self._judge, self._device = predict, judge, device
        task, columns = judge.scheme.task, judge.scheme.n_outputs
        self.monitor = f"valid_{monitor(task)}"
        names = ("loss", *metric_names(task, columns))
        self.evaluation_columns = tuple(f"valid_{name}" for name in names)

    def read(self, windows: range, length: int) -> HostBatch:
        """Examples of the stream by their numbers, padded to `length` tokens."""
        return self._stream.read(windows, length)

    def batch(self, host: HostBatch) -> LabelBatch:
        """Examples on the device."""
        return LabelBatch(*to_device(host, self._device), self._criterion.count(host.targets))

    def loss(self, model: nn.Module, batch: LabelBatch) -> Tensor:
        """Sum of the losses of the labels of a batch."""
        return self._criterion.loss(self._stream.outputs(model, batch.inputs), batch.targets)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Loss and metrics on the validation split."""
        assert isinstance(model, HyenaDNA)  # noqa: S101  (a bug, not an input)
        logits = self._predict(model)
        judged = {"loss": self._judge.loss(logits, self._criterion)} | self._judge.measure(logits)
        return {f"valid_{name}": value for name, value in judged.items()}


def predict_in_shares(
    predict: Predict, model: HyenaDNA, places: Sequence[int], sizes: Sequence[int], device: torch.device
) -> list[Logits]:
    """The logits of records, of which every rank computes a share; the same on all ranks.

    Args:
        predict: of records by their places.
        model: on its device.
        places: of the records.
        sizes: rows of the logits of each record: its bases, or 0 where they are (C,).
        device: of the model.
    """
    ranks = current_ranks()
    if ranks.world_size == 1:
        return predict(model, places)
    mine = range(ranks.rank, len(places), ranks.world_size)
    own = predict(model, [places[i] for i in mine]) if mine else []
    columns = head_of(model).n_outputs
    rows = [max(1, size) for size in sizes]
    ends = np.cumsum(rows)
    whole = np.zeros((int(ends[-1]), columns))
    for i, logits in zip(mine, own, strict=True):
        whole[ends[i] - rows[i] : ends[i]] = logits
    parts = np.split(sum_array(whole, device=device), ends[:-1])
    return [part if size else part[0] for part, size in zip(parts, sizes, strict=True)]
