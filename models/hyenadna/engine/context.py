"""Windows longer than one device holds: every process has a part of the positions of each.

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
        size: their number, `rank` the place of this one among them.
    """

    def __init__(self, group: "dist.ProcessGroup | None" = None):
        self._group = group
        self.size, self.rank = dist.get_world_size(group), dist.get_rank(group)

    def own(self, x_BL: Tensor, fill: float) -> Tensor:
        """This process's positions (B, l) of a whole tensor, filled up on the right to a multiple of P.

        The model is causal, so that what stands on the right changes nothing before it.
        """
        own = -(-x_BL.shape[1] // self.size)
        start = self.rank * own
        x_Bl = x_BL[:, start : start + own]
        return functional.pad(x_Bl, (0, own - x_Bl.shape[1]), value=fill)

    def own_channels(self, width: int) -> slice:
        """The channels this process convolves.

        Raises:
            ModelError: the width is no multiple of P.
        """
        if width % self.size:
            raise ModelError(
                f"a width of {width} cannot be shared by {self.size} processes",
                remedy="take a number of processes that divides it",
            )
        own = width // self.size
        return slice(self.rank * own, (self.rank + 1) * own)

    def to_channels(self, x_PCBl: Tensor, out_CBL: Tensor, work: Workspace) -> None:
        """Swap positions for channels.

        Args:
            x_PCBl: this process's positions of the channels of each process.
            out_CBL: takes all positions of this process's channels; those beyond L are left out.
            work: memory to work in.
        """
        for places, part_CBl in zip(self._places(x_PCBl, out_CBL), self._exchange(x_PCBl, work), strict=True):
            here_CBl = out_CBL[..., places]
            here_CBl.copy_(part_CBl[..., : here_CBl.shape[-1]])

    def to_positions(self, x_CBL: Tensor, own: int, work: Workspace) -> Tensor:
        """The way back, (P, C, B, l): this process's positions of the channels of each, until the next swap.

        Args:
            x_CBL: all positions of this process's channels; those that are missing count as zero.
            own: positions of a process.
            work: memory to work in.
        """
        sent_PCBl = work.empty("sent", (self.size, *x_CBL.shape[:2], own), x_CBL, x_CBL.dtype)
        for places, part_CBl in zip(self._places(sent_PCBl, x_CBL), sent_PCBl, strict=True):
            here_CBl = x_CBL[..., places]
            part_CBl[..., : here_CBl.shape[-1]] = here_CBl
            part_CBl[..., here_CBl.shape[-1] :] = 0
        return self._exchange(sent_PCBl, work)

    def _places(self, x_PCBl: Tensor, x_CBL: Tensor) -> list[slice]:
        """Where each process's positions are among all L."""
        own, length = x_PCBl.shape[-1], x_CBL.shape[-1]
        starts = [min(process * own, length) for process in range(self.size + 1)]
        return [slice(start, end) for start, end in pairwise(starts)]

    def _exchange(self, x_PCBl: Tensor, work: Workspace) -> Tensor:
        """Part p goes to process p, and its part comes here."""
        received_PCBl = work.empty("received", tuple(x_PCBl.shape), x_PCBl, x_PCBl.dtype)
        dist.all_to_all_single(received_PCBl, x_PCBl, group=self._group)
        return received_PCBl

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return _nothing, ()

    def __deepcopy__(self, memo: dict[int, object]) -> Self | None:
        return None


def _nothing() -> None:
    return None
