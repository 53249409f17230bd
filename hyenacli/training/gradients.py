"""Several processes as one: sums over the ranks of a torchrun job, and ranks that share windows."""

import datetime as dt
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from hyenacli.distributed import current_ranks
from hyenacli.errors import UsageError, UserError
from hyenadna import HyenaDNA
from hyenadna.engine.context import ContextGroup

Floats = NDArray[np.float64]
T = TypeVar("T")
_TIMEOUT = dt.timedelta(minutes=30)


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the torchrun job (nccl on CUDA, gloo elsewhere) and leave it; nothing for a plain process."""
    if current_ranks().world_size == 1:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)  # where a collective without a tensor of its own, as a barrier, runs
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    try:
        yield
    finally:
        dist.destroy_process_group()


def sum_over_ranks(*values: float, device: torch.device) -> list[float]:
    """Each number summed over all ranks, in float64 where the device has it."""
    if not dist.is_initialized():
        return list(values)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    total = torch.tensor(values, dtype=dtype, device=device)
    _reduce(total)
    return [float(value) for value in total.tolist()]


def sum_array(array: Floats, *, device: torch.device) -> Floats:
    """An array summed over all ranks, as `sum_over_ranks`."""
    if not dist.is_initialized():
        return array
    dtype = torch.float32 if device.type == "mps" else torch.float64
    total = torch.from_numpy(array).to(device, dtype)
    _reduce(total)
    summed: Floats = total.double().cpu().numpy()
    return summed


def _reduce(tensor: torch.Tensor, how: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> None:
    """Reduce in place over all ranks.

    Raises:
        UserError: another process is gone.
    """
    with _connected():
        dist.all_reduce(tensor, how)


@contextmanager
def _connected() -> Iterator[None]:
    """Raise UserError where another process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise UserError(
            "the connection to another process of this job was lost",
            remedy="see which one ended first, and why; --resume goes on from the last checkpoint",
        ) from error


def sum_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace every gradient by its sum over the ranks, in one collective.

    Losses are already divided by the count over all ranks, so that the sum is the gradient of the global mean
    and the result does not depend on how windows are dealt out. Parameters without a gradient on this rank
    count as zero.
    """
    if not dist.is_initialized():
        return
    parameters = list(parameters)
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    _reduce(flat)
    offset = 0
    for parameter in parameters:
        size = parameter.numel()
        parameter.grad = flat[offset : offset + size].view_as(parameter)
        offset += size


def share_windows(model: HyenaDNA, ranks: int) -> None:
    """Have each group of `ranks` neighbours train on the same windows, each on a part of the positions.

    Raises:
        UsageError: the number of ranks is no multiple of it; ModelError: the model's width is not.
    """
    if ranks == 1:
        return
    world = current_ranks().world_size
    if world % ranks:
        raise UsageError(
            f"{world} process(es) cannot form groups of {ranks}",
            at="--context-parallel",
            remedy=f"start a multiple of {ranks}, for example with --nproc-per-node {ranks}",
        )
    for first in range(0, world, ranks):
        group = dist.new_group(list(range(first, first + ranks)))
        if first <= current_ranks().rank < first + ranks:
            model.backbone.context = ContextGroup(group)
            model.backbone.context.local_channels(model.config.d_model)


def barrier() -> None:
    """Wait for all ranks.

    Raises:
        UserError: another process is gone.
    """
    if dist.is_initialized():
        with _connected():
            dist.barrier()


def broadcast(value: T) -> T:
    """Return the first rank's value on every rank.

    Raises:
        UserError: another process is gone.
    """
    if not dist.is_initialized():
        return value
    values = [value]
    with _connected():
        dist.broadcast_object_list(values)
    return values[0]


def min_over_ranks(value: float, *, device: torch.device) -> float:
    """The smallest of the ranks' numbers."""
    if not dist.is_initialized():
        return value
    least = torch.tensor(value, dtype=torch.float32, device=device)
    _reduce(least, dist.ReduceOp.MIN)
    return float(least)
