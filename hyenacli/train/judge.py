"""How good a model's outputs are on records whose labels are known.

N record, L base of the longest, C output.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hyenacli.data.labels import IGNORED, LabelScheme, Targets
from hyenacli.train.calibration import probabilities
from hyenacli.train.criterion import Criterion
from hyenacli.train.quality import intervals, measure
from hyenacli.train.weighted import Floats

Logits = NDArray[np.float64]
# Labels times bootstrap draws: labels of bases are many, and get fewer draws.
_MOST_DRAWN = 1 << 28
_DRAWS = (100, 1000)


class Judge:
    """Records of one split and their labels.

    Args:
        scheme: what labels mean.
        targets: of each record.
    """

    def __init__(self, scheme: LabelScheme, targets: Sequence[Targets]) -> None:
        self.scheme = scheme
        self.targets = _stacked(targets, IGNORED if scheme.has_classes else np.nan)

    def outputs(self, logits: Sequence[Logits]) -> Floats:
        """What `quality.measure` takes: probabilities or numbers (N, C), or of bases (N, L, C)."""
        return probabilities(self.scheme.task, self.stacked(logits))

    def stacked(self, logits: Sequence[Logits]) -> Floats:
        """The logits (N, C), or of bases (N, L, C) with zeros after the last of a record."""
        return _stacked(logits, 0.0)

    def loss(self, logits: Sequence[Logits], criterion: Criterion) -> float:
        """Mean loss of a label."""
        outputs, targets = torch.from_numpy(self.stacked(logits)), torch.from_numpy(self.targets)
        return float(criterion.loss(outputs, targets)) / max(1.0, criterion.count(self.targets))

    def measure(self, logits: Sequence[Logits]) -> dict[str, float]:
        """The metrics of `quality.measure`."""
        return measure(self.scheme.task, self.targets, self.outputs(logits))

    def repeated(self, times: int) -> NDArray[Any]:
        """The targets, so many times one after the other."""
        return np.concatenate([self.targets] * times)

    @property
    def draws(self) -> int:
        """Bootstrap draws of `intervals`."""
        return int(np.clip(_MOST_DRAWN // self.targets.size, *_DRAWS))

    def intervals(self, logits: Sequence[Logits], seed: int) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals of the metrics; records are drawn."""
        outputs = self.outputs(logits)
        return intervals(self.scheme.task, self.targets, outputs, draws=self.draws, seed=seed)


def _stacked(arrays: Sequence[NDArray[Any]], filler: float) -> NDArray[Any]:
    """Arrays that differ in their first axis at most as one, filled up at the end."""
    longest = max((array.shape[:1] for array in arrays), default=(0,))
    if all(array.shape == arrays[0].shape for array in arrays):
        return np.stack(arrays)
    out = np.full((len(arrays), *longest, *arrays[0].shape[1:]), filler, arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return out
