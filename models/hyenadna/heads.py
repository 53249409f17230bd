"""Prediction heads on the final hidden states.

B batch, L position, D width, C outputs.
"""

import torch
from torch import Tensor, nn

from .config import HeadConfig, Pool


def pool(hidden_BLD: Tensor, how: Pool, mask_BL: Tensor | None = None) -> Tensor:
    """Pool the real positions of each sequence into one vector, (B, D).

    Args:
        hidden_BLD: hidden states.
        how: "mean" over positions, the "last" one, or the "max" of each feature.
        mask_BL: true at real positions; without it all are. Every row needs at least one.

    >>> pool(torch.tensor([[[1.0], [2.0], [9.0]]]), "mean", torch.tensor([[1, 1, 0]]))
    tensor([[1.5000]])
    """
    if mask_BL is None:
        mask_BL = hidden_BLD.new_ones(hidden_BLD.shape[:2], dtype=torch.bool)
    real_BL1 = mask_BL.bool()[..., None]
    if how == "mean":
        # zeroing before the sum keeps a NaN or infinity in the padding out of it
        return hidden_BLD.masked_fill(~real_BL1, 0).sum(1) / real_BL1.sum(1)
    if how == "max":
        return hidden_BLD.masked_fill(~real_BL1, -torch.inf).amax(1)
    positions_L = torch.arange(hidden_BLD.shape[1], device=hidden_BLD.device)
    last_B = (positions_L * mask_BL.bool()).amax(1)
    return hidden_BLD[torch.arange(len(last_B), device=last_B.device), last_B]


class Head(nn.Module):
    """One linear layer on vectors; for a regression, also the unit of its numbers.

    Args:
        d_model: D.
        config: of the head.
    """

    def __init__(self, d_model: int, config: HeadConfig):
        super().__init__()
        self.output_transform = nn.Linear(d_model, config.n_outputs, bias=config.bias)
        # of the configuration, not of the weights
        self._center, self._scale = config.center, config.scale

    def project(self, states: Tensor) -> Tensor:
        """Map (..., D) to (..., C)."""
        out: Tensor = self.output_transform(states)
        if not self._scale:
            return out
        # numbers such as 1000.3 do not survive what an autocast rounds to
        out = out if out.dtype == torch.float64 else out.float()
        return out.new_tensor(self._center) + out.new_tensor(self._scale) * out


class SequenceHead(Head):
    """Pool, then project: official `SequenceDecoder` with `l_output` 0."""

    def __init__(self, d_model: int, config: HeadConfig):
        super().__init__(d_model, config)
        self.how: Pool = config.pool

    def forward(self, hidden_BLD: Tensor, mask_BL: Tensor | None = None) -> Tensor:
        """Map (B, L, D) to (B, C)."""
        return self.project(pool(hidden_BLD, self.how, mask_BL))


class NucleotideHead(Head):
    """Project every position."""

    def forward(self, hidden_BLD: Tensor, mask_BL: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Map (B, L, D) to (B, L, C); the loss leaves out padding, so the mask is not used."""
        return self.project(hidden_BLD)


def build_head(d_model: int, config: HeadConfig) -> SequenceHead | NucleotideHead:
    """Build the head of a configuration."""
    return (SequenceHead if config.level == "sequence" else NucleotideHead)(d_model, config)
