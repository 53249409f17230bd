"""Gradients of several ranks, and ranks that share the positions of a window."""

from collections.abc import Iterable

import torch
import torch.distributed as dist

from hyenacli.distributed import current_ranks, reduce_over_ranks
from hyenacli.errors import UsageError
from hyenadna import HyenaDNA
from hyenadna.engine.context import ContextGroup


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
    reduce_over_ranks(flat)
    offset = 0
    for parameter in parameters:
        size = parameter.numel()
        parameter.grad = flat[offset : offset + size].view_as(parameter)
        offset += size


def share_windows(model: HyenaDNA, ranks: int) -> None:
    """Let every `ranks` neighbouring ranks train on the same windows, each on a part of the positions.

    Raises:
        UsageError: the number of ranks is not a multiple of it; ModelError: the model's width is not.
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
