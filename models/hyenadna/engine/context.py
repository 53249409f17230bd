"""Windows longer than one device holds: every process has a part of the positions of each.

All but the long convolutions works position by position. For those, processes swap positions for channels,
which are independent of each other, and back. Equal to a single process up to rounding.

N processes of the group, B sequence, L position, l positions of one process, D width, K = 3 D.
"""

from collections.abc import Callable
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from hyenadna.errors import ModelError


class ContextGroup:
    """Processes that share windows.

    A copy of it, as in a copied or pickled model, is None: a group belongs to its processes.

    Args:
        group: the processes; None for all.

    Attributes:
        size: their number, `rank` the place of this one among them.
    """

    def __init__(self, group: "dist.ProcessGroup | None" = None):
        self._group = group
        self.size, self.rank = dist.get_world_size(group), dist.get_rank(group)

    def own(self, x_BL: Tensor, fill: float) -> Tensor:
        """This process's positions (B, l) of a whole tensor, filled up on the right to a multiple of N.

        The model is causal, so that what stands on the right changes nothing before it.
        """
        own = -(-x_BL.shape[1] // self.size)
        start = self.rank * own
        x_Bl = x_BL[:, start : start + own]
        return functional.pad(x_Bl, (0, own - x_Bl.shape[1]), value=fill)

    def own_channels(self, width: int) -> slice:
        """The channels this process convolves.

        Raises:
            ModelError: the width is no multiple of N.
        """
        if width % self.size:
            raise ModelError(
                f"a width of {width} cannot be shared by {self.size} processes",
                remedy="take a number of processes that divides it",
            )
        own = width // self.size
        return slice(self.rank * own, (self.rank + 1) * own)

    def to_channels(self, u_KBl: Tensor) -> Tensor:
        """All positions of this process's channels, (K / N, B, L), of all channels of its positions."""
        k, batch, own = u_KBl.shape
        sent = u_KBl.view(3, self.size, -1, batch, own).transpose(0, 1)
        return self._exchange(sent).permute(1, 2, 3, 0, 4).reshape(k // self.size, batch, -1)

    def to_positions(self, y_CBL: Tensor) -> Tensor:
        """All channels of this process's positions, (D, B, l), of all positions of its channels."""
        c, batch, length = y_CBL.shape
        sent = y_CBL.view(c, batch, self.size, -1).permute(2, 0, 1, 3)
        return self._exchange(sent).reshape(c * self.size, batch, length // self.size)

    def _exchange(self, x: Tensor) -> Tensor:
        """Part i of the first axis goes to process i, and its part comes here."""
        received: Tensor = _Exchange.apply(x, self._group)  # type: ignore[no-untyped-call]
        return received

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _nothing, ()

    def __deepcopy__(self, memo: dict[int, object]) -> Self | None:
        return None


class _Exchange(torch.autograd.Function):
    """An all-to-all, whose gradient is the same all-to-all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
        ctx.group = group
        received = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        dist.all_to_all_single(received, x.contiguous(), group=group)
        return received

    @staticmethod
    def backward(ctx: Any, d_received: Tensor) -> tuple[Tensor, None]:
        return _Exchange.forward(ctx, d_received, ctx.group), None


def _nothing() -> None:
    return None
