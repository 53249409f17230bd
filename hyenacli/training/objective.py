"""Interfaces of the training loop: what is trained, its batches, and the loggers of its numbers."""

from typing import Any, Protocol

import torch
from torch import nn


class Batch(Protocol):
    """Input of one forward pass."""

    @property
    def count(self) -> float:
        """Number of predictions that the loss is a sum over, or the sum of their weights."""


class Objective(Protocol):
    """Data, loss and evaluation of what is trained.

    Attributes:
        evaluation_columns: the names `evaluate` returns.
        monitor: the one by which the best checkpoint is chosen.
        higher_is_better: of that.
        tie_breaker: of equally good ones the one with less of this is better.
    """

    evaluation_columns: tuple[str, ...]
    monitor: str
    higher_is_better: bool
    tie_breaker: str

    def read(self, windows: range, length: int) -> Any:
        """Read windows of the training stream by their numbers; called in the loader's processes."""

    def batch(self, host: Any) -> Batch:
        """Move what `read` returned to the device."""

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """Return the sum of the losses of a batch, a float32 scalar with gradient."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Evaluate the model, in eval mode and without gradients; the same numbers on every rank."""


class MetricLogger(Protocol):
    """Destination of the numbers of every step."""

    def write(self, row: dict[str, float]) -> None:
        """Write the numbers of one step, by the names of the columns."""
