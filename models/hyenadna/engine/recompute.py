"""Activation checkpointing: nothing kept but the input, everything computed again for the gradient.

torch's own does the same, but importing it loads its compiler: a second and 150 MB.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def recomputed(run: Callable[[Tensor], Tensor], x: Tensor, module: nn.Module) -> Tensor:
    """The value of `run(x)`; its intermediate results are made again when the gradient asks for them.

    Args:
        run: a function of x and of the parameters of `module`. Random numbers are drawn again alike.
        x: its input.
        module: holder of every parameter that `run` uses.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    out: Tensor = _Recomputed.apply(run, x, *parameters)  # type: ignore[no-untyped-call]
    return out


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, run: Callable[[Tensor], Tensor], x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(x, *parameters)
        kind = x.device.type
        ctx.run, ctx.random = run, _RandomState(x.device)
        ctx.autocast = kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        return run(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        x, *parameters = ctx.saved_tensors
        x = x.detach().requires_grad_(ctx.needs_input_grad[1])
        inputs = (x, *parameters)
        with torch.enable_grad(), ctx.random.again(), torch.autocast(*ctx.autocast):
            out = ctx.run(x)
        out.data = d_out  # only its graph is of use: this frees its memory
        wanted = [t for t in inputs if t.requires_grad]
        gradients = iter(torch.autograd.grad(out, wanted, d_out, allow_unused=True))
        return None, *(next(gradients) if t.requires_grad else None for t in inputs)


class _RandomState:
    """The state of the random numbers a device draws from."""

    def __init__(self, device: torch.device):
        self._cuda = [device] if device.type == "cuda" else []
        self._states = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, self._cuda)]

    @contextmanager
    def again(self) -> Iterator[None]:
        """A context that draws the same numbers, and leaves no trace."""
        with torch.random.fork_rng(self._cuda):
            torch.set_rng_state(self._states[0])
            for device, state in zip(self._cuda, self._states[1:], strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
