"""Training examples of labelled records: their order over epochs, their way through a model, and their loss.

N examples, B example of a batch, L token, D width, S strand, C column of labels or output.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from hyenacli.adaptation.labels import IGNORED, LabelScheme, Targets
from hyenacli.evaluation.metrics import metric_names, monitor
from hyenacli.inference.embedding_options import cut
from hyenacli.inference.sampling import complement, padded
from hyenacli.readers.tables import LabelledRecord
from hyenacli.training.curriculum import Stage
from hyenadna import HyenaDNA, Tokenizer
from hyenadna.tokenizer import PAD

Indices = NDArray[np.int64]
Bools = NDArray[np.bool_]
Ids = NDArray[np.uint8]
# Examples are sorted by length within this many batches, so that those of a batch are of similar length.
_BATCHES_SORTED = 32
_ORDER, _SHUFFLE, _STRAND = range(3)
_TOKENIZER = Tokenizer()


@dataclass(frozen=True)
class HostBatch:
    """Examples as read, not yet on the device.

    Attributes:
        inputs: of the model: tokens (B, L) uint8, or features (B, D) float32.
        targets: (B,), (B, L), (B, C) or (B, L, C), as `LabelScheme.encode`.
    """

    inputs: NDArray[Any]
    targets: Targets


class ExampleSource(Protocol):
    """A numbered stream of examples, and how they go through a model."""

    def read(self, numbers: range, length: int) -> HostBatch:
        """Read examples by their 0-based numbers in the stream, padded to `length` tokens."""

    def outputs(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Compute a model's outputs for inputs on its device, in training mode and with gradient."""


class Epochs:
    """The steps of a number of epochs, each a shuffled pass over all examples in batches of similar length.

    A pure function of the seed. Example number n of the stream is the (n mod N)-th of epoch n // N.

    Args:
        lengths: tokens of every example (N,).
        batch_size: examples of a step; an epoch's last step may have fewer.
        epochs: how many.
        seed: of the order, and of which examples are read as their reverse complement.
        rc_augment: read each example of an epoch as its reverse complement with probability 1/2.
    """

    def __init__(
        self, lengths: Sequence[int], *, batch_size: int, epochs: int, seed: int, rc_augment: bool
    ) -> None:
        self._lengths, self._batch_size, self._seed = np.array(lengths, np.int64), batch_size, seed
        self._rc_augment = rc_augment
        self.per_epoch = -(-len(lengths) // batch_size)
        self.steps = epochs * self.per_epoch
        self._order = lru_cache(maxsize=2)(self._make_order)

    @property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return int(self._lengths.max())

    @property
    def batch_size(self) -> int:
        """Examples of a full step."""
        return min(self._batch_size, len(self._lengths))

    def at(self, step: int) -> Stage:
        """Return the examples of a 0-based step, as their numbers, and the length of the longest of them."""
        epoch, batch = divmod(step, self.per_epoch)
        order, starts, _ = self._order(epoch)
        first, end = int(starts[batch]), int(starts[batch + 1])
        longest = int(self._lengths[order[first:end]].max())
        return Stage(longest, end - first, step, 1, epoch * len(self._lengths) + first)

    def draw(self, numbers: range) -> tuple[Indices, Bools]:
        """Return the indices of examples by their numbers, and which are read as their reverse complement."""
        positions = [divmod(number, len(self._lengths)) for number in numbers]
        indices = [self._order(epoch)[0][i] for epoch, i in positions]
        reverse = [self._order(epoch)[2][i] for epoch, i in positions]
        return np.array(indices, np.int64), np.array(reverse, np.bool_)

    def _make_order(self, epoch: int) -> tuple[Indices, Indices, Bools]:
        """Return an epoch's order, where each batch begins and the last ends, and which are reversed."""
        n, size = len(self._lengths), self._batch_size
        shuffled = np.argsort(self._words(epoch, _ORDER, n), kind="stable")
        batches: list[Indices] = []
        for first in range(0, n, size * _BATCHES_SORTED):
            chunk = shuffled[first : first + size * _BATCHES_SORTED]
            chunk = chunk[np.argsort(self._lengths[chunk], kind="stable")]
            batches += [chunk[start : start + size] for start in range(0, len(chunk), size)]
        permutation = np.argsort(self._words(epoch, _SHUFFLE, len(batches)), kind="stable")
        ordered = [batches[i] for i in permutation.tolist()]
        starts = np.cumsum([0, *map(len, ordered)])
        coins = self._words(epoch, _STRAND, n) & np.uint64(1)
        return np.concatenate(ordered), starts, self._rc_augment & (coins == 1)

    def _words(self, epoch: int, purpose: int, count: int) -> NDArray[np.uint64]:
        # counter-based, and documented to be the same in every version of NumPy
        return np.random.Philox(key=self._seed, counter=[0, 0, purpose, epoch]).random_raw(count)


class EpochExamples(ABC):
    """Examples of labelled records, read in the order of `Epochs`; an `ExampleSource`.

    Args:
        lengths: tokens of every example.
        order: makes the epochs from them.
    """

    def __init__(self, lengths: Sequence[int], order: Callable[[Sequence[int]], Epochs]) -> None:
        self.epochs = order(lengths)

    def read(self, numbers: range, length: int) -> HostBatch:
        """Read examples by their numbers; see `ExampleSource`."""
        return self.batch(numbers, *self.epochs.draw(numbers), length)

    @abstractmethod
    def batch(self, numbers: range, indices: Indices, reverse: Bools, length: int) -> HostBatch:
        """Stack examples, padded to `length` tokens.

        Args:
            numbers: in the stream; all that is random about an example is a function of its number.
            indices: of the examples.
            reverse: which are read as reverse complement.
            length: tokens of a row.
        """

    def outputs(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Compute a model's outputs; see `ExampleSource`."""
        return apply_head(model, inputs)


class TokenExamples(EpochExamples):
    """Sequences that go through the complete model.

    Of a sequence with more than `max_bases` a window of that size is read, drawn anew for every example;
    where bases have labels it becomes several windows, in which every base is learnt from once.

    Args:
        max_bases: of an example.
        seed: of the windows.
        order: makes the epochs from the lengths of the examples.

    Attributes:
        n_longer: number of sequences of which windows are drawn.
    """

    def __init__(
        self,
        records: Sequence[LabelledRecord],
        targets: Sequence[Targets],
        scheme: LabelScheme,
        max_bases: int,
        seed: int,
        order: Callable[[Sequence[int]], Epochs],
    ) -> None:
        self._max_bases, self._seed = max_bases, seed
        self._per_base = scheme.level == "nucleotide"
        self._missing = IGNORED if scheme.has_classes else np.nan
        self._ids: list[Ids] = []
        self._targets: list[Targets] = []
        for record, target in zip(records, targets, strict=True):
            ids_L = _TOKENIZER.encode_array(record.sequence)
            if self._per_base:
                self._add_windows(ids_L, target)
                continue
            self._ids.append(ids_L)
            self._targets.append(target)
        self.n_longer = sum(len(ids_L) > max_bases for ids_L in self._ids)
        super().__init__([min(len(ids_L), max_bases) for ids_L in self._ids], order)

    def _add_windows(self, ids_L: Ids, target: Targets) -> None:
        for window in cut(0, len(ids_L), self._max_bases, self._max_bases):
            window_target = target[window.start : window.end].copy()
            window_target[: window.take_start - window.start] = self._missing
            self._ids.append(ids_L[window.start : window.end])
            self._targets.append(window_target)

    def batch(self, numbers: range, indices: Indices, reverse: Bools, length: int) -> HostBatch:
        """Stack examples as tokens (B, L); see `EpochExamples`."""
        rows = list(zip(numbers, indices.tolist(), reverse.tolist(), strict=True))
        windows = [(self._window(number, i), is_reverse) for number, i, is_reverse in rows]
        ids_BL = np.stack([padded(complement(ids) if rc else ids, length) for ids, rc in windows])
        if not self._per_base:
            return HostBatch(ids_BL, np.stack([self._targets[i] for _, i, _ in rows]))
        targets = [self._targets[i][:: -1 if is_reverse else 1] for _, i, is_reverse in rows]
        padded_targets = np.full((len(rows), length, *targets[0].shape[1:]), self._missing, targets[0].dtype)
        for row, target in zip(padded_targets, targets, strict=True):
            row[: len(target)] = target
        return HostBatch(ids_BL, padded_targets)

    def _window(self, number: int, index: int) -> Ids:
        """Return the bases that example `number` of the stream reads of a sequence."""
        ids_L = self._ids[index]
        last_start = len(ids_L) - self._max_bases
        if last_start <= 0:
            return ids_L
        word = int(np.random.Philox(key=self._seed, counter=[0, number, 0, 0]).random_raw(1)[0])
        start = (word * (last_start + 1)) >> 64
        return ids_L[start : start + self._max_bases]


class FeatureExamples(EpochExamples):
    """Sequences as the pooled states of a frozen backbone.

    Args:
        features_NSD: of each sequence, as it is and, where S is 2, of its reverse complement.
        order: makes the epochs from the lengths, which are 1.
    """

    def __init__(
        self,
        features_NSD: NDArray[np.float32],
        targets: Sequence[Targets],
        order: Callable[[Sequence[int]], Epochs],
    ) -> None:
        self._features_NSD = features_NSD
        self._targets: NDArray[Any] = np.stack(targets)
        super().__init__([1] * len(features_NSD), order)

    def batch(self, numbers: range, indices: Indices, reverse: Bools, length: int) -> HostBatch:  # noqa: ARG002
        """Stack examples as features (B, D); see `EpochExamples`."""
        return HostBatch(self._features_NSD[indices, reverse.astype(np.int64)], self._targets[indices])

    def outputs(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """Compute what a model's head makes of features; see `ExampleSource`."""
        hyena = cast("HyenaDNA", model)
        assert hyena.head is not None  # noqa: S101  (internal invariant)
        return hyena.head.project(inputs)


def apply_head(model: nn.Module, inputs: Tensor) -> Tensor:
    """Compute the outputs of a model's head for tokens (B, L); padding is left out of every pool."""
    hyena = cast("HyenaDNA", model)
    assert hyena.head is not None  # noqa: S101  (internal invariant)
    ids_BL = inputs.long()
    out: Tensor = hyena.head(hyena.hidden(ids_BL), ids_BL != PAD)
    return out


class Criterion:
    """The loss of a task: cross entropy, binary cross entropy, or squared error in units of the scale.

    Args:
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
        count: number of labels, by their weights.
    """

    inputs: Tensor
    targets: Tensor
    count: float


class LabelObjective:
    """Learning labels, as the training loop takes it; see `Objective`.

    Args:
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
        inputs, targets = (
            torch.from_numpy(array).to(self._device, non_blocking=True)
            for array in (host.inputs, host.targets)
        )
        return LabelBatch(inputs, targets, self._criterion.count(host.targets))

    def loss(self, model: nn.Module, batch: LabelBatch) -> Tensor:
        """Compute the sum of the losses of the labels of a batch."""
        return self._criterion.loss(self._source.outputs(model, batch.inputs), batch.targets)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Compute loss and metrics on the validation split."""
        assert isinstance(model, HyenaDNA)  # noqa: S101  (internal invariant)
        return {f"valid_{name}": value for name, value in self._evaluate(model).items()}
