"""Next-nucleotide prediction as a task of the training loop.

B batch, L input positions, W = L + 1 bases in a window, V vocabulary rows.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from hyenacli.data.store import Tokens
from hyenacli.data.windows import WindowSampler
from hyenacli.ranks import current_ranks
from hyenacli.train.distributed import sum_over_ranks
from hyenadna.engine.training import IGNORED, next_token_loss
from hyenadna.tokenizer import A, T

if TYPE_CHECKING:
    from hyenadna import HyenaDNA


@dataclass(frozen=True)
class WindowBatch:
    """Inputs (B, L) and the bases that follow them (B, L), with N and [PAD] ignored; `count` are not."""

    inputs: Tensor
    targets: Tensor
    count: int


def window_batch(windows_BW: Tokens, device: torch.device) -> WindowBatch:
    """Windows of token ids as inputs and targets on a device.

    Only A, C, G and T are predicted: an N says nothing, and the first public code's habit of training on
    padding is not repeated.
    """
    tokens_BW = torch.from_numpy(windows_BW).to(device, non_blocking=True).long()
    inputs_BL, targets_BL = tokens_BW[:, :-1], tokens_BW[:, 1:]
    real_BL = (targets_BL >= A) & (targets_BL <= T)
    count = int(((windows_BW[:, 1:] >= A) & (windows_BW[:, 1:] <= T)).sum())
    return WindowBatch(inputs_BL, targets_BL.masked_fill(~real_BL, IGNORED), count)


class NextNucleotide:
    """Cross entropy in float32 over all vocabulary rows, as the published models were trained.

    Args:
        sampler: the training stream.
        valid_NW: fixed held-out windows (N, W); may be empty, and then the evaluation says NaN.
        batch_size: windows per forward pass in evaluation.
        device: where batches go.
    """

    evaluation_columns: tuple[str, ...] = ("valid_loss", "valid_bits_per_base", "valid_perplexity")
    monitor = "valid_loss"

    def __init__(
        self,
        sampler: WindowSampler,
        valid_NW: Tokens,
        *,
        batch_size: int,
        device: torch.device,
    ):
        self._sampler, self._valid_NW, self._batch_size = sampler, valid_NW, batch_size
        self._device = device
        self.tokens_per_sample = sampler.width - 1

    def batch(self, indices: range) -> WindowBatch:
        """Windows of the training stream."""
        return window_batch(self._sampler.rows(indices), self._device)

    def loss(self, model: nn.Module, batch: WindowBatch) -> Tensor:
        """Sum over the batch of -log p(base | bases before it in the window), in nats."""
        return next_token_loss(cast("HyenaDNA", model), batch.inputs, batch.targets)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Mean nats, bits and perplexity a base over the held-out windows; each rank reads its share."""
        ranks = current_ranks()
        mine = self._valid_NW[ranks.rank :: ranks.world_size]
        total, count = 0.0, 0
        for start in range(0, len(mine), self._batch_size):
            batch = window_batch(mine[start : start + self._batch_size], self._device)
            total += float(self.loss(model, batch))
            count += batch.count
        total, bases = sum_over_ranks(total, count, device=self._device)
        nats = total / bases if bases else math.nan
        return {
            "valid_loss": nats,
            "valid_bits_per_base": nats / math.log(2),
            "valid_perplexity": math.exp(nats),
        }
