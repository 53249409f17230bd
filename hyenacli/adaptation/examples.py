"""Labelled sequences as the training loop reads them: as tokens, or as features that were computed once.

B example, L token, D width, S strand, C column of labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hyenacli.adaptation.epochs import Places
from hyenacli.adaptation.labels import IGNORED, LabelScheme, Targets
from hyenacli.inference.sampling import complement, padded
from hyenacli.inference.windows import cut
from hyenacli.readers.labelled_record import LabelledRecord
from hyenadna import HyenaDNA, Tokenizer
from hyenadna.tokenizer import PAD

Bools = NDArray[np.bool_]
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


class Examples(Protocol):
    """What is learnt from, and how it goes through a model."""

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of every example."""

    def read(self, numbers: range, places: Places, mirrored: Bools, length: int) -> HostBatch:
        """Examples of the stream, padded to `length` tokens.

        Args:
            numbers: of them in the stream, which all that is random about them depends on.
            places: of what they are made of.
            mirrored: which are read as reverse complement.
            length: tokens.
        """

    def outputs(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """What the model says of inputs on its device, in training mode and with gradient."""


class TokenExamples:
    """Sequences that go through the whole model.

    Of a sequence with more than `most` bases a window of so many is read, drawn anew for every example; where
    bases have labels it becomes several windows, in which every base is learnt from once.

    Args:
        records: to learn from.
        targets: of each.
        scheme: what they mean.
        most: bases of an example.
        seed: of the windows.
    """

    def __init__(
        self,
        records: Sequence[LabelledRecord],
        targets: Sequence[Targets],
        scheme: LabelScheme,
        most: int,
        seed: int,
    ) -> None:
        self._most, self._seed = most, seed
        self._per_base = scheme.level == "nucleotide"
        self._missing = IGNORED if scheme.has_classes else np.nan
        self._ids: list[NDArray[np.uint8]] = []
        self._targets: list[Targets] = []
        for record, target in zip(records, targets, strict=True):
            ids = _TOKENIZER.encode_array(record.sequence)
            if self._per_base:
                self._add_windows(ids, target, most)
                continue
            self._ids.append(ids)
            self._targets.append(target)

    def _add_windows(self, ids: NDArray[np.uint8], target: Targets, most: int) -> None:
        for window in cut(0, len(ids), most, most):
            own = target[window.start : window.end].copy()
            own[: window.take_start - window.start] = self._missing
            self._ids.append(ids[window.start : window.end])
            self._targets.append(own)

    @property
    def lengths(self) -> list[int]:
        """Tokens of every example."""
        return [min(len(ids), self._most) for ids in self._ids]

    @property
    def longer(self) -> int:
        """How many sequences are read in windows drawn from them."""
        return sum(len(ids) > self._most for ids in self._ids)

    def read(self, numbers: range, places: Places, mirrored: Bools, length: int) -> HostBatch:
        """See `Examples`."""
        picked = list(zip(places.tolist(), mirrored.tolist(), strict=True))
        windows = [
            self._window(number, place) for number, place in zip(numbers, places.tolist(), strict=True)
        ]
        ids_BL = np.stack(
            [
                padded(complement(ids) if turn else ids, length)
                for ids, turn in zip(windows, mirrored.tolist(), strict=True)
            ]
        )
        if not self._per_base:
            return HostBatch(ids_BL, np.stack([self._targets[i] for i, _ in picked]))
        rows = [self._targets[i][::-1] if turn else self._targets[i] for i, turn in picked]
        filled = np.full((len(rows), length, *rows[0].shape[1:]), self._missing, rows[0].dtype)
        for row, own in zip(filled, rows, strict=True):
            row[: len(own)] = own
        return HostBatch(ids_BL, filled)

    def _window(self, number: int, place: int) -> NDArray[np.uint8]:
        """The bases of a place that example `number` of the stream reads."""
        ids = self._ids[place]
        spare = len(ids) - self._most
        if spare <= 0:
            return ids
        word = int(np.random.Philox(key=self._seed, counter=[0, number, 0, 0]).random_raw(1)[0])
        start = (word * (spare + 1)) >> 64
        return ids[start : start + self._most]

    def outputs(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """See `Examples`."""
        return read_tokens(model, inputs)


class FeatureExamples:
    """Sequences as the pooled states of a frozen backbone.

    Args:
        features_NSD: of each sequence, as it is and, where S is 2, of its reverse complement.
        targets: of each.
    """

    def __init__(self, features_NSD: NDArray[np.float32], targets: Sequence[Targets]) -> None:
        self._features_NSD = features_NSD
        self._targets: NDArray[Any] = np.stack(targets)

    @property
    def lengths(self) -> list[int]:
        """An example is one vector."""
        return [1] * len(self._features_NSD)

    def read(self, numbers: range, places: Places, mirrored: Bools, length: int) -> HostBatch:  # noqa: ARG002
        """See `Examples`."""
        return HostBatch(self._features_NSD[places, mirrored.astype(np.int64)], self._targets[places])

    def outputs(self, model: nn.Module, inputs: Tensor) -> Tensor:
        """See `Examples`."""
        hyena = cast("HyenaDNA", model)
        assert hyena.head is not None  # noqa: S101  (a bug, not an input)
        return hyena.head.project(inputs)


def read_tokens(model: nn.Module, inputs: Tensor) -> Tensor:
    """What a model's head says of tokens (B, L); padding is left out of every pool."""
    hyena = cast("HyenaDNA", model)
    assert hyena.head is not None  # noqa: S101  (a bug, not an input)
    ids_BL = inputs.long()
    out: Tensor = hyena.head(hyena.hidden(ids_BL), ids_BL != PAD)
    return out


def to_device(host: HostBatch, device: torch.device) -> tuple[Tensor, Tensor]:
    """Inputs and targets on a device."""
    tensors = (torch.from_numpy(array).to(device, non_blocking=True) for array in (host.inputs, host.targets))
    inputs, targets = tensors
    return inputs, targets
