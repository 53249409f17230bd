"""What the training loop asks of what is trained: a task, its batches, and where numbers go."""

from typing import Any, Protocol, TypeVar

import torch
from torch import nn


class Batch(Protocol):
    """What one forward pass takes."""

    @property
    def count(self) -> float:
        """What its loss is a sum over: the number of predictions, or their weights."""


B = TypeVar("B", bound=Batch)


class Objective(Protocol[B]):
    """What is trained: where batches come from, the loss, and how the model is judged.

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
        """Windows of the training stream by their numbers; called in the loader's processes."""

    def batch(self, host: Any) -> B:
        """What `read` gave, on the device."""

    def loss(self, model: nn.Module, batch: B) -> torch.Tensor:
        """Sum of the losses of a batch, a float32 scalar with gradient."""

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Judge the model, in eval mode and without gradients; the same numbers on every rank."""


class Sink(Protocol):
    """Where numbers go."""

    def write(self, row: dict[str, float]) -> None:
        """Take the numbers of one step, by the names of the columns."""
