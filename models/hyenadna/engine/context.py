"""Windows longer than one device can hold: every process has a part of the positions of each.

All but the long convolutions works position by position. For those, processes swap positions for channels,
which are independent of each other, and back, a group of channels at a time. Equal to a single process up to
rounding.

P processes of the group, B sequence, L position, l positions of one process, C channel.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Self

import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from hyenadna.errors import ModelError

from .convolution import Workspace


class ContextGroup:
    """Processes that share windows.

    A copy of it, as in a copied or pickled model, is None: a group belongs to its processes.

    Args:
        group: the processes; None for all.

    Attributes:
        size: their number; `rank` is the index of this one.
    """

    def __init__(self, group: "dist.ProcessGroup | None" = None):
        self._group = group
        self.size, self.rank = dist.get_world_size(group), dist.get_rank(group)

    def local_positions(self, x_BL: Tensor, fill: float) -> Tensor:
        """Return this process's positions (B, l) of a full tensor, filled up on the right to a multiple of P.

        The model is causal, so that the filling changes nothing before it.
        """
        n_local = -(-x_BL.shape[1] // self.size)
        start = self.rank * n_local
        x_Bl = x_BL[:, start : start + n_local]
        return functional.pad(x_Bl, (0, n_local - x_Bl.shape[1]), value=fill)

    def local_channels(self, width: int) -> slice:
        """Return the channels that this process convolves.

        Raises:
            ModelError: the width is no multiple of P.
        """
        if width % self.size:
            raise ModelError(
                f"a width of {width} cannot be shared by {self.size} processes",
                remedy="take a number of processes that divides it",
            )
        n_local = width // self.size
        return slice(self.rank * n_local, (self.rank + 1) * n_local)

    def to_channels(self, x_PCBl: Tensor, out_CBL: Tensor, work: Workspace) -> None:
        """Swap positions for channels.

        Args:
            x_PCBl: this process's positions of the channels of each process.
            out_CBL: takes all positions of this process's channels; those beyond L are left out.
            work: memory to work in.
        """
        for positions, part_CBl in zip(
            self._position_slices(x_PCBl, out_CBL), self._exchange(x_PCBl, work), strict=True
        ):
            target_CBl = out_CBL[..., positions]
            target_CBl.copy_(part_CBl[..., : target_CBl.shape[-1]])

    def to_positions(self, x_CBL: Tensor, n_local: int, work: Workspace) -> Tensor:
        """Swap channels for positions: this process's positions of the channels of each, (P, C, B, l).

        Args:
            x_CBL: all positions of this process's channels; missing ones count as zero.
            n_local: positions of a process.
            work: memory to work in, which the result lies in until the next swap.
        """
        sent_PCBl = work.empty("sent", (self.size, *x_CBL.shape[:2], n_local), x_CBL, x_CBL.dtype)
        for positions, part_CBl in zip(self._position_slices(sent_PCBl, x_CBL), sent_PCBl, strict=True):
            target_CBl = x_CBL[..., positions]
            part_CBl[..., : target_CBl.shape[-1]] = target_CBl
            part_CBl[..., target_CBl.shape[-1] :] = 0
        return self._exchange(sent_PCBl, work)

    def _position_slices(self, x_PCBl: Tensor, x_CBL: Tensor) -> list[slice]:
        """Return the positions of each process, as slices of all L."""
        n_local, length = x_PCBl.shape[-1], x_CBL.shape[-1]
        starts = [min(process * n_local, length) for process in range(self.size + 1)]
        return [slice(start, end) for start, end in pairwise(starts)]

    def _exchange(self, x_PCBl: Tensor, work: Workspace) -> Tensor:
        """Send part p to process p, and receive its part."""
        received_PCBl = work.empty("received", tuple(x_PCBl.shape), x_PCBl, x_PCBl.dtype)
        dist.all_to_all_single(received_PCBl, x_PCBl, group=self._group)
        return received_PCBl

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _nothing, ()

    def __deepcopy__(self, memo: dict[int, object]) -> Self | None:
        return None


def _nothing() -> None:
    return None
