"""How good a model's outputs are on records whose labels are known.

N record, P base of any record, C output.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hyenacli.adaptation.labels import LabelScheme, Targets
from hyenacli.adaptation.losses import Criterion
from hyenacli.evaluation.bootstrap import Floats
from hyenacli.evaluation.calibration import probabilities
from hyenacli.evaluation.metrics import intervals, measure

Logits = NDArray[np.float64]
# Labels times bootstrap draws: labels of bases are many, and get fewer draws.
_MAX_DRAWN = 1 << 28
_DRAWS = (100, 1000)


class Judge:
    """Records of one split and their labels.

    Args:
        scheme: what labels mean.
        targets: of each record.

    Attributes:
        targets: of all: (N,) or (N, C), or of their bases, one record after the other, (P,) or (P, C).
    """

    def __init__(self, scheme: LabelScheme, targets: Sequence[Targets]) -> None:
        self.scheme = scheme
        self._per_base = scheme.level == "nucleotide"
        self.targets = self.stacked(targets)
        # the record of each base
        lengths = [len(target) for target in targets] if self._per_base else []
        self._record_P = np.repeat(np.arange(len(targets)), lengths) if self._per_base else None

    def outputs(self, logits: Sequence[Logits]) -> Floats:
        """What `quality.measure` takes: probabilities or numbers, of shapes as `stacked`."""
        return probabilities(self.scheme.task, self.stacked(logits))

    def stacked(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """What there is of each record as one: (N, ...), or (P, ...) where labels are those of bases."""
        return np.concatenate(arrays) if self._per_base else np.stack(arrays)

    def loss(self, logits: Sequence[Logits], criterion: Criterion) -> float:
        """Mean loss of a label."""
        outputs, targets = torch.from_numpy(self.stacked(logits)), torch.from_numpy(self.targets)
        return float(criterion.loss(outputs, targets)) / max(1.0, criterion.count(self.targets))

    def measure(self, logits: Sequence[Logits]) -> dict[str, float]:
        """The metrics of `quality.measure`."""
        return measure(self.scheme.task, self.targets, self.outputs(logits), self._record_P)

    def repeated(self, times: int) -> NDArray[Any]:
        """The targets, so many times one after the other."""
        return np.concatenate([self.targets] * times)

    @property
    def draws(self) -> int:
        """Bootstrap draws of `intervals`."""
        return int(np.clip(_MAX_DRAWN // self.targets.size, *_DRAWS))

    def intervals(self, logits: Sequence[Logits], seed: int) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals of the metrics; records are drawn."""
        outputs = self.outputs(logits)
        return intervals(self.scheme.task, self.targets, outputs, self._record_P, draws=self.draws, seed=seed)
