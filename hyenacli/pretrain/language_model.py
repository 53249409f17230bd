"""Next-nucleotide prediction as a task of the training loop.

B batch, L input positions, W = L + 1 bases in a window, V vocabulary rows.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from hyenacli.distributed import current_ranks, sum_over_ranks
from hyenacli.inference.sampling import WindowSampler
from hyenacli.readers.genome import SOFT_MASKED, Codes, Tokens
from hyenadna.engine.training import IGNORED, next_bases, next_token_loss

if TYPE_CHECKING:
    from hyenadna import HyenaDNA


@dataclass(frozen=True)
class WindowBatch:
    """Windows on the device.

    Attributes:
        inputs: (B, L).
        targets: the bases that follow them (B, L), with N and [PAD] ignored.
        weights: of each prediction (B, L); None where all count alike.
        count: the sum of the weights of what is not ignored.
    """

    inputs: Tensor
    targets: Tensor
    weights: Tensor | None
    count: float


def window_batch(codes_BW: Codes, device: torch.device, soft_mask_weight: float = 1.0) -> WindowBatch:
    """Move windows of codes to a device, as inputs and targets.

    Only A, C, G and T are predicted: an N says nothing, and the first public code's habit of training on
    padding is not repeated.

    Args:
        codes_BW: the windows.
        device: where they go.
        soft_mask_weight: of predictions of soft-masked bases; the others count 1.
    """
    codes = torch.from_numpy(codes_BW).to(device, non_blocking=True)
    tokens_BW = (codes & int(~SOFT_MASKED)).long()
    inputs_BL, targets_BL = tokens_BW[:, :-1], next_bases(tokens_BW)
    real_BL = targets_BL != IGNORED
    if soft_mask_weight == 1.0:
        return WindowBatch(inputs_BL, targets_BL, None, float(real_BL.sum()))
    weights_BL = torch.where(codes[:, 1:] >= int(SOFT_MASKED), soft_mask_weight, 1.0)
    return WindowBatch(inputs_BL, targets_BL, weights_BL, float((weights_BL * real_BL).sum()))


class NextNucleotide:
    """Cross entropy in float32 over all vocabulary rows, as the published models were trained.

    Args:
        sampler: the training stream.
        valid_NW: fixed held-out windows (N, W); may be empty, and then the evaluation says NaN. Every base of
            them counts alike.
        batch_size: windows per forward pass in evaluation.
        device: where batches go.
        soft_mask_weight: of soft-masked bases in training.
    """

    evaluation_columns: tuple[str, ...] = ("valid_loss", "valid_bits_per_base", "valid_perplexity")
    monitor = "valid_loss"
    higher_is_better = False
    tie_breaker = monitor

    def __init__(
        self,
        sampler: WindowSampler,
        valid_NW: Tokens,
        *,
        batch_size: int,
        device: torch.device,
        soft_mask_weight: float = 1.0,
    ):
        self._sampler, self._valid_NW, self._batch_size = sampler, valid_NW, batch_size
        self._device, self._soft_mask_weight = device, soft_mask_weight

    def read(self, windows: range, length: int) -> Codes:
        """Read windows of the training stream with `length` predictions each, as codes (B, L + 1)."""
        return self._sampler.rows(windows, length + 1)

    def batch(self, host: Codes) -> WindowBatch:
        """Move windows to the device."""
        return window_batch(host, self._device, self._soft_mask_weight)

    def loss(self, model: nn.Module, batch: WindowBatch) -> Tensor:
        """Sum -log p(base | bases before it in the window) over the batch, weighted, in nats."""
        return next_token_loss(cast("HyenaDNA", model), batch.inputs, batch.targets, batch.weights)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Compute mean nats, bits and perplexity per base over the held-out windows, shared by the ranks."""
        ranks = current_ranks()
        windows_NW = self._valid_NW[ranks.rank :: ranks.world_size]
        total, count = 0.0, 0.0
        for start in range(0, len(windows_NW), self._batch_size):
            batch = window_batch(windows_NW[start : start + self._batch_size], self._device)
            total += float(self.loss(model, batch))
            count += batch.count
        total, bases = sum_over_ranks(total, count, device=self._device)
        nats = total / bases if bases else math.nan
        return {
            "valid_loss": nats,
            "valid_bits_per_base": nats / math.log(2),
            "valid_perplexity": math.exp(nats),
        }
